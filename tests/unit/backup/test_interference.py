"""Who disturbed the read: seen by list, by inspect, and by what Docker remembers."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest

from kopiwatch.errors import EngineDenied
from kopiwatch.testing.engine import volume_mount

pytestmark = pytest.mark.anyio


def passer_by(world, name: str = "passer", volume: str = "data", *, writable: bool = True) -> None:
    """A container that starts, writes, ends, and is removed, as ``docker run --rm`` does."""
    mounts = (volume_mount(volume, "/x", writable=writable),)
    world.engine.remove(world.engine.add_container(name, mounts=mounts))


def work_a_while(world, job: str) -> None:
    """A member that is down is started, and ends."""
    world.engine.set_state(job, "running")
    world.engine.set_state(job, "exited")
    found = world.engine.all[job]
    found.details = msgspec.structs.replace(found.details, started_at=datetime.now(UTC))


def while_read(world, action) -> None:
    world.program.at("go", lambda _: bool(action()))


async def test_writer_that_came_and_went_during_the_read_makes_it_partial(world):
    """Nobody sees it at the end of the read; Docker's events do."""
    while_read(world, lambda: passer_by(world))
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "passer ran and could write" in result.message
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "interference"


@pytest.mark.parametrize("given", [{"writable": False}, {"volume": "elsewhere"}])
async def test_passer_by_that_could_not_write_to_a_source_is_none(world, given):
    while_read(world, lambda: passer_by(world, **given))
    result = await world.run()
    assert (result.verdict, result.warnings) == ("success", ())


async def test_writer_that_came_and_went_before_the_window_is_none(world):
    """Its last byte was written before the first member was held."""
    world.program.at("launch", lambda _: bool(passer_by(world)))
    assert (await world.run()).verdict == "success"


@pytest.mark.parametrize("removed", [False, True])
async def test_member_that_came_and_went_before_the_window_is_none(world, removed):
    """A job of the unit runs now and then, also between a look at it and the first stop."""
    job = world.member("job", "data", state="exited")

    def work(_) -> bool:
        work_a_while(world, job)
        if removed:
            world.engine.remove(job)
        return False

    world.program.at("launch", work)
    result = await world.run()
    assert (result.verdict, result.message) == ("success", "")


async def test_member_that_came_and_went_during_the_read_makes_it_partial(world):
    """It is down at both ends of the window, and was not in between."""
    job = world.member("job", "data", state="exited")
    while_read(world, lambda: work_a_while(world, job))
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "job ran for a while" in result.message


async def test_writer_that_ran_at_the_beginning_counts_though_it_ended(world):
    """It wrote while the others were held; that holds for binds, too."""
    other = world.engine.add_container("other", mounts=(volume_mount("data", "/x"),))
    while_read(world, lambda: world.engine.remove(other))
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "other" in result.message


async def test_more_events_than_docker_keeps_are_a_doubt_and_no_more(world):
    """A busy host keeps its backups; the point says what it could not know."""

    def many() -> None:
        for number in range(60):
            passer_by(world, f"p{number}", "elsewhere")

    while_read(world, many)
    result = await world.run()
    assert result.verdict == "success"
    assert any("more events than it keeps" in line for line in result.warnings)


async def test_docker_that_refuses_its_events_is_a_doubt_and_no_more(world):
    """List and inspect alone establish the read, as they always did."""
    world.engine.fail("mounted", "*", EngineDenied("no events for you"))
    result = await world.run()
    assert result.verdict == "success"
    assert any("no events for you" in line for line in result.warnings)
