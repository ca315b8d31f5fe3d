"""The walk of the sources within a run: beside Kopia's start, before the window."""

from __future__ import annotations

import pytest

from kopiwatch.backup.run import Run
from kopiwatch.backup.survey import SourceFigures, Survey, kept_aside
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio

UP = ["running", "running"]


async def executed(world, run="r1"):
    """The run after its end, and its result."""
    rows = await world.engine.containers()
    (unit,) = discover(rows).units
    made = Run(await world.house(), unit, rows, run)
    return made, await made.execute()


async def test_run_keeps_the_figures_of_its_sources(world):
    """One order for all sources; the first run takes everything as new."""
    world.program.trees = {"volumes/data": {"a": b"12345", "b": b"1"}}
    run, result = await executed(world)
    assert result.verdict == "success"
    (data, files) = run.survey.sources
    assert (data.path, data.files, data.bytes, data.largest_changed) == ("volumes/data", 2, 6, 5)
    assert files.path == "volumes/files"
    assert (run.survey.changed_files, run.survey.changed_bytes) == (3, 13)
    assert run.survey.since == 0


async def test_later_run_asks_for_what_changed_since_the_last_good_one(world):
    """Since its snapshot began, in seconds."""
    await executed(world)
    (first,) = await world.repository.snapshots()
    run, _ = await executed(world, "r2")
    assert run.survey.since == first.start_time.timestamp()


async def test_walk_ends_before_kopia_is_launched(world):
    """What it found decides how the window is kept short."""
    run, result = await executed(world)
    assert result.verdict == "success"
    assert run.survey.changed_files
    assert world.program.steps[:4] == ["start", "set-up", "survey", "launch"]


@pytest.mark.parametrize("reason", ["stuck", "attributes"])
async def test_walk_that_cannot_be_done_fails_the_run_before_the_window(world, reason):
    """With a hint of what to look at."""

    def refuse(worker):
        world.program._say(worker, "error", reason=reason, text="it cannot be done")
        return True

    world.program.at("survey", refuse)
    _, result = await executed(world)
    assert (result.verdict, result.reason) == ("failed", f"worker-{reason}")
    assert result.hint
    assert world.engine.order("stop") == []
    assert world.states == UP


async def test_walk_with_a_strange_result_fails_the_run(world):
    """Words that are not understood are no figures."""

    def strange(worker):
        world.program._say(worker, "surveyed", result={"sources": 1})
        return True

    world.program.at("survey", strange)
    _, result = await executed(world)
    assert (result.verdict, result.reason) == ("failed", "worker-protocol")
    assert world.engine.order("stop") == []


async def test_names_that_collide_fail_the_run_before_the_window(world):
    """The sentence names unit, source and both names."""
    world.program.found = {"volumes/data": {"collisions": [["a/caf\\xe9", "a/caf\\xe8"]]}}
    _, result = await executed(world)
    assert (result.verdict, result.reason) == ("failed", "names-collide")
    for part in ('"a/caf\\xe9"', '"a/caf\\xe8"', "volumes/data"):
        assert part in result.message
    assert "kopi.exclude" in result.hint
    assert world.engine.order("stop") == []
    assert await world.repository.snapshots() == ()


async def test_names_that_kopia_keeps_for_itself_fail_the_run_before_the_window(world):
    """The sentence names unit, source and entry, and says what to do."""
    world.program.found = {"volumes/data": {"placeholders": ["a/x.kopia-entry"]}}
    _, result = await executed(world)
    assert (result.verdict, result.reason) == ("failed", "names-reserved")
    assert "a/x.kopia-entry in volumes/data" in result.message
    assert "rename it" in result.hint
    assert world.engine.order("stop") == []
    assert await world.repository.snapshots() == ()


async def test_unit_with_a_name_that_kopia_keeps_for_itself_is_stopped_by_no_run(world):
    """Its tree is mounted by that name, and Kopia would refuse it in the window."""
    for each in (world.db, world.web):
        world.engine.all[each].row.labels["kopi.unit"] = "shop.kopia-entry"
    result = await world.run("shop.kopia-entry")
    assert (result.verdict, result.reason) == ("failed", "names-reserved")
    assert "kopi.unit" in result.hint
    assert world.engine.order("stop") == []


async def test_attributes_that_could_not_be_read_are_a_warning(world):
    """The run is a success: what Kopia keeps is stored."""
    world.program.found = {"volumes/data": {"unread": 2, "unread_example": "x: Permission denied"}}
    _, result = await executed(world)
    assert result.verdict == "success"
    (warning,) = result.warnings
    assert "volumes/data" in warning
    assert "2 entries" in warning
    assert "x: Permission denied" in warning


async def test_what_is_kept_aside_is_one_line_and_no_warning(world):
    """Restore puts it back, so nobody need do anything."""
    world.program.found = {"volumes/data": {"kept_aside": {"fifo": 2, "xattrs": 1}}}
    _, result = await executed(world)
    assert result.warnings == ()
    (line,) = [text for action, text in world.said.events if action == "survey"]
    assert "1 entry with extended attributes, 2 FIFOs" in line


def test_line_of_what_is_kept_aside_adds_up_and_is_empty_for_nothing():
    """Over all sources."""
    one, two = (
        SourceFigures(f"volumes/{name}", kept_aside={"hard-link": 1, "name": 1}) for name in "ab"
    )
    assert kept_aside(Survey()) == ""
    assert kept_aside(Survey(sources=(one,))) == (
        "kept aside for a restore: 1 file with several names, 1 name that is not UTF-8"
    )
    assert "2 files with several names" in kept_aside(Survey(sources=(one, two)))


async def test_worker_may_write_to_the_folder_of_lists_alone(world):
    """Inside the recipe's own folder, which it has in its tree read-only."""
    mounts = []
    world.program.at("survey", lambda worker: mounts.extend(worker.spec.mounts) and False)
    await executed(world)
    writable = {mount.target: mount.source for mount in mounts if mount.writable}
    folder = "/state/staging/shop/recipe/attributes"
    assert writable["/kopiwatch/attributes"] == folder
    assert (world.state.recipe("shop") / "attributes").is_dir()
    assert not [t for t in writable if t.startswith("/mnt/") and not t.startswith("/mnt/.stage/")]
