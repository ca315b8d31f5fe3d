"""The journal: what we hold down and have not yet brought back, per unit.

It is on disk before the first stop (design, promise 1), and a run's entry stays until its members
run again and its verdict is durable in the repository. Whoever holds the run lock replays it.

Each journal is two files of the same content, for a disk that dies may truncate one. And a file
beside them keeps space: who is owed must go on record also on a disk that has run full meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
from datetime import datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.durable import remove_durably, sync_folder, write_durably
from kopiwatch.errors import ConfigError, RunError
from kopiwatch.units.order import How

RESERVE_BYTES = 64 * 1024
"""Room for some journals twice over, each beside the one that it replaces."""
FULL = (errno.ENOSPC, errno.EDQUOT)


class Held(msgspec.Struct, frozen=True):
    """One member that ran before and that we hold: stopped or paused, as ``how`` says.

    ``project``, ``service`` and ``number`` are its Compose identity, empty for stand-alone
    containers: they find its successor if somebody recreates it meanwhile. ``level`` is its place
    in the order of starts, 0 first. ``await_healthy`` names ids that must be healthy before it
    starts. ``healthy_before`` says whether its health check passed; only then it must pass again.
    ``start_timeout`` and ``stop_timeout`` (after which Docker kills it) are seconds. ``started_at``
    (UTC) is since when it ran as we held it: another time means that somebody took over, unless its
    restart policy started it since, which shows in a count higher than ``restarts``. ``shaky`` says
    that it restarted over and over before, so that it need not run on afterwards.
    """

    id: str
    name: str
    project: str
    service: str
    number: str
    how: How
    level: int
    await_healthy: tuple[str, ...]
    healthy_before: bool
    start_timeout: float
    stop_timeout: float
    started_at: datetime | None = None
    shaky: bool = False
    restarts: int = 0


class OwedHook(msgspec.Struct, frozen=True):
    """A post hook that has yet to run, because its pre hook began or nobody was in its way.

    Who it runs in is told like in :class:`Held`. ``timeout`` is seconds.
    """

    id: str
    name: str
    project: str
    service: str
    number: str
    command: tuple[str, ...]
    user: str = ""
    timeout: float = 30.0
    tolerated: bool = False


class Journal(msgspec.Struct, frozen=True):
    """What one run of one unit owes.

    ``members`` is what we hold down; empty when all of them run again. ``source`` is the
    repository's name for the unit (``user@host:path``), so that whoever settles the run later
    finds its manifests. ``judged`` says that the verdict is durable; until then ``reason`` is why
    the run was no success, empty for one that did not live to know. ``hooks`` are the post hooks
    that are still to run, in their order (a version that does not know them leaves them out).
    """

    unit: str
    run: str
    since: datetime
    source: str
    members: tuple[Held, ...]
    judged: bool = False
    reason: str = ""
    hooks: tuple[OwedHook, ...] = ()

    @property
    def settled(self) -> bool:
        """Nothing is owed any more."""
        return not self.members and not self.hooks and self.judged

    @property
    def owed(self) -> str:
        """What is to be done in somebody's containers, in words; empty for nothing."""
        members = ", ".join(member.name for member in self.members)
        hooks = ", ".join(hook.name for hook in self.hooks)
        words = [f"a start of {members}"] if members else []
        words += [f"the post hook of {hooks}"] if hooks else []
        return " and ".join(words)


class JournalStore:
    """The folder of journals. Each call ends on the disk, off the event loop.

    ``<unit>.json`` is the journal, ``<unit>.copy`` the same once more, ``reserve`` the space that
    is kept for them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, unit: str) -> Path:
        return self.folder / f"{unit}.json"

    def _copy(self, unit: str) -> Path:
        return self.folder / f"{unit}.copy"

    @property
    def _reserve(self) -> Path:
        return self.folder / "reserve"

    async def reserve(self) -> None:
        """Make sure that space is kept for the journals of a window; call it before one.

        Raises RunError when there is not enough; the run must not stop anything then.
        """
        await anyio.to_thread.run_sync(self._keep_space)

    def _keep_space(self) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._reserve.exists():
                # Random, for a file system that compresses would keep no space for zeros.
                write_durably(self._reserve, os.urandom(RESERVE_BYTES))
        except OSError as error:
            raise RunError(
                f"no space can be kept for the journals in {self.folder}: {error.strerror}",
                phase="check",
                reason="journal",
                hint=f"make room and check permissions in {self.folder}",
            ) from error

    async def write(self, journal: Journal, *, early: bool = False) -> None:
        """Put a journal on the disk, or remove it when it is settled.

        ``early`` says that nobody is down yet: a full disk is an error then. Later, the space that
        was kept is given up for it. Not to be interrupted: on return the journal is durable, or an
        error says that it is not. Raises RunError when the disk does not take it; the run must not
        stop anything then.
        """
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._write, journal, early)

    def _write(self, journal: Journal, early: bool) -> None:
        try:
            try:
                self._put(journal)
            except OSError as error:
                if early or error.errno not in FULL or not self._reserve.exists():
                    raise
                remove_durably(self._reserve)
                self._put(journal)
        except OSError as error:
            raise RunError(
                f"cannot write the journal of unit {journal.unit}: {error.strerror}",
                phase="stop",
                reason="journal",
                hint=f"make room and check permissions in {self.folder}",
            ) from error

    def _put(self, journal: Journal) -> None:
        """Both files. The copy is never older than the journal, and never outlives it."""
        path, copy = self._path(journal.unit), self._copy(journal.unit)
        if journal.settled:
            with contextlib.suppress(FileNotFoundError):
                copy.unlink()
                sync_folder(self.folder)
            remove_durably(path)
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        content = msgspec.json.encode(journal)
        write_durably(copy, content)
        write_durably(path, content)

    async def read(self, unit: str) -> Journal | None:
        """The journal of one unit, or None. Raises RunError when neither of its files can be read.

        One that is damaged, or lost, is read from its copy.
        """
        return await anyio.to_thread.run_sync(self._read, unit)

    def _read(self, unit: str) -> Journal | None:
        path, trouble = self._path(unit), None
        for each in (path, self._copy(unit)):
            try:
                if journal := _decoded(each):
                    return journal
            except (OSError, msgspec.MsgspecError) as error:
                trouble = trouble or error
        if trouble is None:
            return None
        raise RunError(
            f"the journal {path} cannot be read: {trouble}",
            phase="check",
            reason="journal",
            hint=f"see that the containers of unit {unit} run, then remove the files"
            f" {unit}.json and {unit}.copy there",
        ) from trouble

    async def units(self) -> tuple[str, ...]:
        """The units that have a journal, readable or not. Raises ConfigError."""
        return await anyio.to_thread.run_sync(self._units)

    def _units(self) -> tuple[str, ...]:
        try:
            found = [Path(name) for name in os.listdir(self.folder)]  # noqa: PTH208 - names
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(
                f"the journals in {self.folder} cannot be read: {error.strerror}",
                hint="run it as the user that runs kopiwatch, usually root",
            ) from error
        return tuple(sorted({name.stem for name in found if name.suffix in (".json", ".copy")}))


def _decoded(path: Path) -> Journal | None:
    """What a file holds, None when there is none. Raises OSError, MsgspecError."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Journal)
    except FileNotFoundError:
        return None
