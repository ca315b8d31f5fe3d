"""Modes: members that are frozen or left to write, alone and beside those that are stopped."""

from __future__ import annotations

from datetime import timedelta

import anyio
import msgspec
import pytest
from support.run_world import RunWorld

from kopiwatch.errors import EngineError, EngineUnreachable

pytestmark = pytest.mark.anyio

UP = ["running", "running"]


def modes(world: RunWorld, **by_name: str) -> None:
    """Give members their ``kopi.mode``."""
    for found in world.engine.all.values():
        if mode := by_name.get(found.row.name):
            found.row.labels["kopi.mode"] = mode


def tags(world: RunWorld) -> list[str]:
    return [snapshot.tag("mode") for snapshot in world.repository.contents.snapshots]


async def test_paused_unit_is_frozen_synced_read_and_thawed(world):
    """Nobody is stopped; the disk is synced once before and once inside the freeze."""
    modes(world, db="pause", web="pause")
    seen = {}
    world.program.at("go", lambda _: seen.update(go=world.states) and False)
    result = await world.run()
    assert (result.verdict, result.message) == ("success", "")
    assert seen["go"] == ["paused", "paused"]
    assert world.states == UP
    assert world.engine.order("stop", "start") == []
    assert world.program.steps == [
        "start",
        "set-up",
        "survey",
        "launch",
        "sync",
        "sync",
        "go",
        "flush",
    ]
    assert tags(world) == ["pause"]
    assert [(m.name, m.state) for m in result.members] == [("db", "started"), ("web", "started")]
    assert await world.journal() is None


async def test_freeze_comes_after_all_stops(world):
    """A stop takes long, a freeze does not: who is frozen is so for as short as it gets."""
    modes(world, web="stop", db="pause")
    await world.run()
    assert world.engine.order("stop", "pause", "unpause", "start") == [
        "stop web",
        "pause db",
        "unpause db",
        "start web",
    ]
    assert tags(world) == ["pause"]


async def test_journal_names_who_will_be_frozen(world):
    """Before the first freeze, with how it is held."""
    modes(world, db="pause", web="pause")
    seen = {}

    async def look():
        seen["journal"] = await world.journal()

    world.engine.hook("pause", "db", look)
    await world.run()
    assert [(m.name, m.how) for m in seen["journal"].members] == [("db", "pause"), ("web", "pause")]


async def test_live_member_is_left_alone_and_said(world):
    """Its data is read while it writes: a success that is tagged as what it is."""
    modes(world, db="live", web="live")
    result = await world.run()
    assert result.verdict == "success"
    assert world.engine.order("stop", "pause") == []
    assert world.program.steps == ["start", "set-up", "survey", "launch", "sync", "go", "flush"]
    assert tags(world) == ["live"]
    assert any("db writes on while its data is read" in line for line in result.warnings)


async def test_live_and_stopped_members_mix(world):
    """The weakest reading counts."""
    modes(world, db="live", web="stop")
    result = await world.run()
    assert (result.verdict, tags(world)) == ("success", ["live"])
    assert world.engine.order("stop", "start") == ["stop web", "start web"]


async def test_member_that_is_paused_already_stays_so(world):
    """It was not us who paused it."""
    world.engine.set_state(world.db, "paused")
    result = await world.run()
    assert result.verdict == "success"
    assert world.states == ["paused", "running"]
    assert tags(world) == ["pause"]
    assert world.program.steps.count("sync") == 2


async def test_freeze_that_is_refused_thaws_whoever_was_frozen(world):
    modes(world, db="pause", web="pause")
    world.engine.fail("pause", "web", EngineError("cannot pause: no cgroup freezer"))
    result = await world.run()
    assert (result.verdict, result.failed_in) == ("failed", "stop")
    assert "freezer" in result.message
    assert world.states == UP
    assert world.repository.contents.snapshots == []


async def test_pause_whose_answer_is_lost_is_undone(world):
    """Docker did it all the same."""
    modes(world, db="pause", web="pause")
    world.engine.fail("pause", "db", EngineUnreachable("cut off"), late=True)
    result = await world.run()
    assert result.verdict == "failed"
    assert world.states == UP


async def test_member_that_somebody_unpauses_during_the_read_makes_it_partial(world):
    modes(world, db="pause", web="pause")
    world.program.at("go", lambda _: world.engine.set_state(world.db, "running"))
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "unpaused db" in result.message
    assert world.states == UP


async def test_health_check_that_begins_with_the_freeze_holds_up_nobody(world):
    """Docker then tells of a frozen container only when that check has timed out."""
    modes(world, db="pause", web="pause")
    world.engine.probed.add(world.db)
    with anyio.fail_after(5):
        result = await world.run()
    assert (result.verdict, world.states) == ("success", UP), result.message


async def test_frozen_member_of_a_disturbed_read_is_not_looked_at_before_it_runs(world):
    """Whom somebody unpaused is another; both come back."""
    modes(world, db="pause", web="pause")
    world.engine.probed.add(world.db)
    world.program.at("go", lambda _: world.engine.set_state(world.web, "running"))
    with anyio.fail_after(5):
        result = await world.run()
    assert (result.verdict, result.reason, world.states) == ("partial", "interference", UP)


async def test_member_that_was_started_and_paused_again_makes_it_partial(world):
    """At the end of the read it is paused as it was; its StartedAt tells, once it runs."""
    modes(world, db="pause", web="pause")

    def restart(_):
        for state in ("exited", "running", "paused"):
            world.engine.set_state(world.db, state)
        found = world.engine.all[world.db]
        later = found.details.started_at + timedelta(seconds=1)
        found.details = msgspec.structs.replace(found.details, started_at=later)

    world.program.at("go", restart)
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "started or ended db" in result.message
    assert world.states == UP


async def test_restart_before_the_freeze_is_no_disturbance(world):
    """Stops come first and may take minutes: since when a member runs is asked after them."""
    modes(world, db="pause", web="stop")

    async def restart():
        later = world.time.now() + timedelta(seconds=1)
        found = world.engine.all[world.db]
        found.details = msgspec.structs.replace(found.details, started_at=later)

    world.engine.hook("stop", "web", restart)
    result = await world.run()
    assert (result.verdict, world.states) == ("success", UP), result.message


async def test_paused_member_that_ends_is_started_again(world):
    """As after a restart of Docker: it ran before, so it runs again."""
    modes(world, db="pause", web="pause")
    world.program.at("go", lambda _: world.engine.set_state(world.db, "exited"))
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert world.states == UP


async def test_unpause_that_fails_once_is_tried_again(world):
    modes(world, db="pause", web="pause")
    world.engine.fail("unpause", "db", EngineError("busy"))
    result = await world.run()
    assert (result.verdict, world.states) == ("success", UP), result.message


async def test_cancelled_freeze_is_undone(world):
    """A signal inside the window thaws everybody before anything else."""
    modes(world, db="pause", web="pause")
    scope = anyio.CancelScope()
    world.program.at("go", lambda _: scope.cancel() or True)
    with scope:
        await world.run()
    assert scope.cancelled_caught
    assert world.states == UP
    assert (await world.journal()) is None


@pytest.mark.parametrize(
    ("before", "now", "forced"),
    [
        ("stop", "stop", False),
        ("pause", "stop", False),
        ("stop", "pause", False),
        ("live", "stop", True),
        ("live", "pause", True),
        ("live", "live", False),
        ("stop", "live", False),
    ],
)
async def test_live_parent_forces_a_full_read_of_a_quiet_one(world, before, now, forced):
    """A file written through mmap can look unchanged since a live read."""
    modes(world, db=before, web=before)
    await world.run(run="r1")
    modes(world, db=now, web=now)
    await world.run(run="r2")
    assert ("--force-hash=100" in world.program.argv) is forced
    assert tags(world) == [before, now]


@pytest.mark.parametrize("mode", ["stop", "pause", "live"])
async def test_source_in_memory_is_read_whole_each_time(world, mode):
    """A tmpfs moves no times when a program writes by mmap."""
    modes(world, db=mode, web=mode)
    world.program.volatile = ("volumes/data",)
    await world.run()
    assert "--force-hash=100" in world.program.argv


async def test_sync_that_fails_fails_the_run_and_thaws(world):
    modes(world, db="pause", web="pause")

    def refuse(worker):
        if world.states == ["paused", "paused"]:
            world.program._say(worker, "error", reason="sync", text="cannot sync: I/O error")
            return True
        return False

    world.program.at("sync", refuse)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "worker-sync")
    assert world.states == UP
    assert world.repository.contents.snapshots == []


async def test_member_that_restarts_over_and_over_need_not_run_on(world):
    """It did not before; the data is good, and it is said."""
    world.engine.set_state(world.web, "restarting")
    world.program.at("flush", lambda _: world.engine.set_state(world.web, "restarting"))
    result = await world.run()
    assert result.verdict == "success"
    assert "web restarts over and over" in result.warnings


async def test_run_that_takes_too_long_ends_and_brings_back(world):
    """The overall deadline, in a phase that has none of its own."""
    world.program.hangs("flush")
    world.run_timeout = 0.2
    result = await world.run()
    assert (result.verdict, result.reason, result.failed_in) == ("failed", "deadline", "flush")
    assert "KOPIWATCH_RUN_TIMEOUT" in result.message
    assert world.states == UP
    assert world.engine.running_workers == ()
