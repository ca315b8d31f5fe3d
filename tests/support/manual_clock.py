"""Time that a test lets pass: whoever sleeps wakes in order, and nobody really waits."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import anyio

from kopiwatch.clock import Clock

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class ManualClock:
    """``passed`` is seconds since :data:`NOON`; it moves in :meth:`pass_by` only."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.slept: list[float] = []
        self._sleepers: list[tuple[float, anyio.Event]] = []

    @property
    def clock(self) -> Clock:
        return Clock(self.now, lambda: self.passed, self.sleep)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        entry = (self.passed + seconds, anyio.Event())
        self._sleepers.append(entry)
        try:
            await entry[1].wait()
        finally:
            self._sleepers.remove(entry)

    async def pass_by(self, seconds: float) -> None:
        """Let so much time pass; all that is due in it happens, in order."""
        end = self.passed + seconds
        await settle()
        while due := [entry for entry in self._sleepers if entry[0] <= end]:
            first = min(due, key=lambda entry: entry[0])
            self.passed = max(self.passed, first[0])
            first[1].set()
            await settle()
        self.passed = end


async def settle() -> None:
    """Return when every other task waits for something that is not there yet."""
    calm = 0
    for _ in range(100_000):
        await asyncio.sleep(0)
        mine = asyncio.current_task()
        waiters = [getattr(t, "_fut_waiter", None) for t in asyncio.all_tasks() if t is not mine]
        calm = calm + 1 if all(w is not None and not w.done() for w in waiters) else 0
        if calm == 3:
            return
    raise AssertionError("it never settles")
