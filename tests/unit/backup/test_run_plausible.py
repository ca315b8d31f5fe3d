"""A run beside the last good one: what is refused, what it is called, and what comes after."""

from __future__ import annotations

import json

import pytest

from kopiwatch.backup.plausible import FLOOR_BYTES
from kopiwatch.errors import EngineError
from kopiwatch.testing.engine import volume_mount

pytestmark = pytest.mark.anyio

LARGE = {"table": b"x" * (2 * FLOOR_BYTES)}


async def test_emptied_source_is_partial_and_quarantined(world):
    """Figures, hint, and a pin that says the same."""
    assert (await world.run(run="r1")).verdict == "success"
    world.program.trees["volumes/data"] = {}
    result = await world.run(run="r2")
    assert (result.verdict, result.reason, result.exit_code) == ("partial", "source-empty", 1)
    assert "volumes/data is empty: 1 file, 7 B → 0 files, 0 B" in result.message
    assert result.hint.endswith("kopiwatch accept shop volumes/data")
    good, refused = world.repository.contents.snapshots
    assert (good.complete, refused.quarantine) == (True, "source-empty")
    assert {s.path: s.reason for s in result.sources}["volumes/data"] == "empty"


async def test_collapsed_source_is_refused_and_its_label_can_allow_it(world):
    """kopi.collapse=off is the operator's word."""
    world.program.trees["volumes/data"] = LARGE
    await world.run(run="r1")
    world.program.trees["volumes/data"] = {"table": b"x"}
    assert (await world.run(run="r2")).reason == "source-collapsed"
    world.engine.all[world.db].row.labels["kopi.collapse"] = "off"
    assert (await world.run(run="r3")).verdict == "success"


async def test_removed_mount_has_vanished_until_a_label_says_that_it_was_meant(world):
    """A mount that is gone is a fault; one that is left out is a note."""
    world.engine.remove(world.db)
    world.db = world.member("db", "data")
    both = (volume_mount("data", "/data"), volume_mount("more", "/more"))
    labels = dict(world.engine.all[world.db].row.labels)
    world.engine.remove(world.db)
    world.db = world.engine.add_container("db", labels=labels, mounts=both)
    await world.run(run="r1")
    world.engine.remove(world.db)
    world.db = world.engine.add_container("db", labels=labels, mounts=both[:1])
    result = await world.run(run="r2")
    assert (result.verdict, result.reason) == ("partial", "source-vanished")
    assert "volumes/more has vanished: 1 file, 7 B before" in result.message
    world.engine.remove(world.db)
    excluded = {**labels, "kopi.exclude": "more"}
    world.db = world.engine.add_container("db", labels=excluded, mounts=both)
    result = await world.run(run="r3")
    assert result.verdict == "success"
    assert any("volumes/more is left out" in warning for warning in result.warnings)
    assert not any("left out" in each for each in (await world.run(run="r4")).warnings)


async def test_refused_run_is_not_what_the_next_one_is_compared_with(world):
    """An empty volume stays refused, however often it is read."""
    await world.run(run="r1")
    world.program.trees["volumes/data"] = {}
    for run in ("r2", "r3"):
        assert (await world.run(run=run)).reason == "source-empty"
    del world.program.trees["volumes/data"]
    assert (await world.run(run="r4")).verdict == "success"


async def test_worse_fault_gives_the_reason_and_both_are_told(world):
    """A pin source-empty means that nothing else was wrong."""
    await world.run(run="r1")
    world.program.trees["volumes/data"] = {}
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)
    result = await world.run(run="r2")
    assert (result.verdict, result.reason) == ("failed", "start")
    assert "volumes/data is empty" in result.message
    assert world.repository.contents.snapshots[-1].quarantine == "start"


async def test_missing_source_comes_before_an_empty_one(world):
    """What is not stored at all is the reason."""
    await world.run(run="r1")
    world.program.trees["volumes/data"] = {}
    world.program.missing.add("volumes/files")
    result = await world.run(run="r2")
    assert (result.verdict, result.reason) == ("partial", "source-missing")


async def test_errors_that_the_policy_ignores_are_a_warning_with_their_count(world):
    """A success that left something out says so, per source."""
    world.program.ignored = {"volumes/data": 2, "volumes/files": 1}
    result = await world.run()
    assert result.verdict == "success"
    told = [warning for warning in result.warnings if "could not be read" in warning]
    assert told == [
        "volumes/data: 2 entries could not be read and left out, as Kopia's policy says",
        "volumes/files: 1 entry could not be read and left out, as Kopia's policy says",
    ]
    assert [source.ignored for source in result.sources] == [0, 2, 1]


async def test_recipe_tells_what_the_sources_were_held_to(world):
    """Any host can judge again, without this one's labels."""
    world.engine.all[world.db].row.labels["kopi.collapse"] = "7%"
    await world.run()
    recipe = json.loads((world.state.recipe("shop") / "unit.json").read_text())
    assert recipe["plausibility"] == {"collapse": 7, "left_out": {}, "names": ["db", "shop", "web"]}


async def test_refused_source_does_not_make_the_next_window_long(world):
    """It was read at rest like any other: files that did not change are not read again."""
    await world.run(run="r1")
    world.program.trees["volumes/data"] = {}
    await world.run(run="r2")
    await world.run(run="r3")
    assert "--force-hash=100" not in world.program.argv
