"""The course of a run: which phase it is in, how long each took, and what is said on the way."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta

import anyio

from kopiwatch.backup.house import House
from kopiwatch.backup.journal import Held, Journal, OwedHook
from kopiwatch.backup.result import Phase, PhaseTime
from kopiwatch.errors import RunError
from kopiwatch.task import deadline


class Course:
    """One run of one unit. ``phase`` is the one of just now, ``times`` those that ended.

    ``failed_in`` is the phase that first ended with an error, None while there is none.
    ``source`` is the repository's name for the unit (``user@host:path``). ``hooks`` are the post
    hooks that are still to run, and ``held`` who is held down, as the journal has them.
    """

    def __init__(self, house: House, unit: str, run: str, source: str) -> None:
        self.house = house
        self.unit = unit
        self.run = run
        self.source = source
        self.phase: Phase = "check"
        self.times: list[PhaseTime] = []
        self.failed_in: Phase | None = None
        self.hooks: tuple[OwedHook, ...] = ()
        self.held: tuple[Held, ...] = ()
        self._start = 0.0

    def say(self, action: str, message: str, **facts: object) -> None:
        """Tell whoever follows."""
        self.house.listener.say(action, f"{self.unit}: {message}", **facts)

    @contextmanager
    def timed(self, phase: Phase) -> Iterator[None]:
        """The block is this phase; one that comes once more right after itself goes on."""
        self.phase = phase
        began, start = self.house.clock.now(), self.house.clock.seconds()
        if self.times and self.times[-1].phase == phase:
            earlier = self.times.pop()
            began, start = earlier.began, self._start
        else:
            self.house.listener.say("phase", phase, unit=self.unit, run=self.run)
        self._start = start
        try:
            yield
        except BaseException:
            # The first one: what is undone after it is not where it failed.
            self.failed_in = self.failed_in or phase
            raise
        finally:
            self.times.append(PhaseTime(phase, began, self.house.clock.seconds() - start))

    def deadline(self, seconds: float, sentence: str) -> AbstractContextManager[anyio.CancelScope]:
        """Cancel the block after ``seconds``; it then raises RunError with reason ``deadline``."""

        def late() -> RunError:
            return RunError(
                f"unit {self.unit}: {sentence} ({timedelta(seconds=seconds)})",
                phase=self.phase,
                reason="deadline",
            )

        return deadline(seconds, late)

    async def journal(self, held: tuple[Held, ...], *, early: bool = False) -> None:
        """Put on the disk who is to be brought back; nobody means that a verdict is owed.

        ``early`` says that nobody is down yet.
        """
        await self.house.state.journals.write(
            Journal(
                self.unit, self.run, self.house.clock.now(), self.source, held, hooks=self.hooks
            ),
            early=early,
        )
        self.held = held

    async def owe(self, hooks: tuple[OwedHook, ...], *, early: bool = False) -> None:
        """Put on the disk which post hooks are still to run."""
        self.hooks = hooks
        await self.journal(self.held, early=early)
