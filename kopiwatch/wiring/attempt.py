"""One unit backed up once, as it is at this moment, and written down."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

import anyio
import msgspec

from kopiwatch.backup.host_run import execute
from kopiwatch.backup.house import House
from kopiwatch.backup.result import AFTER_WINDOW, IN_WINDOW, RunResult, Verdict
from kopiwatch.backup.run import Run
from kopiwatch.backup.run_id import new_run_id
from kopiwatch.backup.turn import Turn
from kopiwatch.config import Config
from kopiwatch.errors import (
    EngineRefused,
    EngineUnreachable,
    KopiwatchError,
    LabelError,
    UnknownUnit,
)
from kopiwatch.kopia.record import Snapshot
from kopiwatch.report.board import Trigger
from kopiwatch.wiring.docker import Docker, choose, look
from kopiwatch.wiring.rate import upload_rate

DOCKER_AWAY = (EngineUnreachable("").code, EngineRefused("").code)
"""Reasons of a run that say: Docker did not answer."""


class Order(msgspec.Struct, frozen=True):
    """Which unit is to be backed up, and why. ``due`` is the scheduled time (UTC), if any."""

    unit: str
    trigger: Trigger = "command"
    due: datetime | None = None


class Recorder(Protocol):
    """Whoever writes down what happened. Its own trouble never stops a backup: it never raises."""

    async def begin(self, run: str, order: Order, began: datetime) -> None:
        """A run begins."""

    async def finish(self, result: RunResult, order: Order) -> None:
        """A run has ended, or was not possible at all."""


class Attempt:
    """One attempt. Call :meth:`execute` once, with the run lock held.

    ``turn`` and ``listed`` are those of :class:`kopiwatch.backup.run.Run`.
    ``result`` is set as soon as there is one, also for a run that was cancelled. A unit that
    cannot be looked at, or is gone, is a result like any other.
    """

    def __init__(
        self,
        config: Config,
        where: Docker,
        house: House,
        order: Order,
        *,
        turn: Turn | None = None,
        listed: tuple[Snapshot, ...] | None = None,
    ) -> None:
        self.turn = turn
        self.listed = listed
        self.config = config
        self.where = where
        self.house = house
        self.order = order
        self.identity = new_run_id(house.clock.now())
        self.result: RunResult | None = None
        self._run: Run | None = None

    @property
    def past_window(self) -> bool:
        """The members run again (or nobody was stopped), and only the repository's part is left."""
        run = self._run
        return run is not None and run.course.phase in AFTER_WINDOW

    @property
    def in_window(self) -> bool:
        """Somebody may be down just now because of this attempt."""
        return self._run is not None and self._run.course.phase in IN_WINDOW

    async def execute(self, recorder: Recorder) -> RunResult:
        """Back the unit up and record it. A cancellation brings back what is down first."""
        try:
            self.result = await self._execute(recorder)
        finally:
            if self.result is None:
                ended = self._run.result if self._run is not None else None
                self.result = ended or self._none("failed", "cancelled", "cancelled", 1)
            with anyio.CancelScope(shield=True):
                await recorder.finish(self.result, self.order)
        return self.result

    async def _execute(self, recorder: Recorder) -> RunResult:
        try:
            found, rows = await look(self.config, self.where)
            (unit,) = choose(found, (self.order.unit,))
        except UnknownUnit:
            return self._none("skipped", "gone", "its containers are gone", 1)
        except KopiwatchError as error:
            return self._none("skipped", error.code, error.message, error.exit_code)
        if not unit.valid:
            why = "; ".join(str(problem) for problem in unit.problems)
            return self._none("skipped", "labels", why, LabelError.exit_code)
        rate = await upload_rate(self.config.state_dir, unit.name)
        self._run = Run(
            self.house, unit, rows, self.identity, rate=rate, turn=self.turn, listed=self.listed
        )
        await recorder.begin(self.identity, self.order, self.house.clock.now())
        result = await execute(self._run)
        if result.before_window and not result.hooks and result.reason in DOCKER_AWAY:
            # Not the unit's fault, and nothing was touched: as if it had not begun.
            return msgspec.structs.replace(result, verdict="skipped")
        return result

    def _none(self, verdict: Verdict, reason: str, message: str, code: int) -> RunResult:
        """The result of an attempt that never became a run."""
        at = self.house.clock.now()
        return RunResult(
            run=self.identity,
            unit=self.order.unit,
            verdict=verdict,
            began=at,
            ended=at,
            reason=reason,
            message=message,
            exit_code=code,
        )


async def refuse(
    order: Order, error: KopiwatchError, recorder: Recorder, now: datetime, *, verdict: Verdict
) -> RunResult:
    """Record an attempt that failed before there was a house to run in.

    One that is skipped has not begun: its due time is still owed, also to the next life.
    """
    identity = new_run_id(now)
    if verdict != "skipped":
        await recorder.begin(identity, order, now)
    result = RunResult(
        run=identity,
        unit=order.unit,
        verdict=verdict,
        began=now,
        ended=now,
        reason=error.code,
        message=error.message,
        hint=error.hint,
        tail=error.tail,
        exit_code=error.exit_code,
    )
    await recorder.finish(result, order)
    return result
