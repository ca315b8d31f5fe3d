"""Making and connecting a repository: the only two acts that write Kopia's configuration."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

import anyio
import anyio.to_thread

from kopiwatch.config import Secret
from kopiwatch.errors import (
    ConfigError,
    RepositoryError,
    RepositoryExists,
    RepositoryMismatch,
    RepositoryNotFound,
    RepositoryUnreachable,
)
from kopiwatch.kopia import argv
from kopiwatch.kopia.answer import decode
from kopiwatch.kopia.backend import FilesystemBackend, worker_config
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.port import Created
from kopiwatch.kopia.process import Kopia
from kopiwatch.kopia.record import RepositoryStatus
from kopiwatch.kopia.state import Known, RepositoryState, keep

CONNECT_SECONDS = 120.0


class Connection:
    """One attempt to create or connect, under the Kopia lock (``lock_fd``).

    Kopia 0.23.1 deletes configuration and cache of a connection that it fails to make, so it works
    on a temporary one with its own cache, which replaces the old one when all has succeeded.
    """

    def __init__(
        self,
        kopia: Kopia,
        backend: FilesystemBackend,
        state: RepositoryState,
        *,
        cache_dir: Path,
        host: str,
        lock_fd: int,
        now: Callable[[], datetime],
    ) -> None:
        self._kopia = kopia
        self._backend = backend
        self._state = state
        self._cache_dir = cache_dir
        self._host = host
        self._lock_fd = lock_fd
        self._now = now

    async def create(self, password: Secret | None) -> Created:
        """Make a repository where there is nothing, for a state that never knew one."""
        known = await anyio.to_thread.run_sync(self._state.known)
        if known is not None:
            raise RepositoryExists(
                f"this state belongs to the repository {known.unique_id} in {known.storage}",
                hint="A repository that is gone is never made again in silence. For a new one "
                "begin with a new state folder.",
            )
        host = self._require_host(None)
        made = await anyio.to_thread.run_sync(self._prepare)
        try:
            generated = password is None
            if password is None:
                password = await anyio.to_thread.run_sync(self._own_password)
            status = await self._establish(
                lambda cache: argv.create_filesystem(
                    self._backend.path, cache_dir=cache, host=host
                ),
                f"creating the repository in {self._backend.identity}",
                password,
                host=host,
                known=None,
                created=True,
            )
        except BaseException:
            if made:
                # Only an empty folder goes; a half-made repository is for people to look at.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(_remove_empty, self._backend.path)
            raise
        return Created(status, self._state.password_file if generated else None)

    async def connect(self, password: Secret) -> RepositoryStatus:
        """Connect to what is there, if it is what this state knows or if it knows nothing."""
        known = await anyio.to_thread.run_sync(self._state.known)
        if known is not None and known.storage != self._backend.identity:
            raise mismatch(known, str(self._backend.identity))
        host = self._require_host(known)
        await anyio.to_thread.run_sync(require_repository, self._backend, known is not None)
        return await self._establish(
            lambda cache: argv.connect_filesystem(self._backend.path, cache_dir=cache, host=host),
            f"connecting to the repository in {self._backend.identity}",
            password,
            host=host,
            known=known,
            created=False,
        )

    def _require_host(self, known: Known | None) -> str:
        host = known.host if known else self._host
        if not host or host.strip() != host or any(c in host for c in "@:/\0"):
            raise ConfigError(
                f"{host!r} cannot be the host name of backups",
                hint="Set KOPIWATCH_HOSTNAME to a name that will stay.",
            )
        return host

    def _own_password(self) -> Secret:
        # One that an earlier, failed attempt left is as good as new.
        return self._state.password() or self._state.generate_password()

    def _prepare(self) -> bool:
        """Check the place and make the sub-directory; True if it was made."""
        path = self._backend.path
        require_mount(self._backend)
        try:
            if self._backend.marker.exists():
                raise RepositoryExists(
                    f"there is a repository in {path} already",
                    hint="Run `kopiwatch repo connect` with its password.",
                )
            if not path.exists():
                path.mkdir(mode=0o700)
                return True
            if any(path.iterdir()):
                raise RepositoryExists(
                    f"{path} is not empty, and no repository either",
                    hint="Empty it, or name another place in KOPIWATCH_REPOSITORY.",
                )
        except OSError as error:
            raise RepositoryUnreachable(
                f"{path} cannot be used: {error.strerror}",
                hint="kopiwatch needs to write there; check owner and mode.",
            ) from error
        return False

    async def _establish(
        self,
        command: Callable[[Path], list[str]],
        attempt: str,
        password: Secret,
        *,
        host: str,
        known: Known | None,
        created: bool,
    ) -> RepositoryStatus:
        temporary = await anyio.to_thread.run_sync(self._temporary)
        try:
            config = temporary / "repository.config"
            await self._run(config, command(temporary / "cache"), attempt, password)
            answer = await self._run(config, argv.status(), attempt, password)
            status = decode(answer, RepositoryStatus, attempt)
            if known is not None and known.unique_id != status.unique_id:
                raise mismatch(known, f"{status.unique_id} in {self._backend.identity}")
            now = self._now()
            new = Known(
                unique_id=status.unique_id,
                storage=self._backend.identity,
                host=host,
                connected=known.connected if known else now,
                created=known.created if known else (now if created else None),
            )
            # Shielded: record and configuration belong together.
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._adopt, config, new)
            return status
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(_remove_tree, temporary)

    def _temporary(self) -> Path:
        try:
            make_private(self._state.home)
            for stale in self._state.home.glob(".connect-*"):
                _remove_tree(stale)  # we hold the lock, so nobody uses it
            return Path(tempfile.mkdtemp(prefix=".connect-", dir=self._state.home))
        except OSError as error:
            raise RepositoryError(
                f"{self._state.home} cannot be written: {error.strerror}",
                hint="The state folder must be writable for kopiwatch.",
            ) from error

    def _adopt(self, config: Path, known: Known) -> None:
        cache = cache_path(self._cache_dir / "kopia", known.unique_id)
        try:
            make_private(cache)
        except OSError as error:
            raise RepositoryError(
                f"the cache folder {cache} cannot be made: {error.strerror}",
                hint="Set KOPIWATCH_CACHE_DIR to a folder that kopiwatch may write.",
            ) from error
        final = worker_config(config.read_bytes(), cache_dir=cache)
        # The record first: without a configuration one connects again, and compares with it.
        self._state.remember(known)
        keep(self._state.config_file, final)

    async def _run(
        self, config: Path, arguments: Sequence[str], attempt: str, password: Secret
    ) -> bytes:
        finished = await self._kopia.run(
            [*argv.common(config, log_dir=self._state.log_dir), *arguments],
            attempt=attempt,
            timeout=CONNECT_SECONDS,
            password=password,
            pass_fds=[self._lock_fd],
        )
        return finished.stdout


def cache_path(cache_dir: Path, unique_id: str) -> Path:
    """Kopia's cache of one repository, so that the contents of two never meet in one folder."""
    return cache_dir / unique_id[:16]


def mismatch(known: Known, found: str) -> RepositoryMismatch:
    """The error that names the repository we know and the one that was found."""
    return RepositoryMismatch(
        f"this state belongs to the repository {known.unique_id} in {known.storage}, "
        f"but KOPIWATCH_REPOSITORY leads to {found}",
        hint="Set it back, mount the right disk, or use another state folder for another "
        "repository. kopiwatch does not switch by itself.",
    )


def require_mount(backend: FilesystemBackend) -> None:
    """Raise RepositoryUnreachable unless the configured folder is there; it is never made."""
    try:
        if backend.mount.is_dir():
            return
        why = "is not a folder" if backend.mount.exists() else "does not exist"
    except OSError as error:
        why = f"cannot be reached: {error.strerror}"
    raise RepositoryUnreachable(
        f"{backend.mount} {why}",
        hint="Is the disk mounted, and is KOPIWATCH_REPOSITORY right? kopiwatch never makes this "
        "folder, only the repository in it.",
    )


def require_repository(backend: FilesystemBackend, known: bool) -> None:
    """Raise RepositoryUnreachable or RepositoryNotFound unless a repository is there.

    ``known``: there was one. An empty mount point looks like a new, empty place to Kopia.
    """
    require_mount(backend)
    try:
        if backend.marker.exists():
            return
        misplaced = (backend.mount / backend.marker.name).exists()
    except OSError as error:
        raise RepositoryUnreachable(
            f"{backend.path} cannot be read: {error.strerror}", hint="Check owner and mode."
        ) from error
    if misplaced:
        hint = (
            f"{backend.mount} itself is a Kopia repository; kopiwatch keeps its own in a folder "
            "named 'kopia' below the one that KOPIWATCH_REPOSITORY names."
        )
    elif known:
        hint = "There was one. Is the disk mounted? kopiwatch never makes it again."
    else:
        hint = "Run `kopiwatch repo create` for a new one."
    raise RepositoryNotFound(f"there is no repository in {backend.path}", hint=hint)


def _remove_empty(path: Path) -> None:
    try:
        path.rmdir()
    except OSError:
        return  # not empty: not ours to judge


def _remove_tree(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
