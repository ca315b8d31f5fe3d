"""What goes, what stays and why; that it is Kopia's own arithmetic is in the contract tests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.kopia.record import BAD_PIN, Entry, Snapshot, SourceIdentity, Summary
from kopiwatch.kopia.retention import fates
from kopiwatch.units.retention import Retention

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ONE = Retention(1, 0, 0, 0, 0, 0)
BERLIN = ZoneInfo("Europe/Berlin")
GOOD = Entry("shop", type="d", obj="k1", summ=Summary(size=5, files=2))


def snapshot(at: datetime, name: str = "", **more: object) -> Snapshot:
    given = {"tags": {"tag:kopiwatch-run": f"r{name or at}"}, "root_entry": GOOD} | more
    return Snapshot(
        id=name or f"{at:%Y%m%dT%H%M%S}",
        source=SourceIdentity("h", "kopiwatch", "/mnt/shop"),
        start_time=at,
        end_time=at + timedelta(seconds=1),
        **given,
    )


def bad(at: datetime, **more: object) -> Snapshot:
    return snapshot(at, pins=(BAD_PIN + "start",), **more)


def kept(found, rule=ONE, *, zone=UTC, now=NOW, unfinished=()):
    told = fates(found, rule, zone=zone, now=now, unfinished=unfinished)
    return {fate.snapshot.id: fate.kept for fate in told}


def going(found, rule=ONE, **more):
    return {identity for identity, why in kept(found, rule, **more).items() if not why}


# -- what never goes ---------------------------------------------------------------------------


def test_newest_complete_point_is_the_last_good_one():
    """It stays, whatever came after it; what is older and has no other reason goes."""
    found = [
        snapshot(NOW - 9 * DAY, "a"),
        snapshot(NOW - 8 * DAY, "b"),
        snapshot(NOW - DAY, "c", pins=(BAD_PIN + "start",)),
    ]
    assert kept(found) == {"a": (), "b": ("latest-1", "last-good"), "c": ("bad-1", "recent")}


def test_pinned_point_stays_but_for_our_own_bad_pins():
    """Somebody's pin is a word; ours says only that it is no restore point."""
    old = NOW - 90 * DAY
    found = [snapshot(NOW - DAY, "good"), snapshot(old, "mine", pins=("before-upgrade",))]
    found += [snapshot(old + n * DAY, f"x{n}", pins=(BAD_PIN + "start",)) for n in range(4)]
    found += [snapshot(old - DAY, "both", pins=(BAD_PIN + "start", "evidence"))]
    told = kept(found)
    assert told["mine"] == ("pinned",)
    assert told["both"] == ("pinned",)
    assert going(found) == {"x0"}


def test_run_without_verdict_is_neither_counted_nor_deleted():
    """It may be alive, and may turn out bad: the one before it is still the last good one."""
    found = [snapshot(NOW - 2 * DAY, "a"), snapshot(NOW - DAY, "b")]
    told = kept(found, unfinished={"rb"})
    assert told == {"a": ("latest-1", "last-good"), "b": ("unfinished",)}
    aborted = snapshot(NOW - 90 * DAY, "old", incomplete="canceled")
    lost = [snapshot(NOW - n * DAY, f"i{n}", incomplete="canceled") for n in (3, 4, 5)]
    assert "unfinished" in kept([*found, *lost, aborted], unfinished={"rold"})["old"]


def test_foreign_manifest_is_left_alone():
    """Whoever made it decides."""
    found = [snapshot(NOW - 900 * DAY, "theirs", tags={}), snapshot(NOW - DAY, "ours")]
    assert kept(found)["theirs"] == ("foreign",)


def test_point_from_the_future_pushes_nothing_out():
    """A clock that was ahead for one run does not make every later run worthless."""
    found = [snapshot(NOW - DAY, "a"), snapshot(NOW, "b"), snapshot(NOW + 9000 * DAY, "ahead")]
    assert kept(found) == {"a": (), "b": ("latest-1", "last-good"), "ahead": ("future",)}
    assert kept(found[2:]) == {"ahead": ("future",)}


def test_bad_ones_age_out_and_the_newest_three_stay():
    """Two weeks before the newest complete point, and never as good ones."""
    found = [bad(NOW - n * DAY) for n in (5, 14, 14.5, 15, 22)]
    incomplete = snapshot(NOW - 30 * DAY, "lost", incomplete="canceled")
    unreadable = Entry("shop", type="d", summ=Summary(num_failed=1))
    failed = snapshot(NOW - 31 * DAY, "failed", root_entry=unreadable)
    everything = [*found, incomplete, failed]
    assert going(everything) == set(), "nothing is better than what there is"
    told = kept([*everything, snapshot(NOW - DAY, "good")])
    assert [why for identity, why in told.items() if identity != "good"] == [
        *((), (), ()),
        ("recent",),
        ("bad-3", "recent"),
        ("bad-2", "recent"),
        ("bad-1", "recent"),
    ]
    assert told["good"] == ("latest-1", "last-good")


def test_no_more_periods_are_kept_than_asked_for():
    """The third day begins within two days of the newest point, and is one too many."""
    times = [NOW - DAY - DAY + timedelta(hours=1), NOW - DAY, NOW - timedelta(hours=1), NOW]
    told = kept([snapshot(at) for at in times], Retention(0, 0, 2, 0, 0, 0))
    assert list(told.values()) == [(), ("daily-2",), (), ("daily-1", "last-good")]


# -- time zones --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "evening", "night"), [(UTC, (), ("daily-2",)), (BERLIN, ("daily-2",), ())]
)
def test_days_begin_in_the_zone_of_the_unit(zone, evening, night):
    """23:30 in UTC is tomorrow in Berlin."""
    found = [
        snapshot(datetime(2026, 5, 3, 12, tzinfo=UTC), "evening"),
        snapshot(datetime(2026, 5, 3, 23, 30, tzinfo=UTC), "night"),
        snapshot(datetime(2026, 5, 4, 12, tzinfo=UTC), "newest"),
    ]
    assert kept(found, Retention(0, 0, 9, 0, 0, 0), zone=zone) == {
        "evening": evening,
        "night": night,
        "newest": ("daily-1", "last-good"),
    }


def test_hour_that_the_clock_shows_twice_is_two():
    """02:30 in Berlin on the last Sunday of October comes twice, and so does its point."""
    times = [datetime(2025, 10, 26, hour, 30, tzinfo=UTC) for hour in (0, 1, 2)]
    told = kept([snapshot(at) for at in times], Retention(0, 9, 0, 0, 0, 0), zone=BERLIN)
    assert [why[0] for why in told.values()] == ["hourly-3", "hourly-2", "hourly-1"]


@pytest.mark.parametrize("number", [1_000, 999_999_999])
def test_number_that_reaches_before_the_calendar_keeps_everything(number):
    """A large number is a way to say: all of them."""
    times = [NOW - n * 366 * DAY for n in range(5)]
    for name in ("hourly", "daily", "weekly", "monthly", "annual"):
        rule = msgspec.structs.replace(ONE, **{name: number})
        if (name, number) not in {("hourly", 1000), ("daily", 1000)}:
            assert going([snapshot(at) for at in times], rule) == set()


# -- laws --------------------------------------------------------------------------------------

ZONES = st.sampled_from([UTC, BERLIN, ZoneInfo("Asia/Kolkata"), ZoneInfo("America/New_York")])
TIMES = st.one_of(
    st.integers(0, 100 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes)),
    st.integers(0, 9000).map(lambda hours: NOW - timedelta(hours=hours)),
    st.integers(-3, 2000).map(lambda days: NOW - days * DAY),
)
NUMBERS = st.integers(0, 6) | st.sampled_from([24, 48])
RULES = st.builds(Retention, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS).filter(
    lambda rule: not rule.empty
)
KINDS = st.sampled_from(["good", "good", "good", "bad", "lost", "foreign", "unread", "pinned"])
UNREAD = Entry("shop", type="d", summ=Summary(num_failed=1))
LOOKS = {
    "good": {},
    "bad": {"pins": (BAD_PIN + "start",)},
    "lost": {"incomplete": "canceled"},
    "foreign": {"tags": {}},
    "unread": {"root_entry": UNREAD},
    "pinned": {"pins": ("mine",)},
}
MIXED = st.lists(st.tuples(TIMES, KINDS), min_size=1, max_size=25).map(
    lambda rows: [snapshot(at, f"s{n:02}", **LOOKS[kind]) for n, (at, kind) in enumerate(rows)]
)


def complete(found):
    return [
        s
        for s in found
        if s.tag("run") and not (s.incomplete or s.quarantine or s.root_entry.summ.num_failed)
    ]


@given(MIXED, RULES, ZONES)
def test_last_good_one_stays(found, rule, zone):
    """The newest complete point that is not ahead of the clock is kept, and says so."""
    told = kept(found, rule, zone=zone)
    newest = max((s.start_time for s in complete(found) if s.start_time <= NOW), default=None)
    last = [identity for identity, why in told.items() if "last-good" in why]
    assert len(last) == (newest is not None)
    if newest is not None:
        assert newest in [s.start_time for s in found if s.id == last[0]]


@given(MIXED, RULES, ZONES, st.sampled_from(list(ONE.numbers)), st.integers(1, 30))
def test_larger_numbers_keep_more(found, rule, zone, name, more):
    """Nobody loses a point by asking for more."""
    larger = msgspec.structs.replace(rule, **{name: rule.numbers[name] + more})
    assert going(found, larger, zone=zone) <= going(found, rule, zone=zone)


@given(MIXED, RULES, ZONES)
def test_second_time_deletes_nothing(found, rule, zone):
    """What is kept now is kept by the same rule when the rest is gone."""
    gone = going(found, rule, zone=zone)
    assert going([s for s in found if s.id not in gone], rule, zone=zone) == set()


@given(MIXED, RULES, ZONES, st.randoms(use_true_random=False))
def test_order_does_not_matter(found, rule, zone, rng):
    """Kopia's order is not relied on."""
    shuffled = list(found)
    rng.shuffle(shuffled)
    assert kept(shuffled, rule, zone=zone) == kept(found, rule, zone=zone)


@given(MIXED, RULES, ZONES)
def test_nothing_bad_makes_a_good_one_go(found, rule, zone):
    """Without all that is bad, lost, foreign or ahead of the clock, the same good ones go."""
    good = [s for s in complete(found) if s.start_time <= NOW]
    alone = going(good, rule, zone=zone)
    assert going(found, rule, zone=zone) & {s.id for s in good} == alone


@given(MIXED, RULES, ZONES, TIMES)
def test_older_point_pushes_no_newer_one_out(found, rule, zone, at):
    """Only what is newer can take a slot."""
    told = going(found, rule, zone=zone)
    newer = {s.id for s in found if s.start_time > at}
    more = going([*found, snapshot(at, "more")], rule, zone=zone)
    assert more & newer & {s.id for s in complete(found)} <= told


@given(MIXED, RULES, st.integers(-12, 14))
def test_zone_is_a_shift_of_the_clock(found, rule, hours):
    """A zone without summer time counts as UTC does with the clock put forward."""
    zone, ahead = timezone(timedelta(hours=hours)), timedelta(hours=hours)
    moved = [
        msgspec.structs.replace(s, start_time=s.start_time + ahead, end_time=s.end_time + ahead)
        for s in found
    ]
    assert kept(found, rule, zone=zone) == kept(moved, rule, now=NOW + ahead)


@given(MIXED, RULES, ZONES)
def test_who_is_pinned_or_foreign_never_goes(found, rule, zone):
    """Whatever the numbers say."""
    gone = going(found, rule, zone=zone)
    assert not [s for s in found if s.id in gone and (not s.tag("run") and not s.incomplete)]
    assert not [s for s in found if s.id in gone and "mine" in s.pins]
