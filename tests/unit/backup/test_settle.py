"""Replay: what an interrupted run left is mended, and what is somebody else's is left alone."""

from __future__ import annotations

from datetime import timedelta

import anyio
import msgspec
import pytest
from support.run_world import NOON

from kopiwatch.backup.journal import Held, Journal
from kopiwatch.backup.settle import bring_all_back, quarantine, readable, settle_verdicts
from kopiwatch.errors import EngineError, RepositoryUnreachable

pytestmark = pytest.mark.anyio

SOURCE = "kopiwatch@testhost:/mnt/shop"


def held(world, container: str, level: int = 0, **more: object) -> Held:
    row = world.engine.all[container].row
    given = Held(
        id=row.id,
        name=row.name,
        project=row.project,
        service=row.service,
        number=row.number,
        how="stop",
        level=level,
        await_healthy=(),
        healthy_before=False,
        start_timeout=300,
        stop_timeout=10,
    )
    return msgspec.structs.replace(given, **more)


async def left(world, *members: Held, unit: str = "shop", ago: float = 3600) -> None:
    since = NOON - timedelta(seconds=ago)
    await world.state.journals.write(Journal(unit, "r0", since, SOURCE, members))


async def replay(world):
    return await bring_all_back(world.engine, world.state.journals, world.time.clock)


async def test_replay_thaws_a_member_without_looking_at_it(world):
    """Docker may not tell of a frozen container before its health check has timed out."""
    await left(world, held(world, world.db, how="pause"))
    world.engine.set_state(world.db, "paused")
    world.engine.probed.add(world.db)
    with anyio.fail_after(5):
        (replayed,) = await replay(world)
    assert (world.engine.state(world.db), replayed.owed) == ("running", ())


async def test_replay_starts_what_was_held_in_order(world):
    """db before web, and the debt is off the books."""
    await left(world, held(world, world.web, 1), held(world, world.db, 0))
    world.engine.set_state(world.db, "exited")
    world.engine.set_state(world.web, "exited")
    (done,) = await replay(world)
    assert world.engine.order("start") == ["start db", "start web"]
    assert "r0 left members down" in str(done)
    assert (await world.journal()).members == ()
    assert not (await world.journal()).judged


async def test_replay_of_nothing_does_nothing(world):
    """No journal, no call."""
    assert await replay(world) == ()
    assert world.engine.calls == []


async def test_replay_goes_on_past_a_sick_member_and_a_sick_unit(world):
    """One that does not start blocks nobody and stays on the books."""
    other = world.engine.add_container("other", state="exited")
    await left(world, held(world, world.db), held(world, world.web))
    await left(world, held(world, other), unit="zoo")
    for container in (world.db, world.web):
        world.engine.set_state(container, "exited")
    world.engine.fail("start", "db", EngineError("no"), times=99)
    first, _ = await replay(world)
    assert world.engine.state(world.web) == "running"
    assert world.engine.state(other) == "running"
    assert first.owed == ("db",)
    assert "STILL DOWN: db" in str(first)
    assert [member.name for member in (await world.journal()).members] == ["db"]


async def test_replay_past_an_unreadable_journal_starts_the_others_and_says_so(world):
    """A truncated file is told with the way out; its unit is refused by its next run."""
    await left(world, held(world, world.db), unit="zoo")
    world.engine.set_state(world.db, "exited")
    (world.state.journals.folder / "shop.json").write_bytes(b'{"unit": "sh')
    told = [str(done) for done in await replay(world)]
    assert any("shop.json cannot be read" in text and "remove the file" in text for text in told)
    assert world.engine.state(world.db) == "running"
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "journal")


async def test_replay_that_cannot_be_noted_starts_the_others_and_says_so(world, monkeypatch):
    """A full disk keeps nobody down, of no unit; what is owed stays on the books."""
    await left(world, held(world, world.db), unit="app")
    await left(world, held(world, world.web), unit="zoo")
    for member in (world.db, world.web):
        world.engine.set_state(member, "exited")

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    told = [str(done) for done in await replay(world)]
    assert world.states == ["running", "running"]
    assert ["started again" in each and "No space left" in each for each in told] == [True, True]
    assert (await world.journal("app")).members


async def test_replay_after_the_clock_was_set_back_ends(world):
    """Who is owed comes at once, and the watch for late stops takes no longer than a stop does."""
    await left(world, held(world, world.db), held(world, world.web), ago=-86400)
    world.engine.set_state(world.db, "exited")
    await replay(world)
    assert world.states == ["running", "running"]
    assert 0 < world.time.passed < 30
    assert (await world.journal()).members == ()


async def test_replay_watches_a_member_that_still_runs_while_its_stop_may_be_under_way(world):
    """Docker carries on with the stop of a process that died; then it is started after all."""
    await left(world, held(world, world.db), ago=1)
    sleeps = iter(range(100))

    async def sleep(seconds: float) -> None:
        world.time.passed += seconds
        if next(sleeps) == 3:
            world.engine.set_state(world.db, "exited")

    clock = msgspec.structs.replace(world.time.clock, sleep=sleep)
    await bring_all_back(world.engine, world.state.journals, clock)
    assert world.engine.state(world.db) == "running"
    assert world.engine.order("start") == ["start db", "start db"]


async def test_replay_does_not_watch_when_every_stop_must_be_over(world):
    """An hour later nothing is under way."""
    await left(world, held(world, world.db), ago=3600)
    await replay(world)
    assert world.time.slept == []


async def test_replay_leaves_a_running_successor_alone(world):
    """Somebody recreated it under the same Compose identity."""
    await left(world, held(world, world.db))
    world.engine.remove(world.db)
    world.member("db", "data")
    (done,) = await replay(world)
    assert done.members[0].state == "taken-over"
    assert (await world.journal()).members == ()


async def test_replay_leaves_a_removed_member_alone(world):
    """Gone without a successor: nothing to start, nothing owed."""
    await left(world, held(world, world.db))
    world.engine.remove(world.db)
    (done,) = await replay(world)
    assert done.members[0].state == "gone"


async def test_settle_pins_the_manifest_of_an_interrupted_run(world):
    """Its verdict was never known, so it is no restore point; then nothing is owed."""
    world.repository.add_snapshot("/mnt/shop", {"recipe/": b""}, tags={"run": "r0"})
    world.repository.add_snapshot("/mnt/shop", {"recipe/": b""}, tags={"run": "older"})
    await left(world)
    assert await settle_verdicts(world.repository, world.state.journals) == ("r0 of unit shop",)
    states = {s.tag("run"): s.quarantine for s in world.repository.contents.snapshots}
    assert states == {"r0": "interrupted", "older": ""}
    assert (await world.journal()) is None


async def test_settle_without_the_repository_keeps_the_journal(world):
    """It is tried again by the next command."""
    await left(world)
    world.repository.fail("snapshots", RepositoryUnreachable("gone"))
    with pytest.raises(RepositoryUnreachable):
        await settle_verdicts(world.repository, world.state.journals)
    assert (await world.journal()) is not None


async def test_quarantine_twice_pins_once(world):
    """Pinning changes the id: the new one is returned."""
    stored = world.repository.add_snapshot("/mnt/shop", {}, tags={"run": "r0"})
    first = await quarantine(world.repository, SOURCE, "r0", "Some Reason!")
    assert first != stored.id
    assert await quarantine(world.repository, SOURCE, "r0", "other") == first
    assert world.repository.contents.snapshots[0].quarantine == "some-reason"


async def test_readable_leaves_out_what_cannot_be_read(world):
    """One sick file does not hide the others."""
    await left(world, held(world, world.db))
    (world.state.journals.folder / "zoo.json").write_bytes(b"{")
    assert list(await readable(world.state.journals)) == ["shop"]


async def test_replay_leaves_alone_who_was_started_since(world):
    """Another StartedAt: somebody took over, and stopped it again on purpose."""
    ran = world.engine.all[world.db].details.started_at
    await left(world, held(world, world.db, started_at=ran - timedelta(hours=1)))
    world.engine.set_state(world.db, "exited")
    (done,) = await replay(world)
    assert done.members[0].state == "taken-over"
    assert world.engine.order("start") == []
    assert (await world.journal()).members == ()


async def test_replay_watches_for_all_levels_of_stops(world):
    """Levels stop one after another: the last stop may begin late."""
    await left(world, held(world, world.db, 0), held(world, world.web, 1), ago=13)
    await replay(world)
    assert sum(world.time.slept) == pytest.approx(11, abs=0.5)


async def test_replay_is_not_to_be_interrupted(world):
    """A signal in the middle of it leaves nobody down."""
    await left(world, held(world, world.db), held(world, world.web))
    for container in (world.db, world.web):
        world.engine.set_state(container, "exited")
    with anyio.CancelScope() as scope:
        world.engine.hook("start", "db", scope.cancel)
        await replay(world)
    assert world.states == ["running", "running"]
    assert (await world.journal()).members == ()


async def test_replay_past_a_member_that_docker_cannot_show_goes_on(world):
    """It stays owed; the others run."""
    await left(world, held(world, world.db), held(world, world.web))
    for container in (world.db, world.web):
        world.engine.set_state(container, "exited")
    world.engine.fail("inspect", "db", EngineError("internal error"))
    (done,) = await replay(world)
    assert world.engine.state(world.web) == "running"
    assert done.owed == ("db",)


async def test_settle_knows_the_reason_of_a_run_that_had_a_verdict(world):
    """Its repository was away when it was to be recorded."""
    world.repository.add_snapshot("/mnt/shop", {"recipe/": b""}, tags={"run": "r0"})
    await world.state.journals.write(Journal("shop", "r0", NOON, SOURCE, (), reason="health"))
    await settle_verdicts(world.repository, world.state.journals)
    assert world.repository.contents.snapshots[0].quarantine == "health"
