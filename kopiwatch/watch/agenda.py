"""When a unit is to be backed up, from what is known of it and the time. Pure."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from typing import Literal

import msgspec

from kopiwatch.units.due import last_due, next_due
from kopiwatch.units.schedule import Schedule
from kopiwatch.units.value import Hours
from kopiwatch.units.zone import zone

LATE = timedelta(minutes=10)
"""A due time that is noticed later than this was missed: we did not run, or the machine slept."""
WRONG_CLOCK = timedelta(hours=1)
"""What is known from so far ahead was written by a wrong clock; small steps back are usual."""


class Standing(msgspec.Struct, frozen=True):
    """What must be known of a unit to tell when it is due. Times are UTC.

    ``served`` is the newest due time that a run began for or that was decided away. A unit waits
    for its first due time after ``first_seen``.
    """

    unit: str
    schedule: Schedule
    timezone: str
    catch_up: bool | Hours
    priority: int
    first_seen: datetime
    served: datetime | None = None


class Run(msgspec.Struct, frozen=True):
    """Back it up now, for this due time; missed ones before it are served with it."""

    due: datetime
    trigger: Literal["schedule", "catch-up"]


class Skip(msgspec.Struct, frozen=True):
    """A due time was missed, and nobody wants it made up for."""

    due: datetime


class Wait(msgspec.Struct, frozen=True):
    """Nothing now; look again at ``until`` (None: never). ``due`` is what waits for its hours."""

    until: datetime | None
    due: datetime | None = None


def decide(standing: Standing, now: datetime) -> Run | Skip | Wait:
    """What to do for this unit at ``now``."""
    if standing.schedule.off:
        return Wait(None)
    due = last_due(standing.schedule, standing.timezone, now, _floor(standing, now))
    if due is None:
        return Wait(next_due(standing.schedule, standing.timezone, _ahead(standing, now)))
    if now - due <= LATE:
        return Run(due, "schedule")
    if standing.catch_up is False:
        return Skip(due)
    if standing.catch_up is True:
        return Run(due, "catch-up")
    local = now.astimezone(zone(standing.timezone))
    if standing.catch_up.hold(local.time()):
        return Run(due, "catch-up")
    begins = _next_time(standing.catch_up.begin, standing.timezone, now)
    following = next_due(standing.schedule, standing.timezone, now)
    return Wait(min(begins, following) if following else begins, due)


def next_run(standing: Standing, now: datetime) -> datetime | None:
    """When it is expected to run next, for people; now for what is due."""
    decision = decide(standing, now)
    if isinstance(decision, Run):
        return now
    if isinstance(decision, Skip):
        return next_due(standing.schedule, standing.timezone, now)
    return decision.until


def _floor(standing: Standing, now: datetime) -> datetime:
    """Everything up to here is served. A clock that was wrong once must not silence a unit."""
    first_seen, served = standing.first_seen, standing.served
    if served is not None and served - now > WRONG_CLOCK:
        served = now - LATE
    if first_seen - now > WRONG_CLOCK:
        return now - LATE if served is None else served
    return first_seen if served is None else max(first_seen, served)


def _ahead(standing: Standing, now: datetime) -> datetime:
    """From when on to look for the next due time: after a small step back, after what is served."""
    return max(now, _floor(standing, now))


def _next_time(at: time, timezone: str, now: datetime) -> datetime:
    """The next moment at which a clock in this zone shows ``at``."""
    local = now.astimezone(zone(timezone))
    for days in (0, 1, 2):
        wall = datetime.combine(local.date() + timedelta(days=days), at, local.tzinfo)
        for fold in (0, 1):  # in autumn a clock shows some times twice
            moment = wall.replace(fold=fold).astimezone(UTC)
            if moment > now:
                return moment
    raise AssertionError("unreachable")
