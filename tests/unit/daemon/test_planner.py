"""What is due goes into the queue: a real desk and history, a clock that a test moves."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from support.run_world import FakeClock, Said
from unit.units.build import container, volume

from kopiwatch.backup.state import StateFolder
from kopiwatch.config import Config
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.planner import Planner
from kopiwatch.daemon.sight import seen_of
from kopiwatch.report.board import Queued
from kopiwatch.report.history import History
from kopiwatch.units.group import Discovery, discover
from kopiwatch.watch.queue import Ask
from kopiwatch.wiring.attempt import Order

pytestmark = pytest.mark.anyio
HOUR = 3600.0
DUE = datetime(2026, 1, 2, 13, tzinfo=UTC)  # the clock begins at noon


class House:
    """A desk, its planner and its clock."""

    def __init__(self, desk: Desk, time: FakeClock) -> None:
        self.desk, self.time, self.planner = desk, time, Planner(desk)

    async def see(self, **labels: str) -> None:
        """One unit, ``shop``, has containers, with these labels."""
        labels = {"schedule": "@hourly", **labels}
        self.desk.found = discover([container("shop", volume("data"), labels=labels)])
        await self.desk.ledger.seen([seen_of(unit, None) for unit in self.desk.found.units])

    async def at(self, seconds: float) -> list[tuple[datetime, str]]:
        """Look at the clock so long after noon; what waits then."""
        self.time.passed = seconds
        await self.planner.tick()
        return [(ask.due, ask.trigger) for ask in self.desk.queue.waiting()]


@pytest.fixture
async def house(tmp_path):
    time = FakeClock()
    opened = await History.open(tmp_path, clock=time.clock)
    desk = Desk(
        Config(state_dir=tmp_path),
        StateFolder(tmp_path),
        "0",
        opened.history,
        fresh=False,
        listener=Said(),
        clock=time.clock,
        random=lambda: 0.5,
    )
    yield House(desk, time)
    await opened.history.close()


async def test_due_unit_is_queued_once(house):
    """Not before its time, and not again at the next look."""
    await house.see()
    assert await house.at(HOUR - 1) == []
    assert await house.at(HOUR) == [(DUE, "schedule")]
    house.desk.queue.take(DUE)
    assert await house.at(HOUR + 15) == []


async def test_labels_that_change_do_not_repeat_what_was_taken(house):
    """A run that waits for the lock has not begun yet, and is still the run of its due time."""
    await house.see()
    await house.at(HOUR)
    ask = house.desk.queue.take(DUE)
    house.desk.running = Queued(ask.unit, ask.due, ask.since, ask.trigger, ask.priority)
    await house.see(priority="7")
    assert await house.at(HOUR + 60) == []
    assert await house.at(2 * HOUR) == [(DUE + timedelta(hours=1), "schedule")]


async def test_unit_that_vanished_is_not_queued_any_more_and_is_when_it_is_back(house):
    """A recreated container loses no run."""
    await house.see()
    await house.at(HOUR)
    house.desk.found = Discovery()
    assert await house.at(HOUR + 15) == []
    await house.see()
    assert await house.at(HOUR + 30) == [(DUE, "schedule")]


async def test_command_for_a_unit_that_vanishes_is_not_lost(house):
    """Whoever follows it must hear what became of it."""
    await house.see()
    await house.at(0)
    now = house.desk.clock.now()
    house.desk.jobs.add(["shop"])
    house.desk.queue.add(Ask("shop", now, now, "command", -1))
    house.desk.found = Discovery()
    assert await house.at(15) == [(now, "command")]


async def test_unit_with_broken_labels_is_skipped_and_said_so_once(house):
    """Each due time is counted, none is queued."""
    await house.see()
    await house.at(0)
    await house.see(mode="stopp")
    assert await house.at(HOUR) == []
    assert await house.at(HOUR + 15) == []
    assert house.desk.skipped == {"labels": 1}


async def test_clock_that_was_set_back_makes_every_plan_anew(house):
    """A time that was planned by a wrong clock is not waited for."""
    await house.see()
    await house.at(0)
    day = 24 * HOUR
    await house.at(day)
    taken = house.desk.queue.take(house.desk.clock.now())
    await house.desk.ledger.begin("r1", Order("shop", "schedule", taken.due), taken.due)
    assert await house.at(HOUR - 60) == []
    assert await house.at(HOUR) == [(DUE, "schedule")]
