"""The staging file of one dump: it gets its name only when the dump is known to be whole."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import anyio.to_thread

from kopiwatch.backup.dump.mark import WINDOW_BYTES, Check
from kopiwatch.errors import RunError

RESERVE_BYTES = 64 * 1024 * 1024
"""What a dump leaves free on the disk of the state folder: journal and history are there, too."""
BLOCK_BYTES = 1024 * 1024
"""How much is gathered before it is written; the room is looked at each time."""


class DumpFile:
    """One dump on its way to the disk. Its owner alone may read it (0600).

    ``what`` begins the sentences: "unit shop: the dump of db (postgres)". ``end`` is what the
    command prints behind a whole dump. ``size`` is counted in bytes.
    """

    def __init__(self, path: Path, what: str, end: bytes, *, reserve: int = RESERVE_BYTES) -> None:
        self.path = path
        self.size = 0
        self._what = what
        self._end = end
        self._reserve = reserve
        self._partial = path.with_name(f".{path.name}.partial")
        self._pending = bytearray()
        self._handle = -1

    async def open(self) -> None:
        """Begin, or begin anew."""
        await self.close()
        self._pending.clear()
        self.size = 0
        await anyio.to_thread.run_sync(self._open)

    async def take(self, piece: bytes) -> None:
        """More of it. Raises RunError when the disk is nearly full."""
        self._pending += piece
        if len(self._pending) >= BLOCK_BYTES:
            await self._flush()

    async def finish(self, check: Check) -> None:
        """It has ended well: see that it is whole, and give it its name. Raises RunError."""
        await self._flush()
        await anyio.to_thread.run_sync(self._finish, check)

    async def close(self) -> None:
        """Give up whatever has no name yet. Safe to call twice."""
        if self._handle >= 0:
            handle, self._handle = self._handle, -1
            os.close(handle)
        await anyio.to_thread.run_sync(lambda: self._partial.unlink(missing_ok=True))

    def _open(self) -> None:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            self._partial.unlink(missing_ok=True)
            self._handle = os.open(self._partial, flags, 0o600)
        except OSError as error:
            raise self._unwritable(error) from error

    async def _flush(self) -> None:
        block = bytes(self._pending)
        self._pending.clear()
        # Not to be cut off half-way: the file would be written to after it was closed.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._write, block)

    def _write(self, block: bytes) -> None:
        try:
            status = os.fstatvfs(self._handle)
            if status.f_bavail * status.f_frsize < self._reserve + len(block):
                raise self._full()
            view = memoryview(block)
            while view:
                view = view[os.write(self._handle, view) :]
        except OSError as error:
            raise (self._full() if error.errno in _FULL else self._unwritable(error)) from error
        self.size += len(block)

    def _finish(self, check: Check) -> None:
        try:
            size = os.fstat(self._handle).st_size - len(self._end)
            if size < 0 or os.pread(self._handle, len(self._end), size) != self._end:
                raise self._refused("dump-cut", "was cut off")
            if not size:
                raise self._refused("dump-empty", "is empty: the command printed nothing")
            head = os.pread(self._handle, WINDOW_BYTES, 0)[:size]
            tail = os.pread(self._handle, WINDOW_BYTES, max(0, size - WINDOW_BYTES))
            whole = check(head, tail[: min(size, WINDOW_BYTES)], size)
            if whole.fault:
                raise self._refused("dump-cut", f"is not whole: {whole.fault}")
            self.size = size - whole.surplus
            os.ftruncate(self._handle, self.size)
            self._partial.rename(self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def _refused(self, reason: str, why: str) -> RunError:
        return RunError(f"{self._what} {why}", phase="dumps", reason=reason, hint=LOOK)

    def _full(self) -> RunError:
        return RunError(
            f"{self._what} does not fit on the disk of {self.path.parent}: it was ended after "
            f"{self.size // 1024**2} MiB, with {self._reserve // 1024**2} MiB left free",
            phase="dumps",
            reason="dump-space",
            hint="make room there, or put KOPIWATCH_STATE_DIR on a larger disk",
        )

    def _unwritable(self, error: OSError) -> RunError:
        return RunError(
            f"{self._what} cannot be written: {error.strerror}",
            phase="dumps",
            reason="dump-space",
            hint=f"check permissions and the disk of {self.path.parent}",
        )


LOOK = "run the same command inside the container by hand to see what it says (docs/dumps.md)"
_FULL = (errno.ENOSPC, errno.EDQUOT)
