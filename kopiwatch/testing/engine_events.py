"""The events of the fake daemon: what it remembers, and who follows."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import datetime

import anyio

from kopiwatch.engine.port import Hint, Mounted, VolumeMount
from kopiwatch.errors import EngineError, EngineUnreachable, EventTooLarge

REMEMBERED = 256
"""As many events as Docker keeps."""


class FakeStream:
    """One follower's stream: what waits for it, and how it ends."""

    def __init__(self, waiting: list[Hint | EventTooLarge]) -> None:
        self._waiting: deque[Hint | EventTooLarge] = deque(waiting)
        self._over = False
        self._broken: EngineError | None = None
        self._news = anyio.Event()

    def put(self, item: Hint | EventTooLarge) -> None:
        """One more event, or one that cannot be read."""
        self._waiting.append(item)
        self._news.set()

    def end(self, error: EngineError | None) -> None:
        """After what waits: the end, or an error."""
        self._over, self._broken = True, error
        self._news.set()

    def __aiter__(self) -> AsyncIterator[Hint]:
        return self

    async def __anext__(self) -> Hint:
        while not self._waiting:
            if self._broken is not None:
                raise self._broken
            if self._over:
                raise StopAsyncIteration
            self._news = anyio.Event()
            await self._news.wait()
        item = self._waiting.popleft()
        if isinstance(item, EventTooLarge):
            self._over = True
            raise item
        return item


class FakeEvents:
    """The events of labelled containers, told to everyone who follows, and kept for ``since``."""

    def __init__(self) -> None:
        self.followers: list[FakeStream] = []
        self._kept: deque[tuple[datetime, Hint | EventTooLarge]] = deque(maxlen=REMEMBERED)
        self._past: deque[tuple[datetime, VolumeMount | None]] = deque(maxlen=REMEMBERED)

    def tell(self, action: str, container: str, at: datetime, *, oversized: bool = False) -> None:
        """Something happens."""
        item: Hint | EventTooLarge = Hint(action, container, at)
        if oversized:
            item = EventTooLarge("cannot follow Docker's events: one is too large")
        self._kept.append((at, item))
        for follower in self.followers:
            follower.put(item)

    def remember(self, at: datetime, *mounts: VolumeMount) -> None:
        """Any container did something, and these volumes were mounted writable for it."""
        self._past.extend((at, mount) for mount in (None, *mounts))

    def mounted(self, since: datetime) -> Mounted:
        """See :meth:`kopiwatch.engine.port.Engine.mounted`."""
        told = [mount for at, mount in self._past if at >= since]
        mounts = dict.fromkeys(mount for mount in told if mount is not None)
        return Mounted(tuple(mounts), len(told) < REMEMBERED)

    def cut(self, error: EngineError | None) -> None:
        """End all streams; see :meth:`kopiwatch.testing.engine_host.FakeHost.cut_events`."""
        for follower in self.followers:
            follower.end(error)

    def restart(self) -> None:
        """The daemon restarts: nothing is remembered, and every stream breaks."""
        self._kept.clear()
        self._past.clear()
        self.cut(EngineUnreachable("cannot follow Docker's events: it closed the connection"))

    @contextmanager
    def follow(self, since: datetime | None) -> Iterator[FakeStream]:
        """A stream from ``since`` (inclusive) or from now on."""
        kept = [item for at, item in self._kept if since is not None and at >= since]
        stream = FakeStream(kept)
        self.followers.append(stream)
        try:
            yield stream
        finally:
            self.followers.remove(stream)
