"""The right to change something: who gets it, and what is done before anything else."""

from __future__ import annotations

import msgspec
import pytest
from anyio.to_thread import run_sync as in_thread
from support.desk_world import desk_world

from kopiwatch import wiring
from kopiwatch.errors import BusyError, EngineError, EngineUnreachable, RunError
from kopiwatch.kopia.lock import FileLock, holder
from kopiwatch.testing.engine import ANY

pytestmark = pytest.mark.anyio
UP = ["running", "running"]


@pytest.fixture
async def world(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as made:
        yield made


def changing(world, where):
    return wiring.changing(world.config, where, "backup shop", world.said)


async def test_lock_then_strays_then_replay(world):
    """In this order: a stray may still read what a member would write to."""
    order = []
    await world.crash(world.db)
    held = []
    world.engine.hook("workers", ANY, lambda: order.append("strays"))
    world.engine.hook("start", "db", lambda: order.append("start"))
    async with wiring.docker(world.config) as where, changing(world, where) as (state, identity):
        held.append(identity)
        assert world.states == UP
        assert (state.path, held) == (world.state.path, [world.uuid])
        with pytest.raises(BusyError) as caught:
            await FileLock(state.run_lock).acquire()
    assert order == ["strays", "start"]
    assert "backup shop" in caught.value.message


async def test_busy_is_said_at_once_and_nothing_is_touched(world):
    """That run is alive: it brings back what it stopped."""
    await world.crash(world.db)
    other = FileLock(world.state.run_lock, command="run")
    async with other.hold(), wiring.docker(world.config) as where:
        with pytest.raises(BusyError):
            async with changing(world, where):
                pass
    assert world.states == ["exited", "running"]
    assert world.engine.order("start", "workers") == []


async def test_strays_that_cannot_be_ended_end_it(world):
    """Nobody is started, nothing is changed, and the lock is free again."""
    await world.crash(world.db)
    world.engine.fail("workers", ANY, EngineError("the list of workers cannot be read"))
    async with wiring.docker(world.config) as where:
        with pytest.raises(EngineError, match="list of workers"):
            async with changing(world, where):
                pass
    assert world.states == ["exited", "running"]
    assert await in_thread(holder, world.state.run_lock) is None


async def test_member_that_does_not_start_is_said_as_an_error(world):
    """Whoever works on knows that it is still down."""
    await world.crash(world.db)
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)
    async with wiring.docker(world.config) as where, changing(world, where):
        pass
    (message,) = world.said.of("replay")
    assert "STILL DOWN: db" in message
    (level,) = [facts["level"] for facts in world.said.facts if "level" in facts]
    assert level == "error"


async def test_restore_needs_docker_only_for_what_is_owed(world):
    """A fresh machine has none."""
    world.docker_away = EngineUnreachable("there is no Docker")
    async with wiring.without_docker(world.config, "restore", world.said) as state:
        assert state.path == world.state.path
    assert world.said.events == []


async def test_restore_starts_what_is_owed_first(world):
    """As every command that changes something."""
    await world.crash(world.db)
    async with wiring.without_docker(world.config, "restore", world.said):
        assert world.states == UP


async def test_restore_with_a_dead_docker_goes_on_and_says_what_is_down(world):
    """The debt stays on the books."""
    await world.crash(world.db)
    world.docker_away = EngineUnreachable("Docker does not answer")
    async with wiring.without_docker(world.config, "restore", world.said):
        pass
    assert world.said.of("owed") == ["members of shop are still down: Docker does not answer"]
    assert (await world.journal()).members != ()


async def test_runs_without_a_durable_verdict_are_unfinished(world):
    """Alive or interrupted: no restore point yet. One that only owes a start has its verdict."""
    assert await wiring.unfinished(world.config) == frozenset()
    await world.crash(world.db, run="r7")
    assert await wiring.unfinished(world.config) == {"r7"}
    journal = await world.journal()
    await world.state.journals.write(msgspec.structs.replace(journal, judged=True))
    assert await wiring.unfinished(world.config) == frozenset()


async def test_settled_verdicts_are_said(world):
    """Such a run is no restore point, on any host."""
    world.repository.add_snapshot("/mnt/shop", tags={"run": "r7"})
    await world.crash(run="r7")
    await wiring.settle(world.repository, world.state, world.said)
    assert world.said.of("settled") == [
        "run r7 of unit shop was interrupted before its verdict: not a restore point"
    ]
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "interrupted"
    assert await wiring.unfinished(world.config) == frozenset()


async def test_unit_whose_journal_cannot_be_read_may_be_owed_something(world):
    """Nothing that was read is not the same as nothing that is owed."""
    await wiring.refuse_owed(world.config, "shop")
    folder = world.state.journals.folder
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("shop.json", "shop.copy"):
        (folder / name).write_text("{")
    with pytest.raises(RunError) as caught:
        await wiring.refuse_owed(world.config, "shop")
    assert "cannot be read" in caught.value.message
