"""A lock file that dies with its holders and says to people who they are."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path, PurePath

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.errors import BusyError, KopiwatchError
from kopiwatch.kopia.folder import make_private

POLL_SECONDS = 0.1
"""How often a waiting acquirer looks again."""

PROBE_RETRIES = 3
PROBE_PAUSE_SECONDS = 0.01
# holder() must take the lock for some microseconds to see whether it is free; an acquirer that
# does not want to wait looks this often before it believes that somebody is there.


class Owner(msgspec.Struct, frozen=True, omit_defaults=True):
    """Who holds a lock, for people; the lock itself decides who lives.

    ``container`` is empty outside a container; ``since`` is UTC; ``command`` is for reading, not
    for running.
    """

    pid: int
    host: str = ""
    container: str = ""
    command: str = ""
    since: datetime | None = None

    def __str__(self) -> str:
        place = f"container {self.container}" if self.container else f"host {self.host or '?'}"
        command = f" ({self.command})" if self.command else ""
        since = f", since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"PID {self.pid}{command} on {place}{since}"


class FileLock:
    """An exclusive ``flock`` on a file, used for ``run.lock`` and ``kopia.lock``.

    The kernel gives the lock back when the last copy of the descriptor is closed. Hand
    :meth:`fileno` to a child (``pass_fds``) and the lock stays as long as the child lives, even if
    we do not: that is why releasing closes the descriptor and never unlocks it.

    The file is made with mode 0600 and never deleted: two processes that lock two files of one
    name would both believe that they are alone.

    ``command`` and ``container`` are written into the file for whoever is kept waiting. ``now``,
    ``clock`` (seconds, monotonic) and ``sleep`` are there for tests.
    """

    def __init__(
        self,
        path: Path,
        *,
        command: str = "",
        container: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        clock: Callable[[], float] = anyio.current_time,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self.path = path
        self._command = command or _own_command()
        self._container = container
        self._now = now
        self._clock = clock
        self._sleep = sleep
        self._fd: int | None = None

    @property
    def held(self) -> bool:
        """True if this object holds the lock."""
        return self._fd is not None

    def fileno(self) -> int:
        """The locked descriptor. Raises ValueError if the lock is not held."""
        if self._fd is None:
            raise ValueError(f"{self.path} is not locked by us")
        return self._fd

    async def acquire(self, wait: float = 0.0) -> None:
        """Take the lock, waiting for up to ``wait`` seconds without blocking the event loop.

        Raises BusyError that names the holder, and KopiwatchError if the file cannot be used.
        """
        if self._fd is not None:
            raise ValueError(f"{self.path} is locked by this very object")
        end = self._clock() + wait
        attempt = 0
        try:
            while not await anyio.to_thread.run_sync(self._try):
                attempt += 1
                if attempt < PROBE_RETRIES:
                    await self._sleep(PROBE_PAUSE_SECONDS)
                    continue
                left = end - self._clock()
                if left <= 0:
                    await anyio.to_thread.run_sync(self._raise_busy)
                await self._sleep(min(POLL_SECONDS, left))
        except BaseException:
            self.release()
            raise

    def release(self) -> None:
        """Close our descriptor. A child that inherited it keeps the lock."""
        if self._fd is not None:
            fd, self._fd = self._fd, None
            os.close(fd)

    @contextlib.asynccontextmanager
    async def hold(self, wait: float = 0.0) -> AsyncIterator[FileLock]:
        """:meth:`acquire` for the length of a block."""
        await self.acquire(wait)
        try:
            yield self
        finally:
            self.release()

    def _try(self) -> bool:
        try:
            make_private(self.path.parent)
            fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise KopiwatchError(
                f"cannot open the lock file {self.path}: {error.strerror}",
                hint="The state folder must be writable for kopiwatch.",
            ) from error
        try:
            if not _flock(fd, fcntl.LOCK_EX, self.path):
                os.close(fd)
                return False
            owner = Owner(
                pid=os.getpid(),
                host=socket.gethostname(),
                container=self._container,
                command=self._command,
                since=self._now(),
            )
            os.ftruncate(fd, 0)
            os.pwrite(fd, msgspec.json.encode(owner) + b"\n", 0)
        except BaseException:
            os.close(fd)
            raise
        self._fd = fd
        return True

    def _raise_busy(self) -> None:
        raise BusyError(
            f"{self.path.name} is held by {_describe(self.path)}",
            hint="Wait until it is done; the lock goes away with its holder.",
        )


def holder(path: Path) -> str | None:
    """Who holds the lock, in words; None if nobody does or there is no such file.

    Changes nothing, waits for nothing, and creates nothing. Raises KopiwatchError if the file
    cannot be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KopiwatchError(
            f"cannot read the lock file {path}: {error.strerror}",
            hint="Run the command as the user that runs kopiwatch.",
        ) from error
    try:
        # Shared, so that two who only look never see each other.
        return None if _flock(fd, fcntl.LOCK_SH, path) else _describe(path)
    finally:
        os.close(fd)


def _flock(fd: int, kind: int, path: Path) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise KopiwatchError(
            f"cannot lock {path}: {error.strerror}",
            hint="The state folder must be on a local file system that supports flock.",
        ) from error
    return True


def _describe(path: Path) -> str:
    """What the file says of its holder. Unreadable text is no reason to fail: it is for people."""
    try:
        return str(msgspec.json.decode(path.read_bytes(), type=Owner))
    except (OSError, msgspec.DecodeError, ValueError, OverflowError):
        return "somebody who left no name"


def _own_command() -> str:
    if not sys.argv:
        return ""
    return " ".join([PurePath(sys.argv[0]).name, *sys.argv[1:]])[:200]
