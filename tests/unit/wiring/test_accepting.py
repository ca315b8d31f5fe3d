"""Accepting a refused point: which one, why it was refused, and what it is afterwards."""

from __future__ import annotations

import msgspec
import pytest
from support.run_world import RunWorld

from kopiwatch.backup.earlier import StoredRecipe
from kopiwatch.backup.plausible import Terms
from kopiwatch.errors import EngineError, RunError, UnknownUnit, UsageError
from kopiwatch.restore.point import points
from kopiwatch.wiring.accepting import accept, choose, look_at

pytestmark = pytest.mark.anyio

EXPECTED = ("recipe", "volumes/data", "volumes/files")
RECIPE = msgspec.json.encode(StoredRecipe("shop", EXPECTED, Terms(names=("shop",))))


@pytest.fixture
def world(tmp_path) -> RunWorld:
    """A unit with a good point and volumes that can be emptied."""
    return RunWorld(tmp_path)


def found(world):
    return points(world.repository.contents.snapshots)


async def look(world, source: str = ""):
    snapshots = await world.repository.snapshots()
    return await look_at(world.repository, choose("shop", points(snapshots)), snapshots, source)


async def empty(world, *sources: str) -> None:
    """A good run, then one without the content of these sources."""
    world.program.trees["recipe"] = {"unit.json": RECIPE}
    await world.run(run="r1")
    world.program.trees |= {f"volumes/{name}": {} for name in sources}
    await world.run(run="r2")


async def test_newest_refused_run_is_the_one(world):
    """Its sources are found again from the repository alone, with their figures."""
    await empty(world, "data")
    await world.run(run="r3")
    refused = await look(world)
    assert refused.point.run == "r3"
    assert [(s.path, s.reason, s.files_before) for s in refused.sources] == [
        ("volumes/data", "empty", 1)
    ]
    assert "7 B → 0 files" in refused.sentences[0]


async def test_accepted_point_is_complete_and_what_later_runs_are_compared_with(world):
    """One change of its manifest; the next run is a success."""
    await empty(world, "data")
    refused = await look(world)
    taken = await accept(world.repository, refused.point)
    assert taken.pins == ("kopiwatch-accepted-source-empty",)
    good, now = found(world)
    assert (good.state, good.accepted) == ("complete", "")
    assert (now.run, now.state, now.accepted) == ("r2", "complete", "source-empty")
    assert [call for call in world.repository.calls if call[0] == "pin"][-1][1][1:] == (
        "kopiwatch-accepted-source-empty",
        "kopiwatch-bad-source-empty",
    )
    assert (await world.run(run="r3")).verdict == "success"


async def test_nothing_refused_is_a_usage_error(world):
    """Neither before the first refusal nor once it was accepted, or good data came again."""
    await world.run(run="r0")
    with pytest.raises(UsageError, match="nothing was refused"):
        choose("shop", found(world))
    await empty(world, "data")
    world.program.trees.pop("volumes/data")
    await world.run(run="r4")
    with pytest.raises(UsageError, match="nothing was refused"):
        choose("shop", found(world))


async def test_unknown_unit_names_those_that_there_are(world):
    """A typing error is not a refusal."""
    await world.run()
    with pytest.raises(UnknownUnit) as caught:
        choose("shopp", found(world))
    assert "'shop'" in caught.value.hint


async def test_other_fault_cannot_be_accepted(world):
    """Members that are down are no matter of taste: exit 1, said which, nothing changed."""
    await world.run(run="r1")
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)
    await world.run(run="r2")
    before = list(world.repository.contents.snapshots)
    with pytest.raises(RunError, match=r"r2 \(start\)") as caught:
        choose("shop", found(world))
    assert caught.value.exit_code == 1
    assert world.repository.contents.snapshots == before


async def test_one_source_is_accepted_only_if_it_is_the_only_one(world):
    """By its place in the tree or its name; others are named."""
    await empty(world, "data", "files")
    for name in ("data", "volumes/data"):
        with pytest.raises(UsageError, match="volumes/files"):
            await look(world, name)
    with pytest.raises(UsageError, match="not what run r2"):
        await look(world, "other")
    assert len((await look(world)).sources) == 2


async def test_one_source_that_is_the_only_one_is_enough(world):
    """The guard that the hint of the run suggests."""
    await empty(world, "data")
    assert (await look(world, "volumes/data")).sources == (await look(world, "data")).sources


async def test_tree_that_lacks_more_than_its_verdict_says_is_not_accepted(world):
    """A pin may lie; the tree does not."""
    await empty(world, "data")
    files = {"recipe/unit.json": RECIPE, "volumes/data/": b""}
    lying = world.repository.add_snapshot("/mnt/shop", files, tags={"run": "r9", "mode": "stop"})
    await world.repository.pin(lying.id, "kopiwatch-bad-source-empty")
    with pytest.raises(RunError, match="volumes/files is missing"):
        await look(world)
