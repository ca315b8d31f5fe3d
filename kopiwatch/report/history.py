"""The history: what was run, how it went, and which units there are. It outlives restarts.

One SQLite file in the state folder, ``history.db``; the daemon and one-off commands use it at the
same time. Every method does its work in a thread, one at a time per :class:`History`, and each that
writes is one short transaction that is on the disk when it returns.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.backup.result import Phase, RunResult
from kopiwatch.clock import Clock
from kopiwatch.errors import HistoryError
from kopiwatch.report import history_adopt, history_query, history_rebuild, history_write
from kopiwatch.report.board import Trigger
from kopiwatch.report.history_file import NAME, naming, open_existing, open_or_create, translated
from kopiwatch.report.history_record import (
    RebuildResult,
    RebuiltRun,
    RunDetail,
    RunRow,
    UnitRecord,
    UnitSeen,
    UnitStats,
)

T = TypeVar("T")
REBUILD_BATCH = 2000
"""Runs per transaction of a rebuild, about: others are not to wait for long."""


class History:
    """The history in a state folder. Make one with :meth:`open` or :meth:`read_only`.

    Every method raises HistoryError when the disk does not do what it must, when another process
    keeps the file locked for long, and when the file is damaged (HistoryDamaged: close this one and
    open the history again). Nothing is half-written then. Backups go on without a history; that is
    the caller's decision.

    A write is not interrupted by cancellation, and may be repeated: what is on record stays.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection | None) -> None:
        self._folder = folder
        self._path = folder / NAME
        self._connection = connection
        self._closed = False
        self._one = anyio.CapacityLimiter(1)

    @classmethod
    async def open(cls, folder: Path, *, clock: Clock) -> Opened:
        """Open the history of a state folder for reading and writing, making it if need be.

        A damaged file is moved to ``history.db.corrupt-<time>`` and a new one begun; the caller
        says so loudly and rebuilds. A file of a newer version raises HistoryError and stays.
        """
        with anyio.CancelScope(shield=True):
            done = await anyio.to_thread.run_sync(open_or_create, folder, clock.now())
        connection, fresh, aside = done
        return Opened(cls(folder, connection), fresh, aside)

    @classmethod
    async def read_only(cls, folder: Path) -> History:
        """Open it for reading; a file that does not exist reads as empty and is not made."""
        with anyio.CancelScope(shield=True):
            connection = await anyio.to_thread.run_sync(open_existing, folder)
        return cls(folder, connection)

    async def close(self) -> None:
        """Close the file. Afterwards everything but another ``close`` raises HistoryError."""
        connection, self._connection, self._closed = self._connection, None, True
        if connection is not None:
            with anyio.CancelScope(shield=True), translated(self._path, "close the history"):
                await anyio.to_thread.run_sync(connection.close, limiter=self._one)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    # -- runs ----------------------------------------------------------------------------------

    async def begin(
        self, run: str, unit: str, trigger: Trigger, due: datetime | None, began: datetime
    ) -> None:
        """Record a run as running; its due time is served, its unit is alive."""
        await self._write(
            partial(history_write.begin, run=run, unit=unit, trigger=trigger, due=due, began=began)
        )

    async def phase(self, run: str, phase: Phase, began: datetime) -> bool:
        """Record the phase that a run enters; False if the run is not on record as running."""
        return await self._write(partial(history_write.phase, run=run, phase=phase, began=began))

    async def finish(
        self,
        result: RunResult,
        *,
        trigger: Trigger,
        due: datetime | None,
        data_at: datetime | None,
    ) -> None:
        """Record how a run ended, whether or not its begin is on record.

        ``data_at`` is the data's time, kept for a success only; without it the run's begin counts,
        before which no data was read. A ``skipped`` one counts as no run of its unit.
        """
        await self._write(
            partial(history_write.finish, result=result, trigger=trigger, due=due, data_at=data_at)
        )

    async def accept(
        self, run: str, *, snapshot: str, data_at: datetime, at: datetime, who: str
    ) -> bool:
        """Record that what the verdict of a run refused counts as good; False if it is not known.

        ``snapshot`` is the id that its manifest has now, ``who`` who took it and ``at`` when.
        """
        return await self._write(
            partial(
                history_write.accept, run=run, snapshot=snapshot, data_at=data_at, at=at, who=who
            )
        )

    async def interrupted(self, alive: Collection[str]) -> tuple[str, ...]:
        """Close the runs that are on record as running and not alive; returns them.

        They become ``failed``, reason ``interrupted``. Only who holds the run lock may call this.
        """
        return await self._write(partial(history_write.interrupted, alive=frozenset(alive)))

    # -- units ---------------------------------------------------------------------------------

    async def seen(self, units: Sequence[UnitSeen], now: datetime) -> None:
        """Record that the containers of these units are there.

        Written only for units that are new, back or changed, and for others every five minutes. A
        forgotten unit begins anew: first seen now, without runs, successes and due times.
        """
        changed = await self._read(
            partial(history_write.unseen, units=units, now=now), empty=tuple(units)
        )
        if changed:
            await self._write(partial(history_write.seen, units=changed, now=now))

    async def gone(self, units: Iterable[str], now: datetime) -> None:
        """Record that the containers of these units vanished."""
        vanished = tuple(units)
        if vanished:
            await self._write(partial(history_write.gone, units=vanished, now=now))

    async def skip(self, unit: str, due: datetime, reason: str, now: datetime) -> None:
        """Record that a due time was decided away; it is served."""
        await self._write(partial(history_write.skip, unit=unit, due=due, reason=reason, now=now))

    async def served(self, unit: str, due: datetime) -> None:
        """Record that nobody has to care for this due time, or an older one, any more."""
        await self._write(partial(history_write.served, unit=unit, due=due))

    async def adopt(
        self, old: str, new: str, *, snapshots: Mapping[str, str], now: datetime
    ) -> int:
        """Give everything on record of a unit to another name, and forget the old one.

        ``snapshots`` has the ids that the manifests of its runs have now, by run. Returns how many
        runs it was; doing it again is none.
        """
        return await self._write(
            partial(history_adopt.adopt, old=old, new=new, snapshots=snapshots, now=now)
        )

    async def forget(self, unit: str, now: datetime) -> bool:
        """Stop watching a unit; False if none of this name is watched. Its runs stay on record."""
        return await self._write(partial(history_write.forget, unit=unit, now=now))

    # -- what is known -------------------------------------------------------------------------

    async def units(self) -> dict[str, UnitRecord]:
        """Every unit that is not forgotten, by name."""
        return await self._read(history_query.units, empty={})

    async def names(self) -> tuple[str, ...]:
        """The names of all units on record, forgotten ones, too."""
        return await self._read(history_query.names, empty=())

    async def runs(
        self,
        *,
        unit: str = "",
        failed: bool = False,
        since: datetime | None = None,
        last: int | None = None,
    ) -> tuple[RunRow, ...]:
        """Runs and skipped due times, oldest first; of those that fit, the ``last`` ones.

        ``failed`` leaves only runs that are ``partial`` or ``failed``.
        """
        question = partial(history_query.runs, unit=unit, failed=failed, since=since, last=last)
        return await self._read(question, empty=())

    async def run(self, run: str) -> RunDetail | None:
        """One run with its phases and its result; None if it is not on record."""
        return await self._read(partial(history_query.run, name=run), empty=None)

    async def stats(
        self, *, unit: str = "", since: datetime | None = None
    ) -> tuple[UnitStats, ...]:
        """Figures per unit, over the runs that began since then."""
        return await self._read(partial(history_query.stats, unit=unit, since=since), empty=())

    async def version(self) -> int:
        """A number that changes when somebody else has written; what we write does not change it.

        Numbers of different History objects do not compare.
        """
        return await self._read(_data_version, empty=0)

    # -- rebuilding ----------------------------------------------------------------------------

    async def rebuild(self, points: Iterable[RebuiltRun]) -> RebuildResult:
        """Add the runs that the repository tells of; what was recorded here stands.

        Doing it again changes nothing. A forgotten unit stays forgotten. Afterwards the history is
        no longer :attr:`Opened.fresh`.
        """
        parts: list[RebuildResult] = []
        batch: list[list[RebuiltRun]] = []
        groups = history_rebuild.by_unit(points)
        for index, group in enumerate(groups, 1):
            batch.append(group)
            if index == len(groups) or sum(map(len, batch)) >= REBUILD_BATCH:
                parts += await self._write(partial(_merge_all, groups=tuple(batch)))
                batch = []
        await self._write(history_rebuild.mark)
        return history_rebuild.summed(parts)

    # -- the one door to SQLite ----------------------------------------------------------------

    async def _write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        with anyio.CancelScope(shield=True):
            done = await anyio.to_thread.run_sync(self._in_transaction, change, limiter=self._one)
        return done  # noqa: RET504 - a scope may swallow, for all that mypy knows

    def _in_transaction(self, change: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            raise HistoryError(f"cannot write the history {self._path}: it is not open for writing")
        with (
            translated(self._path, "write the history"),
            naming(self._folder, change=False),
            _transaction(self._connection, "IMMEDIATE") as db,
        ):
            return change(db)

    async def _read(self, question: Callable[[sqlite3.Connection], T], *, empty: T) -> T:
        return await anyio.to_thread.run_sync(
            partial(self._answer, question, empty), limiter=self._one
        )

    def _answer(self, question: Callable[[sqlite3.Connection], T], empty: T) -> T:
        if self._closed:
            raise HistoryError(f"cannot read the history {self._path}: it was closed")
        if self._connection is None:
            return empty
        with (
            translated(self._path, "read the history"),
            _transaction(self._connection, "DEFERRED") as db,
        ):
            return question(db)


class Opened(msgspec.Struct, frozen=True):
    """A history that was opened, and what the caller has to do about it.

    ``fresh`` says that the repository was never read into it (:meth:`History.rebuild`), so what it
    knows of freshness may be too little, whoever made it. ``set_aside`` is where a damaged file is.
    """

    history: History
    fresh: bool
    set_aside: Path | None = None


@contextmanager
def _transaction(db: sqlite3.Connection, kind: str) -> Iterator[sqlite3.Connection]:
    """All or nothing; ``IMMEDIATE`` waits for others before it reads what it will change."""
    db.execute(f"BEGIN {kind}")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _data_version(db: sqlite3.Connection) -> int:
    (version,) = db.execute("PRAGMA data_version").fetchone()
    return int(version)


def _merge_all(
    db: sqlite3.Connection, groups: Iterable[Sequence[RebuiltRun]]
) -> list[RebuildResult]:
    return [history_rebuild.merge(db, group) for group in groups]
