"""A socket that was mounted as a file, whose daemon made a new one.

A restarted daemon (with live-restore, or while our restart policy kept us) makes a new socket file
on the host. A container that has mounted the old *file* keeps its inode, and every connection to it
is refused for good (measured; moby#22789). Only a fresh mount helps, that is a new container start.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio

from kopiwatch.clock import Clock
from kopiwatch.errors import EngineError, EngineRefused, StaleSocket

STALE_SECONDS = 300.0
"""Refused for so long by the same file: longer than any daemon takes to start."""

Inode = Callable[[Path], Awaitable[int | None]]
"""The inode number of a path, None where there is nothing."""


async def look_up(path: Path) -> int | None:
    """The inode number of a path, None where there is nothing to see."""
    try:
        return (await anyio.Path(path).stat()).st_ino
    except OSError:
        return None


class StaleRule:
    """Tells a daemon that is down for a while from a socket that is dead for good.

    ``path`` is that of the Unix socket; None: it is not one, and this never says anything.
    """

    def __init__(self, path: Path | None, clock: Clock, inode: Inode = look_up) -> None:
        self._path = path
        self._clock = clock
        self._look_up = inode
        self._inode: int | None = None
        self._since: float | None = None

    def clear(self) -> None:
        """Somebody answered."""
        self._since = None

    async def failed(self, error: EngineError) -> None:
        """A try failed. Raises StaleSocket when all have been refused by one file for 5 minutes."""
        if self._path is None:
            return
        if not isinstance(error, EngineRefused):
            self.clear()
            return
        inode, now = await self._look_up(self._path), self._clock.seconds()
        if inode is None:
            self.clear()
        elif self._since is None or inode != self._inode:
            self._inode, self._since = inode, now
        elif now - self._since >= STALE_SECONDS:
            raise StaleSocket(
                f"cannot follow Docker: the socket {self._path} has refused every connection for "
                f"{(now - self._since) / 60:.0f} min, and its file is the same as before",
                hint="Docker was probably restarted and made a new file, which this container does "
                "not see. It helps to start this container anew; for good, mount the socket's "
                "folder instead of the file, or use a socket proxy",
            ) from error
