"""The state of everything as one value."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from kopiwatch import __version__
from kopiwatch.daemon.census import unit_board
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.planner import Planner
from kopiwatch.report.board import Board, Queued, UnitBoard, WatcherBoard
from kopiwatch.report.history_record import UnitRecord
from kopiwatch.units.group import Discovery
from kopiwatch.watch.facts import WatchFacts


def known_units(
    found: Discovery | None, records: Mapping[str, UnitRecord]
) -> tuple[UnitBoard, ...]:
    """Every unit that is there or is remembered, by name."""
    present = {unit.name: unit for unit in found.units} if found else {}
    names = sorted(present.keys() | records.keys())
    return tuple(unit_board(present.get(name), records.get(name)) for name in names)


def make_board(desk: Desk, facts: WatchFacts, planner: Planner) -> Board:
    """Everything as it is now."""
    queue = _queue(desk)
    due = {queued.unit: queued.due for queued in reversed(queue)}
    return Board(
        at=desk.clock.now(),
        ready=desk.ready,
        version=__version__,
        kopia_version=desk.kopia_version,
        revision=desk.revision,
        units=tuple(_filled(desk, planner, unit, due.get(unit.unit)) for unit in _units(desk)),
        watcher=WatcherBoard(
            connected=facts.connected,
            trouble=facts.trouble,
            last_event=facts.last_event,
            last_resync=facts.last_resync,
            events=facts.events,
            resyncs=facts.resyncs,
            reconnects=facts.reconnects,
            drift=facts.drift,
            oversized=facts.oversized,
        ),
        repository=msgspec.structs.replace(
            desk.repository,
            failures=dict(desk.repository_failures),
            breaker=desk.breaker.open,
        ),
        queue=queue,
        failures=dict(desk.failures),
        skipped=dict(desk.skipped),
        docker_failures={"list": facts.failed_lists} | dict(desk.docker_failures),
        recoveries=desk.recoveries,
        lock_held=desk.lock_held,
        last_tick=planner.last_tick,
        history_failures=desk.ledger.failures,
        history_error=desk.ledger.trouble,
        config_error=desk.config_error,
        phase_seconds=dict(desk.phases),
        lock_wait=desk.lock_wait,
    )


def _units(desk: Desk) -> tuple[UnitBoard, ...]:
    # Before the first list nobody knows who is gone.
    return known_units(desk.found, desk.ledger.records) if desk.found is not None else ()


def _queue(desk: Desk) -> tuple[Queued, ...]:
    """What waits for its turn, in order; first what was taken and still waits for the run lock."""
    waiting = tuple(
        Queued(ask.unit, ask.due, ask.since, ask.trigger, ask.priority)
        for ask in desk.queue.waiting()
    )
    taken = desk.running
    if taken is None:
        return waiting
    record = desk.ledger.records.get(taken.unit)
    begun = record is not None and record.running
    return waiting if begun else (taken, *waiting)


def _filled(desk: Desk, planner: Planner, board: UnitBoard, due: datetime | None) -> UnitBoard:
    """With what only the living daemon knows; ``due`` is of the run that waits, if one does."""
    name = board.unit
    holdings = desk.holdings.get(name) if desk.holdings is not None else None
    record = desk.ledger.records.get(name)
    running, since = "", None
    if record is not None and record.running and desk.lock_held:
        running, since = record.running, record.running_since
    return msgspec.structs.replace(
        board,
        next_run=(due or planner.next_run(name)) if board.present else None,
        running=running,
        running_since=since,
        queued=due is not None,
        left_stopped=desk.left_stopped.get(name, ()),
        points=None if desk.holdings is None else (holdings.count if holdings else 0),
        oldest_point=holdings.oldest if holdings else None,
    )
