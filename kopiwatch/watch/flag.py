"""Waiting for something to happen, but not for ever."""

from __future__ import annotations

import anyio

from kopiwatch.clock import Clock


class Flag:
    """Raised by anybody, waited for by one; waiting lowers it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._event = anyio.Event()

    def set(self) -> None:
        """Raise it. Whoever waits goes on; else the next one to wait does not wait."""
        self._event.set()

    async def wait(self, seconds: float) -> None:
        """Return when it is raised, or after this many seconds."""
        if not self._event.is_set():
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self._alarm, seconds, tasks.cancel_scope)
                await self._event.wait()
                tasks.cancel_scope.cancel()
        self._event = anyio.Event()

    async def _alarm(self, seconds: float, waiting: anyio.CancelScope) -> None:
        await self._clock.sleep(seconds)
        waiting.cancel()
