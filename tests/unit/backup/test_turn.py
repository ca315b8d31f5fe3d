"""Turns: one run after the other, but for the moment in which a run only looks."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import anyio
import pytest
from support.manual_clock import settle

from kopiwatch.backup.run import SETTLE_SECONDS, Run
from kopiwatch.backup.turn import Turn, Turns
from kopiwatch.errors import RepositoryError
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio


async def attempt(world, run, **more):
    rows = await world.engine.containers()
    (unit,) = discover(rows).units
    return Run(await world.house(), unit, rows, run, **more)


def one_point_only(world):
    """The rule of the unit; there is a point already, which the next success lets go."""
    labels = world.engine.all[world.db].row.labels
    for name in ("latest", "hourly", "daily", "weekly", "monthly", "annual"):
        labels[f"kopi.retention.{name}"] = "1" if name == "latest" else "0"
    world.repository.add_snapshot(
        "/mnt/shop",
        {"recipe/unit.json": b"{}", "volumes/data/file": b"1", "volumes/files/file": b"1"},
        tags={"run": "r0", "mode": "stop"},
        start=datetime(2025, 12, 31, tzinfo=UTC),
    )


async def test_one_has_it_and_the_others_wait():
    """Whoever wants to end its run goes before those who want to begin one."""
    turns, order = Turns(), []
    first, second, third = (Turn(turns) for _ in range(3))

    async def take(turn, name):
        await turn.take()
        order.append(name)

    await first.take()
    await first.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take, second, "second begins")
        await settle()
        tasks.start_soon(take, third, "third begins")
        with first.watching({"a"}):
            await settle()
            assert order == ["second begins"]
        tasks.start_soon(take, first, "first ends")
        await settle()
        second.give()
        second.give()
        await settle()
        assert order == ["second begins", "first ends"]
        first.give()
    assert order == ["second begins", "first ends", "third begins"]


async def test_whole_turn_is_not_given_away_for_a_look():
    """Hooks of the host stand around a whole run: the next one's begin when these have ended."""
    turns, begun = Turns(whole=True), anyio.Event()
    first, second = Turn(turns), Turn(turns)

    async def begin():
        await second.take()
        begun.set()

    await first.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(begin)
        with first.watching({"a"}):
            await settle()
            assert not begun.is_set()
        await first.take()
        first.give()
    assert begun.is_set()


async def test_one_prepares_when_the_other_leaves_and_begins_when_it_has_left():
    """The third waits until the second has the turn, however many there are."""
    turns, order = Turns(), []
    first, second, third = (Turn(turns) for _ in range(3))

    async def run(turn, name):
        await turn.prepare()
        order.append(f"{name} prepares")
        await turn.take()
        order.append(f"{name} begins")

    await first.prepare()
    await first.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run, second, "second")
        await settle()
        tasks.start_soon(run, third, "third")
        await settle()
        assert order == []
        first.leave()
        await settle()
        assert order == ["second prepares"]
        first.give()
        await settle()
        assert order == ["second prepares", "second begins"]
        second.leave()
        second.give()
    assert order[2:] == ["third prepares", "third begins"]


@pytest.mark.parametrize("whole", [False, True])
async def test_nobody_prepares_beside_a_turn_that_is_whole(whole):
    turns, prepared = Turns(whole=whole), anyio.Event()
    first, second = Turn(turns), Turn(turns)

    async def prepare():
        await second.prepare()
        prepared.set()

    await first.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prepare)
        first.leave()
        await settle()
        assert prepared.is_set() != whole
        first.give()
    assert prepared.is_set()


async def test_whoever_prepared_in_vain_lets_the_next_prepare():
    """Its run may fail before it begins, or be cancelled while it waits."""
    turns = Turns()
    first, second, third = (Turn(turns) for _ in range(3))
    await first.take()

    async def prepare():
        try:
            await second.prepare()
        finally:
            second.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(prepare)
        await settle()
        tasks.cancel_scope.cancel()
    first.leave()
    with anyio.fail_after(1):
        await third.prepare()
        third.give()
        await second.prepare()


async def test_waiting_in_vain_takes_it_from_nobody():
    """Who is cancelled while it waits leaves no gap, also when the turn comes at that moment."""
    turns = Turns()
    first, second, third = (Turn(turns) for _ in range(3))
    await first.take()

    async def take():
        try:
            await second.take()
        finally:
            second.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(take)
        await settle()
        first.give()  # handed over, but not yet taken
        tasks.cancel_scope.cancel()
    with anyio.fail_after(1):
        await third.take()


async def test_whom_somebody_looks_at_is_not_stopped():
    """It would look as if it had fallen over; others may be."""
    turns = Turns()
    first, second = Turn(turns), Turn(turns)
    free = anyio.Event()

    async def wait():
        await second.unwatched({"b"})
        await second.unwatched({"a", "b"})
        free.set()

    async with anyio.create_task_group() as tasks:
        with first.watching({"a"}):
            tasks.start_soon(wait)
            await settle()
            assert not free.is_set()
    assert free.is_set()


async def test_next_unit_begins_while_a_run_only_looks(world):
    """Its verdict waits for nobody; what needs Kopia, such as its retention, does."""
    one_point_only(world)
    turns = Turns()
    mine, next_one = Turn(turns), Turn(turns)
    await mine.take()
    run = await attempt(world, "r1", turn=mine)
    phases = []

    async def next_unit():
        await next_one.take()
        phases.append(run.course.phase)
        while await world.journal() is not None:
            await settle()
        phases.append(run.result)
        next_one.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_unit)
        result = await run.execute()
    assert phases == ["verify", None]
    assert (result.verdict, result.deleted) == ("success", 1)


async def test_next_unit_prepares_when_everything_is_stored(world):
    """Not in the window, and not beside Kopia: neither is to share the machine's two cores."""
    turns = Turns()
    mine, next_one = Turn(turns), Turn(turns)
    await mine.take()
    run = await attempt(world, "r1", turn=mine)
    seen = []

    async def next_unit():
        await next_one.prepare()
        seen.append((run.course.phase, world.states, run.snapshot is not None))
        next_one.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_unit)
        await run.execute()
    assert seen == [("flush", ["running", "running"], True)]


async def test_prepared_run_starts_no_kopia_and_stops_nobody_before_its_turn(world):
    """Its worker waits."""
    turns = Turns()
    other, mine = Turn(turns), Turn(turns)
    await other.take()
    other.leave()
    await mine.prepare()
    run = await attempt(world, "r1", turn=mine, listed=())
    asked = []
    for step in ("set-up", "launch"):
        world.program.at(step, lambda _, step=step: asked.append(step))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.execute)
        with anyio.fail_after(5):
            while not world.engine.order("worker"):
                await settle()
        await settle()
        early = [*asked, *world.engine.order("stop")]
        other.give()
    assert (early, asked) == ([], ["set-up", "launch"])
    assert run.result.verdict == "success"


@pytest.mark.parametrize("dump", [False, True])
async def test_prepared_run_asks_nothing_of_the_repository_before_its_turn(world, dump):
    """Each question is a Kopia: whoever has the turn would wait for it, and call itself busy."""
    if dump:
        world.engine.all[world.db].row.labels["kopi.dump"] = "postgres"
    one_point_only(world)
    listed = tuple(world.repository.contents.snapshots)
    turns = Turns()
    other, mine = Turn(turns), Turn(turns)
    await other.take()
    other.leave()
    await mine.prepare()
    run = await attempt(world, "r1", turn=mine, listed=listed)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.execute)
        with anyio.fail_after(5):
            while not turns.beginning or not (dump or world.engine.order("worker")):
                await settle()
        early = list(world.repository.calls)
        other.give()
    assert early == []
    assert "check_policy" in [method for method, _ in world.repository.calls]


async def test_time_that_a_run_waits_for_its_turn_is_not_its_own(world, monkeypatch):
    """Whoever has the turn may need it for long, and this run has done nothing yet."""
    world.run_timeout = 3600.0
    turns = Turns()
    other, mine = Turn(turns), Turn(turns)
    await other.take()
    other.leave()
    await mine.prepare()
    run = await attempt(world, "r1", turn=mine, listed=())
    loop, passed = asyncio.get_running_loop(), [0.0]
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + passed[0])
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run.execute)
        while not world.engine.order("worker"):
            await settle()
        await settle()
        passed[0] = 2 * world.run_timeout
        await settle()
        other.give()
    assert (run.result.verdict, run.result.message) == ("success", "")


async def test_two_tasks_of_a_run_may_wait_for_its_turn():
    """Neither waits for what the other has."""
    turns = Turns()
    first, second, third = (Turn(turns) for _ in range(3))
    await first.take()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second.take)
        tasks.start_soon(second.take)
        await settle()
        first.give()
        with anyio.fail_after(1):
            await second.take()
    second.give()
    with anyio.fail_after(1):
        await third.take()


async def test_run_that_deletes_nothing_ends_without_its_turn(world):
    """It needs no Kopia any more; the next unit has it until this one has ended."""
    turns = Turns()
    mine, next_one = Turn(turns), Turn(turns)
    await mine.take()
    run = await attempt(world, "r1", turn=mine)
    ended = anyio.Event()

    async def next_unit():
        await next_one.take()
        with anyio.fail_after(5):
            await ended.wait()
        next_one.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_unit)
        result = await run.execute()
        ended.set()
    assert (result.verdict, result.phases[-2].phase) == ("success", "keep")


async def test_member_that_falls_over_is_found_in_the_turn_of_the_next(world):
    """The manifest is pinned as bad when Kopia is free, and until then the run owes a verdict."""
    turns = Turns()
    mine, next_one = Turn(turns), Turn(turns)
    await mine.take()
    run = await attempt(world, "r1", turn=mine)
    owed = []

    async def next_unit():
        await next_one.take()
        world.engine.set_state(world.db, "exited", 1)
        await settle()
        owed.append((await world.journal()).run)
        assert world.repository.contents.snapshots[0].quarantine == ""
        next_one.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_unit)
        result = await run.execute()
    assert owed == ["r1"]
    assert (result.verdict, result.reason) == ("failed", "start")
    assert world.repository.contents.snapshots[0].quarantine == "start"


async def test_verdict_waits_for_its_turn_as_long_as_it_takes(world, monkeypatch):
    """The next unit's run may take hours; that is no trouble with the report of this one."""
    turns = Turns()
    mine, next_one = Turn(turns), Turn(turns)
    await mine.take()
    run = await attempt(world, "r1", turn=mine)
    loop, passed = asyncio.get_running_loop(), [0.0]
    real = loop.time
    monkeypatch.setattr(loop, "time", lambda: real() + passed[0])

    async def next_unit():
        await next_one.take()
        world.engine.set_state(world.db, "exited", 1)
        while not turns.ending:
            await settle()
        passed[0] = 10 * SETTLE_SECONDS
        await settle()
        next_one.give()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(next_unit)
        result = await run.execute()
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "start", None)
    assert world.repository.contents.snapshots[0].quarantine == "start"


async def test_list_of_the_batch_is_not_asked_for_again(world):
    """A run that is given the snapshots lists none: its own is read back through its manifest."""
    await (await attempt(world, "r1")).execute()
    listed = await world.repository.snapshots()
    lists = []

    async def count():
        lists.append(run.course.phase)

    world.repository.hook("snapshots", count)
    run = await attempt(world, "r2", listed=listed)
    result = await run.execute()
    assert (result.verdict, lists) == ("success", [])
    assert run.last_good.tag("run") == "r1"


async def test_policy_is_judged_while_the_worker_of_a_batch_starts(world):
    """Each waits for the other here; the worker takes the Kopia lock afterwards."""
    started, order = anyio.Event(), []

    async def judge():
        with anyio.fail_after(5):
            await started.wait()
        order.append("judged")

    @asynccontextmanager
    async def opened(plan):
        async with open_worker(plan) as session:
            started.set()
            yield session

    world.repository.hook("check_policy", judge)
    world.program.at("set-up", lambda _: order.append("set up"))
    run = await attempt(world, "r1", listed=())
    open_worker, run.house.access.open = run.house.access.open, opened
    result = await run.execute()
    assert (result.verdict, order) == ("success", ["judged", "set up"])


async def test_policy_that_is_not_ours_fails_a_run_of_a_batch_before_anybody_is_stopped(world):
    """Kopia is never started, and the worker is gone again."""
    launched = []
    world.program.at("launch", lambda _: launched.append(True))
    world.repository.fail("check_policy", RepositoryError("the policy in effect is not ours"))
    run = await attempt(world, "r1", listed=())
    result = await run.execute()
    assert (result.verdict, result.broke_in, launched) == ("failed", "check", [])
    assert "not ours" in result.message
    assert world.engine.order("stop", "start") == []
    assert await world.journal() is None
