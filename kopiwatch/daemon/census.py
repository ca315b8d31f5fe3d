"""Units as they are found and as they are remembered, put together. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

import msgspec

from kopiwatch.config.duration import duration_of
from kopiwatch.daemon.ledger import latest
from kopiwatch.report.board import UnitBoard, UnitState
from kopiwatch.report.history_record import UnitRecord
from kopiwatch.units.due import deadline
from kopiwatch.units.group import Discovery
from kopiwatch.units.schedule import DEFAULT, Schedule, read_schedule
from kopiwatch.units.unit import Unit
from kopiwatch.units.zone import zone
from kopiwatch.watch.agenda import Standing


class Terms(msgspec.Struct, frozen=True):
    """By when a unit is to be backed up: as its labels say, or as they last said."""

    schedule: Schedule
    timezone: str
    max_age: timedelta | None

    def deadline(self, base: datetime) -> datetime | None:
        """When it is overdue if its newest complete data is from ``base``."""
        return deadline(self.schedule, self.timezone, self.max_age, base)


def terms_of(unit: Unit | None, record: UnitRecord | None) -> Terms:
    """The terms of a unit: its labels' if they are good, else the remembered ones.

    A typo in a label, or a container that is gone, moves no deadline.
    """
    if unit is not None and (unit.valid or record is None or not record.schedule):
        settings = unit.settings
        return Terms(settings.schedule, settings.timezone, settings.max_age)
    assert record is not None  # noqa: S101 - one of both there is
    schedule = read_schedule(record.schedule) if record.schedule else DEFAULT
    return Terms(
        schedule if isinstance(schedule, Schedule) else DEFAULT,
        _known_zone(record.timezone),
        duration_of(record.max_age),
    )


def _known_zone(name: str) -> str:
    """A zone that was good when it was written down may be gone from the database since."""
    try:
        zone(name)
    except KeyError:
        return "UTC"
    return name


def standings(found: Discovery, records: Mapping[str, UnitRecord]) -> dict[str, Standing]:
    """What the agenda must know of each unit whose containers are there."""
    known: dict[str, Standing] = {}
    for unit in found.units:
        record = records.get(unit.name)
        if record is None:
            continue
        terms = terms_of(unit, record)
        known[unit.name] = Standing(
            unit=unit.name,
            schedule=terms.schedule,
            timezone=terms.timezone,
            catch_up=unit.settings.catch_up,
            priority=unit.settings.priority,
            first_seen=record.first_seen,
            # Newer data than a due time serves it as well: a backup by hand is one.
            served=latest(record.served, record.last_success),
        )
    return known


def unit_board(unit: Unit | None, record: UnitRecord | None) -> UnitBoard:
    """What is shown of a unit, as far as labels and history know it."""
    terms = terms_of(unit, record)
    base = record and (record.last_success or record.first_seen)
    board = UnitBoard(
        unit=unit.name if unit else record.unit if record else "",
        state=_state(unit, terms),
        schedule=str(terms.schedule),
        timezone=terms.timezone,
        present=unit is not None,
        deadline=terms.deadline(base) if base else None,
        max_age=terms.max_age.total_seconds() if terms.max_age else None,
    )
    if record is not None:
        board = msgspec.structs.replace(
            board,
            kind=record.kind,
            mode=record.mode,
            first_seen=record.first_seen,
            last_success=record.last_success,
            last_run=record.last_run,
            consecutive_failures=record.consecutive_failures,
            totals=record.totals,
        )
    if unit is not None:
        board = msgspec.structs.replace(
            board,
            kind=unit.origin,
            problems=tuple(str(problem) for problem in unit.problems),
            invalid_labels=tuple(
                dict.fromkeys((problem.container, problem.label) for problem in unit.problems)
            ),
            warnings=unit.warnings,
        )
    return board


def _state(unit: Unit | None, terms: Terms) -> UnitState:
    if unit is None:
        return "missing"
    if not unit.valid:
        return "invalid"
    return "unscheduled" if terms.schedule.off else "scheduled"
