"""The repository in use, behind the Protocol of :mod:`kopiwatch.kopia.port`."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio.to_thread

from kopiwatch.config import Config, Secret
from kopiwatch.errors import ConfigError, NotConnected, RepositoryError, RepositoryMismatch
from kopiwatch.kopia import argv, policy
from kopiwatch.kopia.answer import (
    decode,
    directory,
    policies,
    require_path,
    require_snapshots,
    restored,
)
from kopiwatch.kopia.backend import FilesystemBackend, parse_repository, worker_config
from kopiwatch.kopia.connection import Connection, cache_path, mismatch, require_repository
from kopiwatch.kopia.environment import effective_password
from kopiwatch.kopia.lock import FileLock
from kopiwatch.kopia.outline import Outlines
from kopiwatch.kopia.port import Created, RestoreResult, WorkerFiles
from kopiwatch.kopia.process import Finished, Kopia
from kopiwatch.kopia.record import Directory, Entry, RepositoryStatus, Snapshot, SourceIdentity
from kopiwatch.kopia.shelf import Shelf
from kopiwatch.kopia.state import Known, RepositoryState

LOCK_WAIT_SECONDS = 30.0
"""How long a call waits for another Kopia to end before it says who is busy."""

READ_SECONDS = 120.0
"""Deadline of a call that reads a little. Kopia's own retries of a remote end after 11.4 s."""

LIST_SECONDS = 600.0

JUST_READ = timedelta(seconds=5)
"""What was read less long ago is as good as new: a run reads its policy as it begins, and between
that and its window there may be a dump or a hot pass. Small units of a batch share one look."""

WRITE_SECONDS = 600.0


class KopiaRepository:
    """The repository that ``KOPIWATCH_REPOSITORY`` names, reached through the kopia program.

    ``host`` is the name for the first connection (``KOPIWATCH_HOSTNAME``, else Docker's name for
    the host); afterwards the recorded one counts. ``command`` and ``container`` are what the lock
    file tells about us. Other arguments are for tests.

    Implements :class:`kopiwatch.kopia.port.Repository`.
    """

    def __init__(
        self,
        config: Config,
        *,
        host: str = "",
        kopia: Kopia | None = None,
        command: str = "",
        container: str = "",
        lock_wait: float = LOCK_WAIT_SECONDS,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._config = config
        self._host = config.hostname or host
        self._state = RepositoryState(config.state_dir)
        self._shelf = Shelf(config.cache_dir / "directories")
        self._outlines = Outlines(config.cache_dir)
        self._kopia = kopia or Kopia(config.kopia, home=self._state.home)
        self._command = command
        self._container = container
        self._lock_wait = lock_wait
        self._now = now
        self._just_read: tuple[tuple[policy.DefinedPolicy, ...], datetime] | None = None

    # -- who and where -------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The host of our identity: the recorded one, else the one given. Reads a small file."""
        known = self._state.known()
        return known.host if known else self._host

    @property
    def backend(self) -> FilesystemBackend:
        """The configured place. Raises ConfigError."""
        return parse_repository(self._config.repository)

    @property
    def cache_path(self) -> Path:
        """Kopia's cache of this repository. Raises NotConnected."""
        known = self._state.known()
        if known is None:
            raise _not_connected()
        return cache_path(self._config.cache_dir / "kopia", known.unique_id)

    @property
    def lock_path(self) -> Path:
        """``kopia.lock``, to be held by whoever executes Kopia."""
        return self._state.lock_file

    @property
    def kopia(self) -> Kopia:
        """The program."""
        return self._kopia

    # -- connection ----------------------------------------------------------------------------

    async def create(self) -> Created:
        """Make a new repository and connect to it; only where this state never knew one.

        Without a configured password one is generated and kept in the state folder; the answer
        names that file, and the caller must tell people to keep a copy of it elsewhere.

        Raises RepositoryExists, RepositoryUnreachable, ConfigError and what Kopia fails with.
        """
        async with self._connection() as connection:
            return await connection.create(self._config.password)

    async def connect(self) -> RepositoryStatus:
        """Connect, or connect anew, to the repository that is there.

        A failure leaves an existing connection as it was. Raises RepositoryMismatch if it is not
        the repository that this state knows, RepositoryNotFound, WrongPassword and others.
        """
        async with self._connection() as connection:
            self._require_host(await anyio.to_thread.run_sync(self._state.known))
            password = await anyio.to_thread.run_sync(self._password)
            return await connection.connect(password)

    async def ensure_connected(self) -> None:
        """Connect if there is no connection; never creates a repository.

        With a connection only what is configured is compared with what is recorded, without
        starting Kopia.
        """
        if await anyio.to_thread.run_sync(self._connected) is None:
            await self.connect()

    # -- reading -------------------------------------------------------------------------------

    async def status(self) -> RepositoryStatus:
        """Reachable, and the one we know. Raises RepositoryMismatch if it is another."""
        attempt = "opening the repository"
        await self._kopia.version()
        answer = await self._call(argv.status(), attempt, READ_SECONDS)
        status = decode(answer.stdout, RepositoryStatus, attempt)
        known = await anyio.to_thread.run_sync(self._state.known)
        if known is None:
            raise _not_connected()
        if status.unique_id != known.unique_id:
            raise RepositoryMismatch(
                f"the repository in {known.storage} is {status.unique_id}, "
                f"but the one we know is {known.unique_id}",
                hint="Is another disk mounted there? kopiwatch does not switch by itself.",
            )
        if (status.client.username, status.client.hostname) != (argv.USER, known.host):
            raise RepositoryMismatch(
                f"the connection is that of {status.client.username}@{status.client.hostname}, "
                f"but ours is {argv.USER}@{known.host}",
                hint="Run `kopiwatch repo connect`.",
            )
        return status

    async def snapshots(self, source: str = "") -> tuple[Snapshot, ...]:
        """All snapshots of one source (``user@host:path``), or of all; oldest first per source."""
        attempt = "listing snapshots"
        answer = await self._call(argv.snapshot_list(source), attempt, LIST_SECONDS)
        found = decode(answer.stdout, tuple[Snapshot, ...], attempt)
        wanted = (s for s in found if not source or str(s.source) == source)
        return tuple(sorted(wanted, key=lambda s: (str(s.source), s.start_time)))

    async def directory(self, obj: str) -> Directory:
        """A directory object with the summaries of its sub-directories.

        ``obj`` may have a path behind it, ``<object>/volumes``. An object that was read before is
        not read again: its id tells its content.
        """
        attempt = f"reading the directory {obj}"
        require_path(obj, attempt)
        if printed := await anyio.to_thread.run_sync(self._shelf.get, obj):
            with suppress(RepositoryError):  # torn by a power failure: it is read anew
                return directory(printed, attempt)
        answer = await self._call(argv.show(obj), attempt, READ_SECONDS)
        found = directory(answer.stdout, attempt)
        await anyio.to_thread.run_sync(self._shelf.put, obj, answer.stdout)
        return found

    async def outline(self, snapshot: Snapshot) -> dict[str, Entry]:
        """What a snapshot holds, by path, read through its manifest in one launch of Kopia.

        Raises RepositoryError if there is no such manifest, and if it cannot be told in this way.
        """
        attempt = f"reading the tree of the snapshot {snapshot.id}"
        require_snapshots([snapshot.id], attempt)
        async with self._outlines.made(snapshot, attempt) as outline:
            await self._call(argv.outline(snapshot.id, outline.target), attempt, READ_SECONDS)
        return outline.parts

    async def outlined(self, root: str) -> dict[str, Entry] | None:
        """What :meth:`outline` told of a root object before; its id tells its content."""
        return await self._outlines.known(root)

    async def content(self, obj: str) -> bytes:
        """The bytes of one small file: an object, or one with a path behind it."""
        attempt = f"reading the file {obj}"
        require_path(obj, attempt)
        return (await self._call(argv.show(obj), attempt, READ_SECONDS)).stdout

    # -- policy --------------------------------------------------------------------------------

    async def ensure_policy(self, host: str) -> bool:
        """Read, compare, and write the host policy on drift only. True if it was written."""
        target = policy.host_target(host)
        attempt = f"reading the policy of {target}"
        found = await self._policies(attempt)
        mine = [p.policy for p in found if str(p.target) == target]
        if len(mine) == 1 and not policy.drift(mine[0]):
            self._just_read = (found, self._now())
            return False
        attempt = f"writing the policy of {target}"
        text = policy.host_policy(host)
        self._just_read = None
        await self._call(argv.policy_import(), attempt, WRITE_SECONDS, stdin=text)
        return True

    async def check_policy(self, source: str) -> None:
        """Raise RepositoryError unless the effective policy on this source is exactly ours.

        That covers actions, and all that could leave data out or prune it; a policy below the
        source is refused as a whole. What was read a moment ago is read again only where it was
        not good.
        """
        attempt = f"reading the policy in effect on {source}"
        user, _, rest = source.partition("@")
        host, _, path = rest.partition(":")
        read, self._just_read = self._just_read, None
        if read is None or abs(self._now() - read[1]) >= JUST_READ:
            began = self._now()
            read = (await self._policies(attempt), began)
        policy.check_defined(read[0], SourceIdentity(host, user, path))
        self._just_read = read

    async def _policies(self, attempt: str) -> tuple[policy.DefinedPolicy, ...]:
        answer = await self._call(argv.policy_list(), attempt, READ_SECONDS)
        return policies(answer.stdout, attempt)

    # -- writing -------------------------------------------------------------------------------

    async def pin(self, snapshot: str, name: str, *, instead_of: str = "") -> None:
        """Pin a snapshot, in the same step without the pin ``instead_of``. Its id changes."""
        attempt = f"pinning the snapshot {snapshot}"
        require_snapshots([snapshot], attempt)
        await self._call(argv.pin(snapshot, name, instead_of=instead_of), attempt, WRITE_SECONDS)

    async def move_history(self, source: str, target: str) -> None:
        """Give all snapshots of one source to another one, all or none; their ids change."""
        attempt = f"moving the snapshots of {source} to {target}"
        await self._call(argv.move_history(source, target), attempt, WRITE_SECONDS)

    async def delete(self, snapshots: tuple[str, ...]) -> None:
        """Delete manifests by id. Unknown ids fail the call and delete nothing; none is no call."""
        if not snapshots:
            return
        attempt = f"deleting {len(snapshots)} snapshots"
        require_snapshots(snapshots, attempt)
        await self._call(argv.delete(snapshots), attempt, WRITE_SECONDS)

    async def restore(self, path: str, target: Path, *, timeout: timedelta | None) -> RestoreResult:
        """Restore ``<snapshot id>[/sub/path]`` into a directory, owners and modes kept.

        What is in the directory already is overwritten where it has the same name, else kept.
        The result's ``size`` is as exact as Kopia prints it, one digit after the point.
        """
        attempt = f"restoring {path} into {target}"
        require_path(path, attempt)
        if not target.is_absolute():
            raise ValueError(f"{target} is not an absolute path")
        answer = await self._call(
            argv.restore(path, target),
            attempt,
            timeout.total_seconds() if timeout else None,
        )
        return restored(answer.stderr, attempt, answer.tail)

    async def worker_files(
        self, *, cache_dir: Path | str, storage_path: Path | str | None = None
    ) -> WorkerFiles:
        """What a worker needs to open this repository at the paths that it sees.

        ``cache_dir`` is where it sees the folder ``kopia`` of our cache; this repository's own
        part of it is a sub-folder, the same one that calls from here use.
        ``storage_path`` is where the worker sees a filesystem repository (Kopia's own path, the
        folder ``kopia``); None for one that is not a path. Starts no Kopia.
        """
        return await anyio.to_thread.run_sync(self._worker_files, cache_dir, storage_path)

    def _worker_files(self, cache_dir: Path | str, storage_path: Path | str | None) -> WorkerFiles:
        known = self._connected()
        if known is None:
            raise _not_connected()
        cache_dir = cache_path(Path(cache_dir), known.unique_id)
        config = self._state.config_file.read_bytes()
        # Kopia 0.23.1 reads <config>.kopia-password: plain base64, and not trimmed afterwards.
        return WorkerFiles(
            worker_config(config, cache_dir=cache_dir, storage_path=storage_path),
            base64.b64encode(effective_password(self._password()).encode()),
        )

    # -- inside --------------------------------------------------------------------------------

    def _connected(self) -> Known | None:
        """The record, if there is a connection and it is the configured one."""
        known = self._state.known()
        if known is None or not self._state.config_file.exists():
            return None
        if known.storage != self.backend.identity:
            raise mismatch(known, str(self.backend.identity))
        self._require_host(known)
        return known

    def _require_host(self, known: Known | None) -> None:
        wanted = self._config.hostname
        if known is not None and wanted and wanted != known.host:
            raise ConfigError(
                f"KOPIWATCH_HOSTNAME is {wanted!r}, but the backups of this state belong to "
                f"{known.host!r}",
                hint="The name is part of each backup's identity. Set it back, or unset it.",
            )

    def _password(self) -> Secret:
        password = self._config.password or self._state.password()
        if password is None:
            raise ConfigError(
                "no repository password is configured",
                hint="Set KOPIWATCH_PASSWORD, or KOPIWATCH_PASSWORD_FILE to a file that holds it.",
            )
        return password

    def _lock(self) -> FileLock:
        return FileLock(self._state.lock_file, command=self._command, container=self._container)

    def _ready(self) -> Secret:
        """All that can be known to be wrong before Kopia is started; the password."""
        if self._connected() is None:
            raise _not_connected()
        require_repository(self.backend, known=True)
        return self._password()

    async def _call(
        self,
        arguments: Sequence[str],
        attempt: str,
        timeout: float | None,
        *,
        stdin: bytes = b"",
    ) -> Finished:
        password = await anyio.to_thread.run_sync(self._ready)
        async with self._lock().hold(self._lock_wait) as lock:
            return await self._kopia.run(
                [*argv.common(self._state.config_file, log_dir=self._state.log_dir), *arguments],
                attempt=attempt,
                timeout=timeout,
                password=password,
                stdin=stdin,
                pass_fds=[lock.fileno()],
            )

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        backend = self.backend
        await self._kopia.version()
        async with self._lock().hold(self._lock_wait) as lock:
            yield Connection(
                self._kopia,
                backend,
                self._state,
                cache_dir=self._config.cache_dir,
                host=self._host,
                lock_fd=lock.fileno(),
                now=self._now,
            )


def _not_connected() -> NotConnected:
    return NotConnected(
        "there is no connection to a repository",
        hint="Run `kopiwatch repo connect`, or `kopiwatch repo create` for a new one.",
    )
