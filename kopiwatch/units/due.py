"""When a schedule is due: arithmetic from values to values, UTC in and out.

Cron times are local times of a zone. cronsim knows how they pass through the two odd nights of a
year; only what falls into the missing hour in spring and has no other time that day would be lost
(`*/20 2 * * *`): that is due once, when the clock has jumped.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from kopiwatch.units.schedule import Schedule
from kopiwatch.units.zone import zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=2)
"""The least time that a run may be late before its unit is overdue."""
_FIRST_STEP = timedelta(hours=1)


def next_due(schedule: Schedule, timezone: str, after: datetime) -> datetime | None:
    """The first due time after ``after``; None for a schedule that is off."""
    if schedule.interval is not None:
        passed = (after - EPOCH) // schedule.interval
        return EPOCH + (passed + 1) * schedule.interval
    if not schedule.cron:
        return None
    local = after.astimezone(zone(timezone))
    try:
        found: datetime | None = next(CronSim(schedule.cron, local)).astimezone(UTC)
    except StopIteration:
        found = None
    for due in _in_gaps(schedule.cron, timezone, after, found):
        return due
    return found


def _in_gaps(
    cron: str, timezone: str, after: datetime, until: datetime | None
) -> Iterator[datetime]:
    """The ends of the gaps between two moments that swallowed a due time."""
    if until is None:
        return
    place = zone(timezone)
    begin, end = after.astimezone(place), until.astimezone(place)
    for naive in CronSim(cron, begin.replace(tzinfo=None)):
        if naive >= end.replace(tzinfo=None):
            return
        # A time that does not exist is moved on by the width of the gap, with the old offset.
        there = naive.replace(tzinfo=place).astimezone(UTC)
        if there.astimezone(place).replace(tzinfo=None) == naive:
            continue
        jump = _jump(place, there)
        if jump > after:
            yield jump


def _jump(place: ZoneInfo, after: datetime) -> datetime:
    """The moment of the change of offset that lies within the three hours before ``after``."""
    low, high = after - timedelta(hours=3), after
    before = low.astimezone(place).utcoffset()
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) / 2
        if middle.astimezone(place).utcoffset() == before:
            low = middle
        else:
            high = middle
    return high.replace(microsecond=0)


def last_due(schedule: Schedule, timezone: str, at: datetime, floor: datetime) -> datetime | None:
    """The newest due time that is after ``floor`` and not after ``at``; None if there is none.

    The work does not grow with the distance: it looks back in steps that double.
    """
    if schedule.interval is not None:
        found = EPOCH + ((at - EPOCH) // schedule.interval) * schedule.interval
        return found if floor < found <= at else None
    step = _FIRST_STEP
    while floor < at:
        start = max(floor, at - step)
        due = next_due(schedule, timezone, start)
        if due is not None and due <= at:
            newest = due
            while (due := next_due(schedule, timezone, newest)) is not None and due <= at:
                newest = due
            return newest
        if start == floor:
            return None
        step *= 2
    return None


def deadline(
    schedule: Schedule, timezone: str, max_age: timedelta | None, base: datetime
) -> datetime | None:
    """When a unit is overdue whose newest complete data is from ``base``; None: never.

    ``base`` is when the unit was first seen, if it has no complete restore point. With ``max_age``
    that decides. Else the first due time after ``base`` counts, and the larger of 2 h and half of
    the time from ``base`` to it is allowed on top.
    """
    if max_age is not None:
        return base + max_age
    due = next_due(schedule, timezone, base)
    return None if due is None else due + max(GRACE, (due - base) / 2)
