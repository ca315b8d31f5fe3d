"""An event loop in which nobody really waits, and whose process can die between any two awaits."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import selectors
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
MOST_STEPS = 60_000
"""A process that takes more turns of its loop than this never ends."""
LONGEST_SECONDS = 6 * 3600.0
"""Nor does one that lives longer than this: the longest deadline of a run is 1 h."""


class Died(BaseException):
    """The process is gone; none of its code may have any effect from here on."""


class Endless(AssertionError):
    """The process would never end."""


class Time:
    """The time of the world, in seconds since :data:`NOON`, and what will happen in it."""

    def __init__(self) -> None:
        self.passed = 0.0
        self._serial = itertools.count()
        self._agenda: list[tuple[float, int, Callable[[], None]]] = []

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed)

    def seconds(self) -> float:
        return self.passed

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        """Let something happen after so many seconds, whoever lives then."""
        heapq.heappush(self._agenda, (self.passed + seconds, next(self._serial), action))

    @property
    def next_at(self) -> float | None:
        return self._agenda[0][0] if self._agenda else None

    def advance(self, until: float) -> None:
        """Let time pass; what is due happens in order."""
        while self._agenda and self._agenda[0][0] <= until:
            at, _, action = heapq.heappop(self._agenda)
            self.passed = max(self.passed, at)
            action()
        self.passed = max(self.passed, until)


class _Leap(selectors.SelectSelector):
    """Instead of waiting for files, lets the world's time pass."""

    loop: LeapingLoop

    def select(self, timeout: float | None = None) -> list[Any]:
        self.loop.turn(timeout)
        return []


class LeapingLoop(asyncio.SelectorEventLoop):
    """One process. ``every_turn`` is called before each turn of the loop and may raise Died."""

    def __init__(self, time: Time, every_turn: Callable[[], None]) -> None:
        selector = _Leap()
        selector.loop = self
        self._time = time
        self._every_turn = every_turn
        self._turns = 0
        self._born = time.passed
        self._buried: float | None = None
        super().__init__(selector)

    def time(self) -> float:
        return self._time.passed if self._buried is None else self._buried

    def turn(self, timeout: float | None) -> None:
        """Everybody has had a turn; ``timeout`` is what the next timer is away."""
        self._turns += 1
        if self._turns > MOST_STEPS or self.time() - self._born > LONGEST_SECONDS:
            raise Endless(f"a process does not end: {self._turns} turns, {self.time():.0f} s")
        if self._buried is not None:
            self._buried += timeout or 0.0
            return
        self._every_turn()
        if timeout is not None and timeout <= 0:
            return
        then = None if timeout is None else self._time.passed + timeout
        due = self._time.next_at
        if due is not None and (then is None or due <= then):
            then = due
        if then is None:
            raise Endless("everybody waits for something that will never happen")
        self._time.advance(then)

    def live(self, main: Coroutine[Any, Any, None]) -> None:
        """Run the process to its end. Raises Died when it was killed, and what it raises."""
        task = self.create_task(main)
        try:
            self.run_until_complete(task)
        except BaseException:
            self._bury(task)
            raise
        finally:
            self.close()

    def _bury(self, main: asyncio.Task[None]) -> None:
        """Unwind what is left of the process, without any effect and any time passing."""
        self._buried = self._time.passed
        self._born, self._turns = self._buried, 0
        unwinding = self.create_task(self._unwind())
        while not unwinding.done():
            with suppress(RuntimeError):  # its main task had ended just then, and stops the loop
                self.run_until_complete(unwinding)
        if not main.cancelled():
            main.exception()  # seen; else asyncio complains

    async def _unwind(self) -> None:
        for _ in range(20):  # a task that is never begun is complained of: let them all begin
            await asyncio.sleep(0)
        others = asyncio.all_tasks(self) - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
