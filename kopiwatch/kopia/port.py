"""What the rest of the house knows of a repository: one Protocol."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from kopiwatch.kopia.record import Directory, Entry, RepositoryStatus, Snapshot


class RestoreResult(msgspec.Struct, frozen=True):
    """What Kopia says it wrote."""

    files: int
    directories: int
    symlinks: int
    size: int


class WorkerFiles(msgspec.Struct, frozen=True):
    """What a worker needs to open the repository: secret, so it travels over stdin only.

    ``config`` is Kopia's configuration with cache (and a filesystem repository) moved to the paths
    that the worker sees; ``password`` is Kopia's own credential file (base64).
    """

    config: bytes
    password: bytes


class Created(msgspec.Struct, frozen=True):
    """A repository that was just made.

    ``password_file`` holds the password that was generated for it, None where one was given.
    Whoever asked must be told to keep a copy elsewhere: without it the backups are lost.
    """

    status: RepositoryStatus
    password_file: Path | None = None


class Repository(Protocol):
    """The repository in use. Methods start Kopia under the Kopia lock.

    Methods raise subclasses of :class:`kopiwatch.errors.RepositoryError`, or BusyError when the
    lock is held for longer than they may wait.
    """

    @property
    def host(self) -> str:
        """The host of our identity ``kopiwatch@<host>``, frozen at the first connection."""

    async def create(self) -> Created:
        """Make a new repository in an empty place, if this state never knew one, and connect."""

    async def connect(self) -> RepositoryStatus:
        """Connect to the repository that is there. A failure leaves an older connection as is."""

    async def ensure_connected(self) -> None:
        """Connect if there is no connection. Never creates a repository."""

    async def status(self) -> RepositoryStatus:
        """Reachable, and the one we know. Raises RepositoryMismatch if it is another."""

    async def snapshots(self, source: str = "") -> tuple[Snapshot, ...]:
        """All snapshots of one source (``user@host:path``), or of all; oldest first per source."""

    async def directory(self, obj: str) -> Directory:
        """A directory object with the summaries of its sub-directories."""

    async def outline(self, snapshot: Snapshot) -> dict[str, Entry]:
        """What a snapshot of ours holds, by path, read through its manifest in one launch of Kopia.

        The paths are those of :func:`kopiwatch.kopia.tree.parts`. Raises RepositoryError if there
        is no such manifest in the repository, and if what is there cannot be told in this way.
        """

    async def outlined(self, root: str) -> dict[str, Entry] | None:
        """What :meth:`outline` told of a root object before, None if nothing. Starts no Kopia."""

    async def content(self, obj: str) -> bytes:
        """The bytes of one small file, ``<object>`` or ``<object>/sub/path``."""

    async def ensure_policy(self, host: str) -> bool:
        """Read, compare, and write the host policy on drift only. True if it was written."""

    async def check_policy(self, source: str) -> None:
        """Raise RepositoryError unless the effective policy on this source is exactly ours.

        That is its actions, and all that could leave data out of a backup or prune one. What was
        found good a few seconds ago may be taken as it was then.
        """

    async def pin(self, snapshot: str, name: str, *, instead_of: str = "") -> None:
        """Pin a snapshot, in the same step without the pin ``instead_of``. Its id changes.

        Nothing changes, and the id stays, if it is pinned so already.
        """

    async def move_history(self, source: str, target: str) -> None:
        """Give all snapshots of one source (``user@host:path``) to another one, all or none.

        Their ids change; times, tags, pins and content stay. A source without any is no error.
        """

    async def delete(self, snapshots: tuple[str, ...]) -> None:
        """Delete manifests by id. Unknown ids fail the call and delete nothing."""

    async def restore(self, path: str, target: Path, *, timeout: timedelta | None) -> RestoreResult:
        """Restore ``<snapshot id>[/sub/path]`` into a directory, owners and modes kept."""

    async def worker_files(
        self, *, cache_dir: Path | str, storage_path: Path | str | None = None
    ) -> WorkerFiles:
        """Configuration and credential of this repository for the paths that a worker sees.

        ``cache_dir`` is where it sees the folder ``kopia`` of our cache.
        ``storage_path`` is where it sees a filesystem repository: Kopia's own path there.
        """
