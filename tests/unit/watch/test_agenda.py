"""When a unit's time has come."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.units.due import last_due, next_due
from kopiwatch.units.schedule import OFF, Schedule, read_schedule
from kopiwatch.units.value import Hours
from kopiwatch.watch.agenda import LATE, WRONG_CLOCK, Run, Skip, Standing, Wait, decide, next_run

BERLIN = "Europe/Berlin"
NIGHT = Hours(time(22), time(6))
MORNING = Hours(time(5), time(7))
HOUR = timedelta(hours=1)
SECOND = timedelta(seconds=1)


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


LONG_AGO = utc(2025, 6, 1)
DUE = utc(2026, 1, 2, 2)  # of "0 2 * * *"
BEFORE = DUE - timedelta(days=1)
AFTER = DUE + timedelta(days=1)


def standing(text="0 2 * * *", *, catch_up=True, served=BEFORE, seen=LONG_AGO, timezone="UTC"):
    found = read_schedule(text)
    assert isinstance(found, Schedule)
    return Standing("shop", found, timezone, catch_up, 100, seen, served)


# -- on time ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("catch_up", [True, False, NIGHT, MORNING])
@pytest.mark.parametrize("late", [timedelta(), SECOND, LATE])
def test_due_time_is_run_when_it_comes(catch_up, late):
    """A run that is noticed within ten minutes is on time, whatever would be made up for."""
    assert decide(standing(catch_up=catch_up), DUE + late) == Run(DUE, "schedule")


def test_unit_waits_until_its_next_due_time():
    """To the second: nothing runs before."""
    assert decide(standing(), DUE - SECOND) == Wait(DUE)
    assert decide(standing(served=DUE), DUE) == Wait(AFTER)


def test_schedule_that_is_off_waits_for_nothing():
    """Whatever was served, and whenever it was first seen."""
    for served in (None, BEFORE):
        off = Standing("shop", OFF, "UTC", True, 100, LONG_AGO, served)
        assert decide(off, DUE) == Wait(None)
        assert next_run(off, DUE) is None


def test_new_unit_waits_for_its_first_due_time():
    """What was due before it came is none of its business."""
    new = standing(served=None, seen=DUE + SECOND)
    assert decide(new, DUE + SECOND) == Wait(AFTER)
    assert decide(new, AFTER) == Run(AFTER, "schedule")


def test_new_unit_that_missed_its_first_due_time_makes_up_for_it():
    """It was known by then, and never served."""
    new = standing(served=None, seen=DUE - HOUR)
    assert decide(new, DUE + HOUR) == Run(DUE, "catch-up")


@pytest.mark.parametrize("timezone", ["UTC", BERLIN, "Asia/Kathmandu"])
def test_due_time_is_of_the_zone_that_was_named(timezone):
    """02:00 in Berlin is 01:00 UTC in winter, in Kathmandu 20:15 of the day before."""
    due = {"UTC": DUE, BERLIN: DUE - HOUR, "Asia/Kathmandu": utc(2026, 1, 1, 20, 15)}[timezone]
    served = due - timedelta(days=1)
    assert decide(standing(timezone=timezone, served=served), due - SECOND) == Wait(due)
    assert decide(standing(timezone=timezone, served=served), due) == Run(due, "schedule")


# -- missed ----------------------------------------------------------------------------------------


def test_missed_due_time_is_made_up_for():
    """At once, if catching up is wanted at any hour."""
    assert decide(standing(), DUE + LATE + SECOND) == Run(DUE, "catch-up")


def test_many_missed_due_times_are_one_run():
    """The newest of them; the others are served with it."""
    now = utc(2026, 2, 20, 15)
    newest = utc(2026, 2, 20, 2)
    assert decide(standing(), now) == Run(newest, "catch-up")
    assert decide(standing(served=newest), now) == Wait(newest + timedelta(days=1))


def test_missed_due_time_is_skipped_where_nobody_wants_it_made_up_for():
    """And said so once: what was skipped is served."""
    now = DUE + LATE + SECOND
    assert decide(standing(catch_up=False), now) == Skip(DUE)
    assert decide(standing(catch_up=False, served=DUE), now) == Wait(AFTER)
    assert next_run(standing(catch_up=False), now) == AFTER


@pytest.mark.parametrize(
    ("hours", "now", "expected"),
    [
        (NIGHT, DUE + 3 * HOUR, Run(DUE, "catch-up")),
        (NIGHT, utc(2026, 1, 2, 5, 59, 59), Run(DUE, "catch-up")),
        (NIGHT, utc(2026, 1, 2, 6), Wait(utc(2026, 1, 2, 22), DUE)),
        (NIGHT, utc(2026, 1, 2, 12), Wait(utc(2026, 1, 2, 22), DUE)),
        (NIGHT, utc(2026, 1, 2, 22), Run(DUE, "catch-up")),
        (NIGHT, utc(2026, 1, 3, 0), Run(DUE, "catch-up")),
        (MORNING, DUE + HOUR, Wait(utc(2026, 1, 2, 5), DUE)),
        (MORNING, utc(2026, 1, 2, 5), Run(DUE, "catch-up")),
        (MORNING, utc(2026, 1, 2, 7), Wait(AFTER, DUE)),
    ],
)
def test_missed_due_time_waits_for_its_hours(hours, now, expected):
    """Within them it is made up for; else they, or the next due time, are waited for."""
    assert decide(standing(catch_up=hours), now) == expected
    wanted = now if isinstance(expected, Run) else expected.until
    assert next_run(standing(catch_up=hours), now) == wanted


def test_next_due_time_ends_the_wait_for_hours():
    """The newer one runs on time, and the older one is served with it."""
    assert decide(standing(catch_up=MORNING), AFTER) == Run(AFTER, "schedule")


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (utc(2026, 7, 2, 19, 59, 59), Wait(utc(2026, 7, 2, 20), utc(2026, 7, 2, 10))),
        (utc(2026, 7, 2, 20), Run(utc(2026, 7, 2, 10), "catch-up")),
        (utc(2026, 7, 3, 3, 59, 59), Run(utc(2026, 7, 2, 10), "catch-up")),
        (utc(2026, 7, 3, 4), Wait(utc(2026, 7, 3, 10), utc(2026, 7, 2, 10))),
    ],
)
def test_hours_are_those_of_the_units_zone(now, expected):
    """22:00 in Berlin is 20:00 UTC in summer."""
    unit = standing("0 12 * * *", catch_up=NIGHT, served=utc(2026, 7, 1, 10), timezone=BERLIN)
    assert decide(unit, now) == expected


def test_hours_that_begin_twice_are_waited_for_twice():
    """In autumn Berlin's clock shows 02:30 again: the second time counts, if the first is over."""
    hours = Hours(time(2, 30), time(2, 50))
    unit = standing("@weekly", catch_up=hours, served=utc(2026, 10, 11), timezone=BERLIN)
    first, second = utc(2026, 10, 25, 0, 30), utc(2026, 10, 25, 1, 30)
    due = utc(2026, 10, 24, 22)
    assert decide(unit, first - HOUR) == Wait(first, due)
    assert decide(unit, first) == Run(due, "catch-up")
    assert decide(unit, first + HOUR / 2) == Wait(second, due)
    assert decide(unit, second) == Run(due, "catch-up")


def test_hours_that_the_clock_skips_are_not_waited_for_in_vain():
    """In spring there is no 02:30 in Berlin: the range goes on when the clock has jumped."""
    hours = Hours(time(2, 30), time(4))
    unit = standing("@weekly", catch_up=hours, served=utc(2026, 3, 15), timezone=BERLIN)
    now = utc(2026, 3, 29, 0, 30)
    found = decide(unit, now)
    assert isinstance(found, Wait)
    assert found.until is not None
    assert now < found.until <= utc(2026, 3, 29, 1, 30)
    assert isinstance(decide(unit, utc(2026, 3, 29, 1, 30)), Run)


# -- clocks that are set ---------------------------------------------------------------------------


@pytest.mark.parametrize("back", [SECOND, timedelta(minutes=5), WRONG_CLOCK])
def test_small_step_back_does_not_run_twice(back):
    """What was served stays served, also when its time comes a second time."""
    served = standing(served=DUE)
    now = DUE - back
    while now < DUE + LATE:
        assert decide(served, now) == Wait(AFTER)
        now += timedelta(minutes=1)


@pytest.mark.parametrize("years", [1, 10])
def test_due_time_served_far_in_the_future_does_not_silence(years):
    """A clock was wrong once, and the unit is backed up all the same."""
    wrong = standing(served=DUE + timedelta(days=365 * years))
    assert decide(wrong, DUE - HOUR) == Wait(DUE)
    assert decide(wrong, DUE) == Run(DUE, "schedule")


@pytest.mark.parametrize("served", [None, BEFORE])
@pytest.mark.parametrize("ahead", [2 * HOUR, timedelta(days=3650)])
def test_unit_first_seen_far_in_the_future_is_not_silenced(served, ahead):
    """Nor is it by a clock that was wrong when its container came."""
    wrong = standing(seen=DUE + ahead, served=served)
    assert decide(wrong, DUE - HOUR) == Wait(DUE)
    assert decide(wrong, DUE + SECOND) == Run(DUE, "schedule")
    assert decide(msgspec.structs.replace(wrong, served=DUE), DUE + SECOND) == Wait(AFTER)


def test_unit_first_seen_far_in_the_future_still_makes_up_for_what_it_missed():
    """What it was served tells since when it is known."""
    assert decide(standing(seen=AFTER), DUE + HOUR) == Run(DUE, "catch-up")


def test_unit_first_seen_before_a_small_step_back_waits_all_the_same():
    """The due time between was over when it came."""
    new = standing(served=None, seen=DUE + timedelta(minutes=5))
    assert decide(new, DUE - timedelta(minutes=5)) == Wait(AFTER)
    assert decide(new, DUE) == Wait(AFTER)


def test_step_forward_is_a_time_that_was_missed():
    """The clock of a machine that slept: one run, not one for each due time."""
    hourly = standing("@hourly", served=DUE)
    assert decide(hourly, DUE + timedelta(hours=9, minutes=30)) == Run(DUE + 9 * HOUR, "catch-up")


# -- properties ------------------------------------------------------------------------------------

CATCH_UPS = st.sampled_from([True, False, NIGHT, MORNING, Hours(time(2, 30), time(2, 31))])
MINUTES = st.integers(-3 * 1440, 3 * 1440).map(lambda minutes: timedelta(minutes=minutes))
STANDINGS = st.builds(
    lambda text, catch_up, served, seen, timezone: standing(
        text,
        catch_up=catch_up,
        served=None if served is None else DUE + served,
        seen=DUE + seen,
        timezone=timezone,
    ),
    st.sampled_from(["0 2 * * *", "@hourly", "*/20 2 * * *", "every 7h", "@weekly", "0 0 29 2 *"]),
    CATCH_UPS,
    st.none() | MINUTES,
    MINUTES,
    st.sampled_from(["UTC", BERLIN, "America/New_York"]),
)


@given(STANDINGS, MINUTES)
def test_decision_is_made_once(unit, offset):
    """What was run or skipped is not decided again, and every wait ends later than now."""
    now = DUE + offset
    found = decide(unit, now)
    if not isinstance(found, Wait):
        assert found.due <= now
        found = decide(msgspec.structs.replace(unit, served=found.due), now)
    assert isinstance(found, Wait)
    assert found.until is not None
    assert found.until > now
    expected = next_run(unit, now)
    assert expected is not None
    assert expected >= now


@given(STANDINGS, MINUTES)
def test_nothing_is_missed_between_now_and_the_end_of_a_wait(unit, offset):
    """Whoever sleeps until then finds there what came meanwhile, and nothing came before."""
    now = DUE + offset
    found = decide(unit, now)
    if not isinstance(found, Wait) or found.until is None:
        return
    moment = found.until - SECOND
    if moment > now:
        assert isinstance(decide(unit, moment), Wait)


@given(STANDINGS, MINUTES)
def test_run_is_for_the_newest_due_time(unit, offset):
    """Never for one that the schedule does not know."""
    now = DUE + offset
    found = decide(unit, now)
    if isinstance(found, Run):
        assert found.due == last_due(unit.schedule, unit.timezone, now, LONG_AGO)
        following = next_due(unit.schedule, unit.timezone, found.due)
        assert following is not None
        assert following > now
