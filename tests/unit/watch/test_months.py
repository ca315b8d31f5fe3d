"""Simulated months: every due run happens once, whatever becomes of the clock and of us."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.units.due import next_due
from kopiwatch.units.schedule import Schedule, read_schedule
from kopiwatch.units.value import Hours
from kopiwatch.units.zone import zone
from kopiwatch.watch.agenda import LATE, Run, Skip, Standing, Wait, decide
from kopiwatch.watch.queue import RETRY_PAUSE, Ask, Queue

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NIGHT = Hours(time(22), time(6))
NOON = Hours(time(12), time(14))
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"
SPRING = datetime(2026, 3, 1, 0, 7, tzinfo=UTC)
AUTUMN = datetime(2026, 10, 1, 0, 7, tzinfo=UTC)
LOOK = timedelta(seconds=15)

UNITS = tuple(
    (f"{text} {timezone} {catch_up}", text, timezone, catch_up)
    for text, timezone, catch_up in (
        ("0 2 * * *", BERLIN, True),
        ("30 2 * * *", BERLIN, True),
        ("30 2 * * *", BERLIN, False),
        ("30 2 * * *", BERLIN, NIGHT),
        ("30 2 * * *", BERLIN, NOON),
        ("*/20 2 * * *", BERLIN, True),
        ("*/20 2 * * *", NEW_YORK, False),
        ("0 2 * * *", NEW_YORK, True),
        ("30 1 * * *", NEW_YORK, NIGHT),
        ("15 2 * * *", LORD_HOWE, True),
        ("45 1 * * *", LORD_HOWE, NOON),
        ("15 * * * *", LORD_HOWE, True),
        ("@daily", "America/Havana", True),
        ("@daily", "America/Havana", False),
        ("@hourly", BERLIN, True),
        ("@hourly", "UTC", False),
        ("@weekly", BERLIN, NOON),
        ("@weekly", NEW_YORK, NIGHT),
        ("@monthly", BERLIN, True),
        ("0 12 * * mon-fri", NEW_YORK, NIGHT),
        ("0 */6 * * *", BERLIN, True),
        ("every 6h", "UTC", True),
        ("every 90m", BERLIN, False),
        ("every 7d", "UTC", NOON),
    )
)


def schedule(text):
    found = read_schedule(text)
    assert isinstance(found, Schedule)
    return found


class Begun(msgspec.Struct, frozen=True):
    """A run that began."""

    unit: str
    due: datetime
    trigger: str
    at: datetime


class World:
    """Agenda and queue with a disk that lasts, an executor that only takes time, and a wall clock.

    It looks at the clock when something is due, up to 15 s late, as the daemon does. ``gaps`` are
    the times that the wall clock showed while nobody looked.
    """

    def __init__(self, begin, *, seed=0, failing=0.0):
        self.random = Random(seed)
        self.failing = failing
        self.now = self.begin = begin
        self.standings = {
            name: Standing(name, schedule(text), timezone, catch_up, 100, begin)
            for name, text, timezone, catch_up in UNITS
        }
        self.begun: list[Begun] = []
        self.skipped: list[tuple[str, datetime]] = []
        self.gaps: list[tuple[datetime, datetime]] = []
        self._wake()

    def _wake(self):
        """A new life: what was in memory is gone, what was served is on disk."""
        self.queue = Queue(random=self.random.random)
        self.until = dict.fromkeys(self.standings, self.now)
        self.running: tuple[Ask, datetime] | None = None

    def served(self, unit, due):
        before = self.standings[unit]
        later = due if before.served is None else max(before.served, due)
        self.standings[unit] = msgspec.structs.replace(before, served=later)

    # -- what happens to it ------------------------------------------------------------------------

    def go_on(self, end):
        """Work until the wall clock shows ``end``."""
        while True:
            self._plan()
            self._work()
            moment = self._next()
            if moment >= end:
                self.now = max(self.now, end)
                return
            late = self.random.random() * min(LOOK, end - moment)
            self.now = max(self.now, moment) + late

    def calm_down(self):
        """Go on until nothing runs and nothing waits."""
        while self.running is not None or len(self.queue):
            self.go_on(self.now + MINUTE)

    def crash(self, away):
        """End in the middle of whatever happens, and begin anew later."""
        self._missed(away)
        self._wake()

    def suspend(self, away):
        """Sleep, and know nothing of it."""
        self._missed(away)
        self._shift(away)

    def step(self, by):
        """The clock is set: nobody has slept."""
        if by > timedelta():
            self._missed(by)
        else:
            self.now += by
            self.until = dict.fromkeys(self.until, self.now)  # as the planner does
        self._shift(by)

    def _missed(self, away):
        self.gaps.append((self.now, self.now + away))
        self.now += away

    def _shift(self, by):
        if self.running is not None:
            self.running = (self.running[0], self.running[1] + by)

    # -- the daemon's loops ------------------------------------------------------------------------

    def _plan(self):
        for unit, until in self.until.items():
            if until > self.now:
                continue
            standing = self.standings[unit]
            decision = decide(standing, self.now)
            while not isinstance(decision, Wait):
                if isinstance(decision, Run):
                    self.queue.add(Ask(unit, decision.due, self.now, decision.trigger))
                else:
                    assert isinstance(decision, Skip)
                    self.skipped.append((unit, decision.due))
                    self.served(unit, decision.due)
                standing = msgspec.structs.replace(standing, served=decision.due)
                decision = decide(standing, self.now)
            assert decision.until is not None
            assert decision.until > self.now
            self.until[unit] = decision.until

    def _work(self):
        if self.running is not None and self.running[1] <= self.now:
            if self.random.random() < self.failing:
                self.queue.retry(self.running[0], self.now)
            self.running = None
        if self.running is None and (ask := self.queue.take(self.now)) is not None:
            self.served(ask.unit, ask.due)
            self.begun.append(Begun(ask.unit, ask.due, ask.trigger, self.now))
            seconds = self.random.uniform(1, 20)
            self.running = (ask, self.now + timedelta(seconds=seconds))

    def _next(self):
        at = min(self.until.values())
        if self.running is not None:
            return min(at, self.running[1])
        return min(at, self.queue.next_at(self.now) or at)

    # -- what is to be seen ------------------------------------------------------------------------

    def runs(self, unit):
        """The due times that runs began for, without retries."""
        return [each.due for each in self.begun if each.unit == unit and each.trigger != "retry"]


def due_times(text, timezone, begin, end):
    found, due = [], begin
    while (due := next_due(schedule(text), timezone, due)) is not None and due <= end:
        found.append(due)
    return found


def expected(unit, world):
    """The due times to be run, told from the gaps alone."""
    _, text, timezone, _ = unit
    due = due_times(text, timezone, world.begin, world.now)
    wanted = set(due)
    for begin, end in world.gaps:
        *older, newest = [None, *(each for each in due if begin < each <= end)]
        wanted -= set(older)
        if newest and end - newest > LATE and not caught_up(newest, end, due, unit, world):
            wanted.discard(newest)
    return sorted(wanted)


def caught_up(missed, end, due, unit, world):
    """Whether the hours come before the next due time does; minute by minute."""
    _, _, timezone, catch_up = unit
    if isinstance(catch_up, bool):
        return catch_up
    following = next((each for each in due if each > missed), world.now)
    moment = end
    while moment < following:
        asleep = any(begin <= moment < over for begin, over in world.gaps)
        if not asleep and catch_up.hold(moment.astimezone(zone(timezone)).time()):
            return True
        moment += MINUTE
    return False


def check(world):
    """Each unit ran for exactly the due times that it should, each once, and in order."""
    for unit in UNITS:
        assert world.runs(unit[0]) == expected(unit, world), unit[0]
    for name, due in world.skipped:
        assert due not in world.runs(name)
    assert len(set(world.skipped)) == len(world.skipped)


# -- months ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("begin", [SPRING, AUTUMN])
def test_every_due_time_of_two_quiet_months_is_run_once(begin):
    """Through the odd night of four zones, with nothing skipped and nothing made up for."""
    world = World(begin)
    world.go_on(begin + timedelta(days=45))
    check(world)
    assert world.skipped == []
    assert {each.trigger for each in world.begun} == {"schedule"}
    assert len(world.begun) > 4000
    for each in world.begun:
        assert timedelta() <= each.at - each.due < LATE


@pytest.mark.parametrize("seed", [1, 2])
def test_restarts_lose_nothing_and_repeat_nothing(seed):
    """Hundreds of crashes, some in the middle of a run, each away for less than four minutes."""
    world = World(SPRING, seed=seed)
    cut_short = 0
    while world.now < SPRING + timedelta(days=40):
        world.go_on(world.now + timedelta(minutes=world.random.uniform(1, 180)))
        cut_short += world.running is not None
        world.crash(timedelta(minutes=world.random.uniform(0.1, 4)))
    world.go_on(world.now + HOUR)
    world.gaps.clear()  # all of them too short to be noticed
    check(world)
    assert world.skipped == []
    assert cut_short > 5


@pytest.mark.parametrize("begin", [SPRING, AUTUMN])
@pytest.mark.parametrize("kind", ["crash", "suspend", "step"])
def test_outages_are_made_up_for_as_the_label_says(begin, kind):
    """Away for hours or days: once, never, or within the hours; the newest due time only."""
    world = World(begin, seed=7)
    for hours in (9, 0.4, 30, 3, 52, 9, 200, 1, 11, 9, 17):
        world.go_on(world.now + timedelta(hours=world.random.uniform(20, 80)))
        world.calm_down()
        # It ends at 25 past: then all is made up for before anything else is due.
        end = (world.now + hours * HOUR + 35 * MINUTE).replace(minute=25)
        getattr(world, kind)(end - world.now)
    world.go_on(world.now + 8 * DAY)
    world.calm_down()
    check(world)
    assert world.skipped
    assert {each.trigger for each in world.begun} == {"schedule", "catch-up"}


def test_catch_up_within_hours_begins_within_them():
    """All that is made up for between 12:00 and 14:00 begins then, in the unit's own zone."""
    world = World(SPRING, seed=3)
    for _ in range(20):
        world.go_on(world.now + 31 * HOUR)
        world.calm_down()
        world.crash(9 * HOUR)
    world.go_on(world.now + 3 * DAY)
    hours = {name: catch_up for name, _, _, catch_up in UNITS if isinstance(catch_up, Hours)}
    seen = [each for each in world.begun if each.trigger == "catch-up" and each.unit in hours]
    assert len(seen) > 20
    for each in seen:
        local = each.at.astimezone(zone(world.standings[each.unit].timezone))
        assert hours[each.unit].hold(local.time())


def test_suspend_of_nine_hours_each_night_still_backs_up_every_day():
    """A machine that is only awake by day runs each missed unit once in the morning."""
    world = World(SPRING.replace(hour=21), seed=5)
    for _ in range(40):
        world.suspend(9 * HOUR)
        woke = world.now
        world.go_on(woke + 15 * HOUR)
        night = [each for each in world.begun if each.at >= woke and each.trigger == "catch-up"]
        assert len({each.unit for each in night}) == len(night)
        assert all(each.at - woke < 2 * HOUR for each in night
                   if world.standings[each.unit].catch_up is True)  # fmt: skip
    world.calm_down()
    check(world)
    daily = f"0 2 * * * {BERLIN} True"
    assert len(world.runs(daily)) == 40


def test_small_steps_of_the_clock_change_nothing():
    """NTP sets it by up to half an hour back and nine minutes ahead, at any moment."""
    world = World(AUTUMN, seed=11)
    while world.now < AUTUMN + timedelta(days=45):
        world.go_on(world.now + timedelta(hours=world.random.uniform(1, 9)))
        world.calm_down()
        world.step(timedelta(seconds=world.random.uniform(-1800, 540)))
    world.calm_down()
    world.gaps = [gap for gap in world.gaps if gap[1] - gap[0] > LATE]
    assert world.gaps == []
    world.go_on(world.now + HOUR)
    check(world)
    assert world.skipped == []


def test_failed_run_is_retried_once_and_every_due_time_is_still_run_once():
    """A third of all runs fails for a month."""
    world = World(SPRING, seed=13, failing=1 / 3)
    world.go_on(SPRING + timedelta(days=40))
    check(world)
    retries = [(each.unit, each.due) for each in world.begun if each.trigger == "retry"]
    assert len(retries) == len(set(retries)) > 500
    first = {(b.unit, b.due): b.at for b in world.begun if b.trigger != "retry"}
    for each in world.begun:
        if each.trigger == "retry":
            assert each.at - first[each.unit, each.due] >= 0.8 * RETRY_PAUSE


TROUBLE = st.lists(
    st.tuples(
        st.integers(1, 3000),
        st.sampled_from(["crash", "suspend", "step", "back"]),
        st.integers(0, 1500),
    ),
    max_size=8,
)


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([SPRING + 20 * DAY, AUTUMN + 18 * DAY]), TROUBLE, st.integers(0, 99))
def test_whatever_happens_no_due_time_is_run_twice_and_none_is_forgotten(begin, trouble, seed):
    """Each is run, or skipped where that is wanted, or served with a newer one."""
    world, left = World(begin, seed=seed), 55  # more than an hour is no small step any more
    for pause, kind, minutes in trouble:
        world.go_on(world.now + pause * MINUTE)
        if kind == "back":
            world.step(-min(minutes, left) * MINUTE)
            left -= min(minutes, left)
        else:
            getattr(world, kind)(minutes * MINUTE)
    world.go_on(world.now + 2 * DAY)
    world.calm_down()
    for name, text, timezone, catch_up in UNITS:
        # What came in the last minute may not have been looked at yet.
        due, runs = due_times(text, timezone, begin, world.now), world.runs(name)
        sure = [each for each in due if each < world.now - MINUTE]
        skips = {when for unit, when in world.skipped if unit == name}
        assert len(runs) == len(set(runs))
        assert set(runs) | skips <= set(due)
        assert not set(runs) & skips
        assert catch_up is False or not skips
        if catch_up is True and sure:
            assert runs[-1] >= sure[-1]
