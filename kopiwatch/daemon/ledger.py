"""What is known of each unit: in memory, which decides, and in the history, which lasts.

A disk that takes nothing must not stop backups, nor let one due time be served for ever. So every
change happens in memory at once; for the history it waits in line until the disk takes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from pathlib import Path

import msgspec

from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import Phase, RunResult
from kopiwatch.clock import Clock
from kopiwatch.errors import HistoryDamaged, HistoryError
from kopiwatch.report.board import LastRun
from kopiwatch.report.history import History
from kopiwatch.report.history_record import (
    RebuildResult,
    RebuiltRun,
    UnitRecord,
    UnitSeen,
    last_run,
)
from kopiwatch.wiring.attempt import Order

WAITING_LIMIT = 10_000
"""How many changes may wait for the disk; the oldest are dropped beyond, which is said."""

Write = Callable[[], Awaitable[object]]


class Ledger:
    """The records of all units that are not forgotten. Never raises because of the disk.

    ``failures`` counts writes that the disk refused; ``trouble`` says why, empty while all is well.
    ``poor`` says that the file had to be begun anew: the repository must tell what it can.
    """

    def __init__(
        self,
        history: History,
        folder: Path,
        listener: Listener,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._history = history
        self._folder = folder
        self._listener = listener
        self._clock = clock
        self._changed = changed
        self._waiting: deque[Write] = deque(maxlen=WAITING_LIMIT)
        self._writing = False
        self._version = -1
        self._change = 0
        self._damaged = False
        self.poor = False
        self.records: dict[str, UnitRecord] = {}
        self.failures = 0
        self.trouble = ""

    async def refresh(self) -> bool:
        """Read what other processes wrote, if they did. True if anything was read.

        While changes of ours wait for the disk, memory knows better, and they are tried again.
        """
        if self._damaged:
            await self._open_again()
        await self._drain()
        if self._waiting:
            return False
        try:
            version = await self._history.version()
            if version == self._version:
                return False
            change = -1
            while change != self._change or self._waiting:
                # What changes while we read is newer than what we read.
                await self._drain()
                if self._waiting and not self._writing:
                    return False
                change = self._change
                records = await self._history.units()
        except HistoryError as error:
            self._failed(error)
            return False
        self.records, self._version = records, version
        self._changed()
        return True

    async def rebuild(self, runs: Iterable[RebuiltRun]) -> RebuildResult:
        """Let the history learn from the repository. Raises HistoryError."""
        done = await self._history.rebuild(runs)
        self.poor = False
        await self.reload()
        return done

    async def close(self) -> None:
        """Close the history's file."""
        await self._history.close()

    async def _open_again(self) -> None:
        """The file was damaged or replaced under us: a new one is begun, and said."""
        try:
            await self._history.close()
            opened = await History.open(self._folder, clock=self._clock)
        except HistoryError as error:
            self._failed(error)
            return
        self._history, self._damaged, self._version = opened.history, False, -1
        self.poor = opened.fresh or opened.set_aside is not None
        self._listener.say(
            "history",
            "the history was damaged and is opened again"
            + (f"; the old one is kept as {opened.set_aside}" if opened.set_aside else ""),
            level="error",
        )

    async def reload(self) -> bool:
        """Read it all again: SQLite tells of other processes' writes only, not of our own."""
        self._version = -1
        return await self.refresh()

    async def begin(self, run: str, order: Order, began: datetime) -> None:
        """A run begins; its due time is served, however it ends."""
        record = self._record(order.unit, began)
        self._put(
            msgspec.structs.replace(
                record, running=run, running_since=began, served=latest(record.served, order.due)
            )
        )
        await self._write(
            lambda: self._history.begin(run, order.unit, order.trigger, order.due, began)
        )

    async def phase(self, run: str, unit: str, phase: Phase, began: datetime) -> None:
        """A run goes on with another phase."""
        record = self.records.get(unit)
        if record is not None and record.running == run:
            self._put(msgspec.structs.replace(record, running_phase=phase))
        await self._write(lambda: self._history.phase(run, phase, began))

    async def finish(self, result: RunResult, order: Order) -> None:
        """A run has ended."""
        record = self._record(order.unit, result.began)
        record = msgspec.structs.replace(record, running="", running_since=None, running_phase="")
        self._put(_with_result(record, result, order))
        data_at = result.data_at if result.verdict == "success" else None
        await self._write(
            lambda: self._history.finish(
                result, trigger=order.trigger, due=order.due, data_at=data_at
            )
        )

    async def skip(self, unit: str, due: datetime, reason: str) -> None:
        """A due time is decided away."""
        now = self._clock.now()
        record = self._record(unit, now)
        self._put(msgspec.structs.replace(record, served=latest(record.served, due)))
        await self._write(lambda: self._history.skip(unit, due, reason, now))

    async def serve(self, unit: str, until: datetime) -> None:
        """Nothing before this time is owed: its schedule became another one."""
        record = self._record(unit, until)
        self._put(msgspec.structs.replace(record, served=latest(record.served, until)))
        await self._write(lambda: self._history.served(unit, until))

    async def seen(self, units: Collection[UnitSeen]) -> None:
        """These units have containers just now."""
        now = self._clock.now()
        for unit in units:
            record = self._record(unit.unit, now)
            self._put(
                msgspec.structs.replace(
                    record,
                    last_seen=now,
                    gone_since=None,
                    kind=unit.kind,
                    schedule=unit.schedule,
                    timezone=unit.timezone,
                    mode=unit.mode,
                    max_age=unit.max_age,
                )
            )
        await self._write(lambda: self._history.seen(tuple(units), now))

    async def gone(self, units: Collection[str]) -> None:
        """The containers of these units have vanished."""
        now = self._clock.now()
        for unit in units:
            self._put(msgspec.structs.replace(self._record(unit, now), gone_since=now))
        await self._write(lambda: self._history.gone(tuple(units), now))

    async def forget(self, unit: str) -> None:
        """Nobody wants to hear of this unit any more."""
        now = self._clock.now()
        self.records.pop(unit, None)
        self._change += 1
        self._changed()
        await self._write(lambda: self._history.forget(unit, now))

    async def interrupted(self) -> None:
        """Nothing runs: we hold the run lock. What still stands as running has died."""
        await self._write(lambda: self._history.interrupted(()))
        await self.reload()

    def _record(self, unit: str, now: datetime) -> UnitRecord:
        return self.records.get(unit) or UnitRecord(unit, first_seen=now)

    def _put(self, record: UnitRecord) -> None:
        if self.records.get(record.unit) != record:
            self.records[record.unit] = record
            self._change += 1
            self._changed()

    async def _write(self, write: Write) -> None:
        if len(self._waiting) == WAITING_LIMIT:
            self._listener.say(
                "history", "the oldest change that waits for the disk is dropped", level="error"
            )
        self._waiting.append(write)
        await self._drain()

    async def _drain(self) -> None:
        """Write what waits, in order, until the disk refuses. One at a time: order matters."""
        if self._writing:
            return
        self._writing = True
        try:
            while self._waiting:
                await self._waiting[0]()
                self._waiting.popleft()
        except HistoryError as error:
            self._failed(error)
        else:
            self._recovered()
        finally:
            self._writing = False

    def _failed(self, error: HistoryError) -> None:
        self.failures += 1
        self._damaged = self._damaged or isinstance(error, HistoryDamaged)
        if not self.trouble:
            self._listener.say(
                "history",
                f"{error.message}; backups go on, and what happens is kept in memory",
                hint=error.hint,
                level="error",
            )
        self.trouble = error.message
        self._changed()

    def _recovered(self) -> None:
        if self.trouble:
            self.trouble = ""
            self._listener.say("history", "the history is written again")
            self._changed()


def _with_result(record: UnitRecord, result: RunResult, order: Order) -> UnitRecord:
    """The record after a run. What was skipped counts nowhere."""
    if result.verdict == "skipped":
        return record
    good = result.verdict == "success"
    totals = record.totals
    return msgspec.structs.replace(
        record,
        last_success=result.data_at if good and result.data_at else record.last_success,
        last_run=_last(result, order),
        consecutive_failures=0 if good else record.consecutive_failures + 1,
        totals=msgspec.structs.replace(
            totals,
            runs=totals.runs + 1,
            failures=totals.failures + (not good),
            downtime=totals.downtime + result.window,
        ),
    )


def _last(result: RunResult, order: Order) -> LastRun:
    return last_run(result, order.trigger)


def latest(one: datetime | None, other: datetime | None) -> datetime | None:
    """The later of two times, of which there may be none."""
    given = [each for each in (one, other) if each is not None]
    return max(given) if given else None
