"""Retention: which manifests of one source go, and why each other one is kept. Pure.

The numbers mean what they mean in Kopia (0.23.1, ``snapshot/policy/retention_policy.go``): of each
hour, day, ISO week, month and year that has a restore point the newest one counts, as long as it is
not older than so many hours, days, weeks, months or years before the newest restore point. Three
things differ on purpose:

* Only complete points count. Kopia counts a run that could not read a thing as a good one, and
  deleted the last good one for two of these.
* Periods begin and end in one time zone, that of the unit. Kopia takes hours, days, months and
  years in UTC, and weeks in the time zone of its process (measured).
* Periods of different kinds do not collide. Kopia writes week 5 of 2026 and May 2026 alike
  (``2026-05``), and a week loses its point to the month of its number (measured).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec

from kopiwatch.kopia.record import ACCEPTED_PIN, BAD_PIN, Snapshot
from kopiwatch.kopia.worth import State, worth
from kopiwatch.units.retention import Retention

BAD_AGE = timedelta(days=14)
"""A manifest that is not good may go when a complete one is younger by this much."""
BAD_COUNT = 3
"""The newest ones that are not good stay: they tell what went wrong."""
_EARLIEST = datetime.min.replace(tzinfo=UTC)


class Fate(msgspec.Struct, frozen=True):
    """What becomes of one manifest. ``state`` and ``reason`` say what it is worth.

    ``kept`` is why it stays, empty if it goes: ``latest-1``, ``daily-3`` and so on as Kopia names
    them; ``last-good`` for the newest complete one; ``pinned``; ``unfinished``; ``foreign``;
    ``future`` for one that is ahead of the clock; ``bad-1`` to ``bad-3`` for the newest that are
    not good, and ``recent`` for others of these.
    """

    snapshot: Snapshot
    state: State
    reason: str = ""
    kept: tuple[str, ...] = ()

    @property
    def goes(self) -> bool:
        """Nothing keeps it."""
        return not self.kept


def fates(
    snapshots: Iterable[Snapshot],
    rule: Retention,
    *,
    zone: tzinfo,
    now: datetime,
    unfinished: Collection[str] = (),
) -> tuple[Fate, ...]:
    """What becomes of all manifests of one source, oldest first; independent of their order.

    ``zone`` is where hours and days begin. A complete one that is younger than ``now`` was made by
    a clock that was ahead: it is kept, and not counted, or it would push out what is good today.
    ``unfinished`` are runs whose verdict is not durable yet.
    """
    ordered = sorted(snapshots, key=lambda s: (s.start_time, s.end_time, s.id), reverse=True)
    judged = [(snapshot, *worth(snapshot, unfinished)) for snapshot in ordered]
    complete = [s for s, state, _ in judged if state == "complete"]
    counted = [s for s in complete if s.start_time <= now]
    lesser = [s for s, state, _ in judged if state in ("bad", "incomplete")]
    kept = _by_rule(counted, rule, zone)
    if counted:
        kept[counted[0].id].append("last-good")
    for snapshot in complete:
        if snapshot.start_time > now:
            kept.setdefault(snapshot.id, []).append("future")
    newest = counted[0].start_time if counted else None
    for place, snapshot in enumerate(lesser, start=1):
        kept[snapshot.id] = _lesser(snapshot, place, newest)
    for snapshot, state, _ in judged:
        kept.setdefault(snapshot.id, []).extend(_always(snapshot, state, unfinished))
    return tuple(
        Fate(snapshot, state, reason, tuple(kept[snapshot.id]))
        for snapshot, state, reason in reversed(judged)
    )


def _lesser(snapshot: Snapshot, place: int, newest: datetime | None) -> list[str]:
    """Why one that is not good stays; all of them do where there is nothing better."""
    kept = [f"bad-{place}"] if place <= BAD_COUNT else []
    if newest is None or snapshot.start_time >= newest - BAD_AGE:
        kept.append("recent")
    return kept


def _always(snapshot: Snapshot, state: State, unfinished: Collection[str]) -> Iterable[str]:
    """What keeps a manifest whatever the numbers say."""
    if any(not pin.startswith((BAD_PIN, ACCEPTED_PIN)) for pin in snapshot.pins):
        yield "pinned"
    if state == "unfinished" or (snapshot.tag("run") and snapshot.tag("run") in unfinished):
        yield "unfinished"
    if state == "foreign":
        yield "foreign"


# -- Kopia's arithmetic ------------------------------------------------------------------------


def _by_rule(
    newest_first: Sequence[Snapshot], rule: Retention, zone: tzinfo
) -> dict[str, list[str]]:
    """Why each of these stays, by id, in Kopia's words."""
    kept: dict[str, list[str]] = {snapshot.id: [] for snapshot in newest_first}
    for place, snapshot in enumerate(newest_first[: rule.latest], start=1):
        kept[snapshot.id].append(f"latest-{place}")
    for name, number, period, earliest in (
        ("hourly", rule.hourly, _hour, _hours_before),
        ("daily", rule.daily, _day, _days_before),
        ("weekly", rule.weekly, _week, _weeks_before),
        ("monthly", rule.monthly, _month, _months_before),
        ("annual", rule.annual, _year, _years_before),
    ):
        if not newest_first or not number:
            continue
        seen: set[tuple[int, ...]] = set()
        first = earliest(newest_first[0].start_time.astimezone(zone), number)
        for snapshot in newest_first:
            here = period(snapshot.start_time.astimezone(zone))
            if here in seen or len(seen) == number or snapshot.start_time < first:
                continue
            seen.add(here)
            kept[snapshot.id].append(f"{name}-{len(seen)}")
    return kept


def _hour(local: datetime) -> tuple[int, ...]:
    # The hour that the clock shows twice in autumn is two.
    absolute = local.astimezone(UTC)
    offset = int((local.replace(tzinfo=UTC) - absolute).total_seconds())
    return (*_day(local), local.hour, offset)


def _day(local: datetime) -> tuple[int, ...]:
    return (local.year, local.month, local.day)


def _week(local: datetime) -> tuple[int, ...]:
    return tuple(local.isocalendar())[:2]


def _month(local: datetime) -> tuple[int, ...]:
    return (local.year, local.month)


def _year(local: datetime) -> tuple[int, ...]:
    return (local.year,)


def _before(there: Callable[[], datetime]) -> datetime:
    """A time in the past as UTC; one before the calendar's begin is its begin."""
    try:
        return there().astimezone(UTC)
    except (OverflowError, ValueError):
        return _EARLIEST


def _hours_before(local: datetime, hours: int) -> datetime:
    return _before(lambda: local.astimezone(UTC) - timedelta(hours=hours))


def _days_before(local: datetime, days: int) -> datetime:
    return _before(lambda: local - timedelta(days=days))


def _weeks_before(local: datetime, weeks: int) -> datetime:
    return _before(lambda: local - timedelta(weeks=weeks))


def _months_before(local: datetime, months: int) -> datetime:
    """As Go's AddDate counts.

    One month before the 31st of March is the 31st of February, and that is the 3rd of March.
    """

    def there() -> datetime:
        year, month = divmod(local.year * 12 + local.month - 1 - months, 12)
        return local.replace(year=year, month=month + 1, day=1) + timedelta(days=local.day - 1)

    return _before(there)


def _years_before(local: datetime, years: int) -> datetime:
    return _months_before(local, 12 * years)
