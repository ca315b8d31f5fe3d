"""When a schedule is due, through both odd nights of a year."""

from __future__ import annotations

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import pairwise

import pytest
from cronsim import CronSim
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.units.due import EPOCH, GRACE, deadline, last_due, next_due
from kopiwatch.units.schedule import OFF, Schedule, read_schedule
from kopiwatch.units.zone import zone

BERLIN = "Europe/Berlin"
NEW_YORK = "America/New_York"
LORD_HOWE = "Australia/Lord_Howe"
HAVANA = "America/Havana"  # changes its clock at midnight
ST_JOHNS = "America/St_Johns"
SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
ZONES = ("UTC", BERLIN, NEW_YORK, LORD_HOWE, HAVANA, "Atlantic/Azores", ST_JOHNS)


@lru_cache(maxsize=4096)
def schedule(text):
    found = read_schedule(text)
    assert isinstance(found, Schedule)
    return found


def utc(*parts):
    return datetime(*parts, tzinfo=UTC)


def enumerate_due(text, timezone, begin, end):
    """All due times after ``begin`` up to ``end``, one by one."""
    found, due = [], begin
    while (due := next_due(schedule(text), timezone, due)) is not None and due <= end:
        found.append(due)
    return found


def local(moments, timezone):
    return [f"{moment.astimezone(zone(timezone)):%d %H:%M %z}" for moment in moments]


SPRING = (utc(2026, 3, 28, 12), utc(2026, 3, 29, 12))
AUTUMN = (utc(2026, 10, 24, 12), utc(2026, 10, 25, 12))


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["29 03:00 +0200"]),
        ("*/20 2 * * *", ["29 03:00 +0200"]),
        ("* 2 * * *", ["29 03:00 +0200"]),
        ("0 2,3 * * *", ["29 03:00 +0200"]),
        ("30 1,2,3 * * *", ["29 01:30 +0100", "29 03:00 +0200", "29 03:30 +0200"]),
        ("0 */2 29 3 *", [f"29 {h}" for h in ("00:00 +0100", "03:00 +0200", "04:00 +0200",
                          "06:00 +0200", "08:00 +0200", "10:00 +0200", "12:00 +0200",
                          "14:00 +0200")]),
        ("30 3 * * *", ["29 03:30 +0200"]),
    ],
)  # fmt: skip
def test_time_that_the_clock_skips_is_due_once_when_it_has_jumped(cron, expected):
    """In spring nothing is lost, nothing doubled, and what exists stays where it is."""
    assert local(enumerate_due(cron, BERLIN, *SPRING), BERLIN) == expected


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("30 2 * * *", ["25 02:30 +0200"]),
        ("0 3 * * *", ["25 03:00 +0100"]),
        ("*/20 2 * * *", ["25 02:00 +0200", "25 02:20 +0200", "25 02:40 +0200"]),
        ("0 2-3 * * *", ["25 02:00 +0200", "25 03:00 +0100"]),
    ],
)
def test_time_that_comes_twice_is_due_the_first_time(cron, expected):
    """In autumn a schedule that names hours is due as often as on any other day."""
    assert local(enumerate_due(cron, BERLIN, *AUTUMN), BERLIN) == expected


@pytest.mark.parametrize("cron", ["0 * * * *", "15 * * * *", "@hourly", "*/30 * * * *"])
@pytest.mark.parametrize("night", [SPRING, AUTUMN])
@pytest.mark.parametrize("timezone", [BERLIN, NEW_YORK, HAVANA])
def test_schedule_of_every_hour_keeps_its_pace_through_both_nights(cron, night, timezone):
    """No pause and no surplus, where the clock changes by an hour."""
    found = enumerate_due(cron, timezone, *night)
    pace = timedelta(minutes=30 if "30" in cron else 60)
    assert {after - before for before, after in pairwise(found)} == {pace}


def test_half_an_hour_that_is_skipped_or_repeated_loses_nothing():
    """Lord Howe Island moves its clock by half an hour: 02:00 to 02:30, and 02:00 to 01:30."""
    spring = (utc(2026, 10, 3, 12), utc(2026, 10, 3, 17))
    autumn = (utc(2026, 4, 4, 12), utc(2026, 4, 4, 17))
    for cron, night, expected in (
        ("15 2 * * *", spring, ["04 02:30 +1100"]),
        ("45 1 * * *", autumn, ["05 01:45 +1100"]),
        ("15 * * * *", spring, ["03 23:15 +1030", "04 00:15 +1030", "04 01:15 +1030",
                                "04 02:45 +1100", "04 03:15 +1100"]),
        ("45 * * * *", autumn, ["04 23:45 +1100", "05 00:45 +1100", "05 01:45 +1100",
                                "05 01:45 +1030", "05 02:45 +1030"]),
    ):  # fmt: skip
        assert local(enumerate_due(cron, LORD_HOWE, *night), LORD_HOWE) == expected


def test_midnight_that_does_not_exist_is_due_when_the_day_begins():
    """Havana's clock jumps from midnight to 01:00."""
    begin, end = utc(2026, 3, 7, 12), utc(2026, 3, 8, 12)
    for cron in ("@daily", "30 0 * * *", "0 0 8 3 *"):
        assert local(enumerate_due(cron, HAVANA, begin, end), HAVANA) == ["08 01:00 -0400"]


def test_change_of_the_clock_right_after_midnight_mixes_two_days():
    """St John's set its clock at 00:01 until 2011: back to 23:01 of the day before."""
    begin, end = utc(2010, 11, 7, 2), utc(2010, 11, 7, 5)
    found = enumerate_due("0,15 * * * *", ST_JOHNS, begin, end)
    assert local(found, ST_JOHNS) == [
        "07 00:00 -0230", "06 23:15 -0330", "07 00:00 -0330", "07 00:15 -0330", "07 01:00 -0330",
        "07 01:15 -0330",
    ]  # fmt: skip
    for before, due in pairwise(found):
        assert last_due(schedule("0,15 * * * *"), ST_JOHNS, due - SECOND, begin) == before
    midnight = utc(2010, 11, 7, 2, 30)
    assert last_due(schedule("@daily"), ST_JOHNS, midnight + 45 * MINUTE, begin) == midnight


def test_day_that_does_not_exist_is_due_on_the_one_after_it():
    """Samoa had no 30 December 2011."""
    begin, end = utc(2011, 12, 30, 9), utc(2011, 12, 31)
    for cron, expected in (
        ("0 12 30 12 *", ["31 00:00 +1400"]),
        ("0 12 * * *", ["31 00:00 +1400", "31 12:00 +1400"]),
    ):
        assert local(enumerate_due(cron, "Pacific/Apia", begin, end), "Pacific/Apia") == expected
    hourly, noon = schedule("15 * 30 12 *"), utc(2011, 12, 30, 22)
    assert next_due(hourly, "Pacific/Apia", noon) == noon + 15 * MINUTE
    at = noon + 20 * MINUTE
    assert last_due(hourly, "Pacific/Apia", at, noon) == noon + 15 * MINUTE


@pytest.mark.parametrize("text", ["0 2 * * *", "every 1h"])
def test_last_due_leaves_out_its_floor_but_not_its_end(text):
    """What was served at the floor is not served again."""
    due = utc(2026, 1, 2, 2)
    assert last_due(schedule(text), "UTC", due, due - SECOND) == due
    assert last_due(schedule(text), "UTC", due + MINUTE, due) is None
    assert last_due(schedule(text), "UTC", due, due) is None
    assert last_due(schedule(text), "UTC", due, due + MINUTE) is None


def test_from_within_the_repeated_hour_the_first_pass_is_over():
    """What was due at the first 02:30 is not due again at 02:15 of the second pass."""
    daily = schedule("30 2 * * *")
    assert next_due(daily, BERLIN, utc(2026, 10, 25, 1, 15)) == utc(2026, 10, 26, 1, 30)
    found = last_due(daily, BERLIN, utc(2026, 10, 25, 1, 15), utc(2026, 10, 24, 12))
    assert found == utc(2026, 10, 25, 0, 30)


@pytest.mark.parametrize(
    ("text", "after", "due"),
    [
        ("@monthly", utc(2026, 1, 31, 23, 59), utc(2026, 2, 1)),
        ("@weekly", utc(2026, 3, 2), utc(2026, 3, 8)),
        ("@yearly", utc(2026, 3, 2), utc(2027, 1, 1)),
        ("@annually", utc(2026, 1, 1), utc(2027, 1, 1)),
        ("@midnight", utc(2026, 1, 1), utc(2026, 1, 2)),
        ("0 4 * jan,Jul MON-fri", utc(2026, 1, 31), utc(2026, 7, 1, 4)),
        ("0 0 13 * 5", utc(2026, 1, 1), utc(2026, 1, 2)),  # either the 13th or a Friday
        ("0 0 * * 7", utc(2026, 3, 2), utc(2026, 3, 8)),
        ("0 0 29 2 *", utc(2026, 1, 1), utc(2028, 2, 29)),
        ("0 0 29 2 *", utc(2097, 1, 1), utc(2104, 2, 29)),
        ("every 6h", utc(2026, 1, 1, 5, 59), utc(2026, 1, 1, 6)),
        ("every 7d", utc(2026, 3, 2), utc(2026, 3, 5)),  # 1970 began with a Thursday
        ("every 5h", EPOCH, EPOCH + timedelta(hours=5)),
    ],
)
def test_schedule_is_due_when_its_text_says(text, after, due):
    """Nicknames, names, ranges and intervals mean what they mean everywhere."""
    assert next_due(schedule(text), "UTC", after) == due


@pytest.mark.parametrize("timezone", ZONES)
def test_interval_lies_on_one_grid_in_every_zone(timezone):
    """Intervals are counted in UTC and need no zone."""
    assert next_due(schedule("every 6h"), timezone, utc(2026, 3, 29)) == utc(2026, 3, 29, 6)


def test_schedule_that_is_off_is_never_due():
    """And has no deadline of its own."""
    now = utc(2026, 1, 1)
    assert next_due(OFF, "UTC", now) is None
    assert last_due(OFF, "UTC", now, EPOCH) is None
    assert deadline(OFF, "UTC", None, now) is None


def test_unknown_zone_is_no_other_zone():
    """Nothing falls back to UTC in silence."""
    with pytest.raises(KeyError):
        next_due(schedule("@daily"), "Europe/Berlim", utc(2026, 1, 1))


@pytest.mark.parametrize("text", ["* * * * *", "@yearly", "0 0 29 2 *", "every 1m"])
def test_last_due_takes_no_longer_for_a_floor_far_away(text, monkeypatch):
    """It asks for some days of fitting months, not for all minutes of years."""
    days = []
    match = CronSim.match_day
    monkeypatch.setattr(
        CronSim, "match_day", lambda self, day: days.append(day) or match(self, day)
    )
    at = utc(2026, 7, 1, 12, 0, 30)
    found = last_due(schedule(text), BERLIN, at, at - timedelta(days=1000))
    assert found is not None
    assert found <= at
    assert len(days) < 400


# -- deadlines -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "base", "expected"),
    [
        ("0 2 * * *", utc(2026, 1, 1, 2), utc(2026, 1, 2, 14)),
        ("0 2 * * *", utc(2026, 1, 1, 1, 50), utc(2026, 1, 1, 14)),
        ("@hourly", utc(2026, 1, 1), utc(2026, 1, 1, 3)),
        ("@weekly", utc(2026, 1, 4), utc(2026, 1, 14, 12)),
        ("every 6h", utc(2026, 1, 1), utc(2026, 1, 1, 9)),
    ],
)
def test_deadline_is_the_next_due_time_and_half_of_the_way_more(text, base, expected):
    """At least two hours more."""
    assert deadline(schedule(text), "UTC", None, base) == expected


@pytest.mark.parametrize("text", ["off", "0 2 * * *"])
def test_max_age_alone_decides_where_it_is_given(text):
    """Also without a schedule."""
    base = utc(2026, 1, 1)
    assert deadline(schedule(text), "UTC", timedelta(hours=26), base) == utc(2026, 1, 2, 2)


# -- properties ------------------------------------------------------------------------------------

_fields = st.tuples(
    st.sampled_from(["0", "30", "59", "*/20", "*", "5,55", "0-10/5"]),
    st.sampled_from(["*", "2", "0", "1-3", "*/2", "23", "2,14", "0-23"]),
    st.sampled_from(["*", "*", "*", "1", "29", "*/2", "25-31"]),
    st.sampled_from(["*", "*", "3,10", "jan", "4"]),
    st.sampled_from(["*", "*", "sun", "mon-fri", "0,6"]),
)
CRONS = _fields.map(" ".join)
INTERVALS = st.integers(1, 10_000).map("every {}m".format)
SCHEDULES = CRONS | INTERVALS | st.sampled_from(["@hourly", "@daily", "@weekly", "@monthly"])
ODD_NIGHTS = [utc(2026, 3, 8, 6), utc(2026, 3, 29, 1), utc(2026, 4, 4, 15), utc(2026, 10, 3, 15),
              utc(2026, 10, 25, 1), utc(2026, 11, 1, 5), utc(2010, 3, 14, 3),
              utc(2010, 11, 7, 3)]  # fmt: skip
MOMENTS = st.builds(
    lambda night, seconds: night + timedelta(seconds=seconds),
    st.sampled_from(ODD_NIGHTS),
    st.integers(-100_000, 100_000) | st.integers(-200_000_000, 200_000_000),
)


@given(SCHEDULES, st.sampled_from(ZONES), MOMENTS)
def test_next_due_goes_strictly_forward(text, timezone, after):
    """Each due time is later than the one before it, however the clock is changed."""
    for _ in range(5):
        due = next_due(schedule(text), timezone, after)
        assert due is not None
        assert due.tzinfo is UTC
        assert due > after
        after = due


@given(SCHEDULES, st.sampled_from(ZONES), MOMENTS, MOMENTS)
def test_next_due_leaves_nothing_out(text, timezone, one, other):
    """Whoever begins later, but not yet at the due time, finds the same one or a later one."""
    early, late = sorted((one, other))
    first, second = (next_due(schedule(text), timezone, moment) for moment in (early, late))
    assert first is not None
    assert second is not None
    assert first == second if first > late else second > late


@settings(deadline=None)  # some go through thousands of minutes
@given(SCHEDULES, st.sampled_from(ZONES), MOMENTS, st.integers(0, 400_000))
def test_last_due_is_the_newest_that_next_due_reaches(text, timezone, floor, seconds):
    """Backwards and forwards see the same due times."""
    at = floor + timedelta(seconds=seconds)
    newest, due = None, floor
    for _ in range(8_000):
        due = next_due(schedule(text), timezone, due)
        assert due is not None
        if due > at:
            break
        newest = due
    else:
        raise AssertionError("too many")
    assert last_due(schedule(text), timezone, at, floor) == newest


@given(SCHEDULES | st.just("off"), st.sampled_from(ZONES), MOMENTS)
def test_deadline_leaves_the_due_run_its_time(text, timezone, base):
    """It lies at least two hours after the next due time."""
    due = next_due(schedule(text), timezone, base)
    found = deadline(schedule(text), timezone, None, base)
    assert found is None if due is None else found >= due + GRACE


@lru_cache(maxsize=64)
def minutes_on_the_wall(timezone, begin):
    """What a clock on the wall shows in each minute of four days."""
    moments = [begin + timedelta(minutes=n) for n in range(4 * 1440)]
    return [(moment, moment.astimezone(zone(timezone))) for moment in moments]


@settings(max_examples=60, deadline=None)  # each looks at 5,760 minutes
@given(CRONS, st.sampled_from(ZONES), st.sampled_from(ODD_NIGHTS))
def test_wall_clock_that_shows_a_time_for_the_first_time_is_a_due_time(text, timezone, night):
    """Told minute by minute without any calendar arithmetic, and no others but the skipped ones."""
    begin = night.replace(minute=0) - timedelta(days=2)
    clock = minutes_on_the_wall(timezone, begin)
    found = enumerate_due(text, timezone, begin - timedelta(seconds=1), clock[-1][0])
    fields = text.split()
    probe = CronSim(text, EPOCH)
    hourly = fields[1] in ("*", "0-23")
    shown, last = set(), None
    expected, jumps = [], []
    for moment, wall in clock:
        if last is not None and wall.replace(tzinfo=None) - last > timedelta(minutes=1):
            jumps.append((moment, wall.replace(tzinfo=None) - last))
        last = wall.replace(tzinfo=None)
        matches = (
            wall.minute in probe.minutes
            and wall.hour in probe.hours
            and wall.month in probe.months
            and probe.match_day(wall.date())
        )
        if matches and (hourly or last not in shown):
            expected.append(moment)
        shown.add(last)
    # Before the four days began nobody saw whether a time was shown for the first time.
    sure = begin + timedelta(hours=2)
    surplus = [due for due in found if due not in set(expected) and due >= sure]
    assert [due for due in expected if due >= sure and due not in set(found)] == []
    for due in surplus:
        assert any(jump <= due < jump + width for jump, width in jumps)
    if not hourly:
        assert len(surplus) <= len(jumps)


@given(CRONS, st.sampled_from(["UTC", BERLIN, NEW_YORK]), MOMENTS)
def test_cronsim_agrees_wherever_it_moves_times_itself(text, timezone, after):
    """For fixed hours and minutes it does what Debian's cron does, and so do we."""
    minute, hour, *_ = text.split()
    if "*" in minute + hour or hour == "0-23":
        return
    theirs = CronSim(text, after.astimezone(zone(timezone)))
    expected = next(due for due in theirs if due.astimezone(UTC) > after)
    assert next_due(schedule(text), timezone, after) == expected.astimezone(UTC)


def test_enumeration_finds_the_same_from_every_start():
    """A bisection over one long enumeration answers every question about it."""
    begin, end = utc(2026, 3, 20), utc(2026, 4, 10)
    found = enumerate_due("*/7 * * * *", LORD_HOWE, begin, end)
    for minute in range(0, 20 * 1440, 13):
        moment = begin + timedelta(minutes=minute)
        expected = found[bisect_right(found, moment)]
        assert next_due(schedule("*/7 * * * *"), LORD_HOWE, moment) == expected
