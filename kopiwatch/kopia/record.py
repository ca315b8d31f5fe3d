"""Kopia's JSON as typed records, pinned to recorded output of Kopia 0.23.1."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

BAD_PIN = "kopiwatch-bad-"
ACCEPTED_PIN = "kopiwatch-accepted-"
TAG = "tag:kopiwatch-"


class EntryError(msgspec.Struct, frozen=True):
    """One entry that Kopia could not read."""

    path: str = ""
    error: str = ""


class Summary(msgspec.Struct, frozen=True, rename="camel"):
    """What Kopia counted below a directory. ``size`` is bytes."""

    size: int = 0
    files: int = 0
    symlinks: int = 0
    dirs: int = 0
    num_failed: int = 0
    num_ignored_errors: int = 0
    errors: tuple[EntryError, ...] = ()


class Entry(msgspec.Struct, frozen=True):
    """One entry of a directory, or the root of a snapshot. ``type``: d, f or s (symlink)."""

    name: str
    type: Literal["d", "f", "s", ""] | str = ""
    mode: str = ""
    size: int = 0
    mtime: datetime | None = None
    uid: int = 0
    gid: int = 0
    obj: str = ""
    summ: Summary | None = None


class Directory(msgspec.Struct, frozen=True):
    """A directory as ``kopia show <object>`` prints it."""

    stream: str
    entries: tuple[Entry, ...] = ()
    summary: Summary | None = None


class SourceIdentity(msgspec.Struct, frozen=True, rename="camel"):
    """``user@host:path``."""

    host: str
    user_name: str
    path: str

    def __str__(self) -> str:
        return f"{self.user_name}@{self.host}:{self.path}"


class Snapshot(msgspec.Struct, frozen=True, rename="camel"):
    """A snapshot manifest. Times are UTC. ``incomplete`` is empty for a complete one."""

    id: str
    source: SourceIdentity
    start_time: datetime
    end_time: datetime
    description: str = ""
    incomplete: str = ""
    root_entry: Entry | None = None
    tags: dict[str, str] = msgspec.field(default_factory=dict)
    pins: tuple[str, ...] = ()

    def tag(self, name: str) -> str:
        """The value of the tag ``kopiwatch-<name>``, or empty."""
        return self.tags.get(TAG + name, "")

    @property
    def quarantine(self) -> str:
        """Why its run was not a success, if it is pinned so; else empty."""
        return self._pinned(BAD_PIN)

    @property
    def accepted(self) -> str:
        """What its verdict had refused and somebody took on record as good; else empty."""
        return "" if self.quarantine else self._pinned(ACCEPTED_PIN)

    @property
    def complete(self) -> bool:
        """A run of ours made it, whole and free of fatal errors, and no verdict speaks against it.

        A run whose verdict is not durable yet is not told apart by this.
        """
        summary = self.root_entry.summ if self.root_entry else None
        sound = summary is not None and not summary.num_failed
        return bool(self.tag("run")) and sound and not self.incomplete and not self.quarantine

    def _pinned(self, prefix: str) -> str:
        found = [pin for pin in self.pins if pin.startswith(prefix)]
        return found[0].removeprefix(prefix) if found else ""


class ClientOptions(msgspec.Struct, frozen=True):
    """Who we are for this repository."""

    hostname: str = ""
    username: str = ""


class Storage(msgspec.Struct, frozen=True):
    """Where the blobs are. ``config`` differs by type; its secrets come masked from Kopia."""

    type: str
    config: dict[str, object] = msgspec.field(default_factory=dict)


class Capacity(msgspec.Struct, frozen=True):
    """Bytes of the storage, where it can tell."""

    capacity: int = 0
    available: int = 0


class RepositoryStatus(msgspec.Struct, frozen=True):
    """``kopia repository status --json``, as far as we use it."""

    unique_id: str = msgspec.field(name="uniqueIDHex")
    client: ClientOptions = msgspec.field(name="clientOptions")
    storage: Storage
    volume: Capacity | None = None
