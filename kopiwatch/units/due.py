"""When a schedule is due: arithmetic from values to values, UTC in and out.

Cron times are times of the clock on the wall of a zone. cronsim says on which days a schedule is
due; the hours and minutes of such a day are put on the clock here, since the clock has two odd
nights a year:

* A schedule that names hours (``30 2 * * *``, ``*/20 2 * * *``, ``0 */6 * * *``) is due once for
  each of its times: what the clock skips in spring is due when it has jumped, all of it at once,
  and what it shows twice in autumn is due the first time.
* A schedule of every hour (``15 * * * *``) goes on at its pace: it is due each time that the clock
  shows it, and a time that the clock skips is due as long after the one before as ever.

cronsim alone would skip ``*/20 2 * * *`` in spring, and from within the repeated hour in autumn it
would name a time that has passed (2.8, measured).

No zone is read from disk here once it was named by :func:`~kopiwatch.units.zone.zone`.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache

from cronsim import CronSim

from kopiwatch.units.schedule import Schedule
from kopiwatch.units.zone import zone

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=2)
"""The least time that a run may be late before its unit is overdue."""
_DAY = timedelta(days=1)
_SECOND = timedelta(seconds=1)


_LONGEST_WAIT = 50 * 366
"""Days. The rarest that comes at all, a 29 February on one weekday, comes within 40 years."""


@lru_cache(maxsize=4096)
def next_due(schedule: Schedule, timezone: str, after: datetime) -> datetime | None:
    """The first due time after ``after``; None for a schedule that is off.

    Raises KeyError for a time zone that does not exist.
    """
    if schedule.interval is not None:
        return EPOCH + ((after - EPOCH) // schedule.interval + 1) * schedule.interval
    return _next_cron(schedule.cron, timezone, after) if schedule.cron else None


def last_due(schedule: Schedule, timezone: str, at: datetime, floor: datetime) -> datetime | None:
    """The newest due time that is after ``floor`` and not after ``at``; None if there is none.

    The work does not grow with the distance between the two.
    """
    if at <= floor or schedule.off:
        return None
    if schedule.interval is not None:
        found: datetime | None = EPOCH + ((at - EPOCH) // schedule.interval) * schedule.interval
    else:
        found = _last_cron(schedule.cron, timezone, at, floor)
    return found if found is not None and found > floor else None


def deadline(
    schedule: Schedule, timezone: str, max_age: timedelta | None, base: datetime
) -> datetime | None:
    """When a unit is overdue whose newest complete data is from ``base``; None: never.

    ``base`` is when the unit was first seen, if it has no complete restore point. With ``max_age``
    that decides. Else the first due time after ``base`` counts, and the larger of 2 h and half of
    the time between it and the due time before is allowed on top. So a backup by hand never makes a
    unit overdue earlier than it would have been without.
    """
    if max_age is not None:
        return base + max_age
    due = next_due(schedule, timezone, base)
    if due is None:
        return None
    before = last_due(schedule, timezone, base, EPOCH) or base
    return due + max(GRACE, (due - before) / 2)


# -- cron ------------------------------------------------------------------------------------------
# A change of the clock around midnight mixes the times of two days: so the search begins a day
# early, and the day that answers is confirmed by the one after it.


def _next_cron(cron: str, timezone: str, after: datetime) -> datetime | None:
    start = after.astimezone(zone(timezone)).date() - _DAY
    best: datetime | None = None
    for day in _days(cron, start, _DAY):
        times = _times(cron, timezone, day)
        place = bisect_right(times, after)
        if place < len(times) and (best is None or times[place] < best):
            best = times[place]
        elif best is not None:
            break
    return best


def _last_cron(cron: str, timezone: str, at: datetime, floor: datetime) -> datetime | None:
    place = zone(timezone)
    oldest = floor.astimezone(place).date() - _DAY
    best: datetime | None = None
    for day in _days(cron, at.astimezone(place).date() + _DAY, -_DAY):
        if day < oldest:
            break
        times = _times(cron, timezone, day)
        index = bisect_right(times, at) - 1
        if index >= 0 and (best is None or times[index] > best):
            best = times[index]
        elif best is not None:
            break
    return best


def _days(cron: str, start: date, step: timedelta) -> Iterator[date]:
    """The days on which it is due, ``start`` among them."""
    known = _known(cron)
    for count in range(_LONGEST_WAIT):
        day = start + count * step
        if day.month in known.months and known.match_day(day):
            yield day


@lru_cache(maxsize=4096)
def _known(cron: str) -> CronSim:
    """What an expression means: cronsim reads it and knows its days. Never advanced."""
    return CronSim(cron, datetime(2000, 1, 1, tzinfo=UTC))


@lru_cache(maxsize=64)
def _times(cron: str, timezone: str, day: date) -> tuple[datetime, ...]:
    """The moments of one day on which it is due, ascending, each once."""
    place = zone(timezone)
    known = _known(cron)
    minutes = sorted(60 * hour + minute for hour in known.hours for minute in known.minutes)
    midnight = datetime.combine(day, time(), place)
    if midnight.utcoffset() == (midnight + _DAY).replace(fold=1).utcoffset():
        begin = midnight.astimezone(UTC)
        return tuple(begin + timedelta(minutes=minute) for minute in minutes)
    walls = (midnight + timedelta(minutes=minute) for minute in minutes)
    moments = {m for wall in walls for m in _moments(wall, every_hour=len(known.hours) == 24)}
    return tuple(sorted(moments))


def _moments(wall: datetime, *, every_hour: bool) -> tuple[datetime, ...]:
    """The moments that stand for a time on the wall, which may come once, twice or never."""
    first, second = wall.astimezone(UTC), wall.replace(fold=1).astimezone(UTC)
    if first < second:
        return (first, second) if every_hour else (first,)
    if first > second and not every_hour:
        return (_jump(wall, second, first),)
    return (first,)  # in a gap: as if the clock had gone on (PEP 495)


def _jump(wall: datetime, before: datetime, after: datetime) -> datetime:
    """The moment between the two at which the clock of ``wall`` is changed, to the second."""
    old = before.astimezone(wall.tzinfo).utcoffset()
    while after - before > _SECOND:
        middle = before + timedelta(seconds=(after - before) // _SECOND // 2)
        if middle.astimezone(wall.tzinfo).utcoffset() == old:
            before = middle
        else:
            after = middle
    return after
