"""Kopia dies, hangs and lies, and its repository goes away: no manifest of that counts."""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator

import pytest
from support.disk import small_disk
from support.fault_world import FaultWorld, fault_world
from support.site import wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[FaultWorld]:
    folder = tmp_path_factory.mktemp("kopia") / "site"
    with fault_world(folder, "shop", "frozen") as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def world(shared) -> Iterator[FaultWorld]:
    yield shared
    shared.rest()
    shared.site.extra.pop("KOPIWATCH_RUN_TIMEOUT", None)


def record(world: FaultWorld, unit: str) -> dict:
    """The manifest of the newest good point, as Kopia tells it."""
    good = world.good(unit)[-1]
    listed = json.loads(world.site.kopia("snapshot", "list", "--json"))
    (found,) = [each for each in listed if each["tags"].get("tag:kopiwatch-run") == good]
    return found


LIES = {
    "dies-at-the-gate": ("shop", "start", "die", ""),
    "leaves-before-the-gate": ("shop", "start", "silent", "gate"),
    "ignores-the-gate": ("shop", "start", "ungated", "gate"),
    "dies-reading": ("shop", "read", "die", ""),
    "dies-reading-frozen": ("frozen", "read", "die", ""),
    "leaves-reading": ("frozen", "read", "silent", "gate"),
    "dies-writing": ("shop", "flush", "die", ""),
    "fails-writing": ("shop", "flush", "fail", ""),
    "names-nothing": ("shop", "flush", "silent", "no-manifest"),
    "talks-nonsense": ("frozen", "flush", "garbage", "no-manifest"),
    "names-a-phantom": ("shop", "flush", "phantom", "no-manifest"),
    "fails-after-the-manifest": ("frozen", "end", "fail", ""),
    "dies-after-the-manifest": ("shop", "end", "die", ""),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_kopia_dies_or_lies(world, lie):
    """All are back before kopiwatch leaves, the run has failed, its manifest does not count."""
    unit, at, deed, reason = lie
    before = world.photo(unit)
    if deed == "phantom":
        world.kopia.tell(record(world, unit) | {"id": "0123456789abcdef0123456789abcdef"})
    world.kopia.rule("snapshot create", deed, at=at)
    out, errors = world.start(unit).communicate(timeout=60)
    assert world.kopia.reached == 1, errors
    assert world.states(unit) == before.states
    (run,) = json.loads(out)["runs"]
    assert run["verdict"] == "failed", run
    assert reason in ("", run["reason"])
    world.aftermath(before, "failed")


@pytest.mark.parametrize("at", ["read", "flush"])
def test_kopia_that_hangs_and_does_not_listen(world, at):
    """A deadline ends it, and all are back before kopiwatch leaves."""
    before = world.photo("shop")
    world.site.extra["KOPIWATCH_RUN_TIMEOUT"] = "8s"
    world.kopia.rule("snapshot create", "stubborn", at=at)
    out, errors = world.start("shop").communicate(timeout=60)
    assert world.states("shop") == before.states, errors
    (run,) = json.loads(out)["runs"]
    assert (run["verdict"], run["reason"]) == ("failed", "deadline")
    world.aftermath(before, "failed")


@pytest.mark.parametrize("at", ["read", "flush"])
def test_repository_goes_away(world, at):
    """The run has failed, and nothing that was written elsewhere counts."""
    folder = world.site.repository
    before = world.photo("shop")
    world.kopia.rule("snapshot create", "hold", at=at)
    process = world.start("shop")
    wait_until(lambda: world.kopia.reached == 1, at)
    # The folder itself is mounted in the worker: what is in it goes, as if its disk had.
    (folder / "kopia").rename(folder / "away")
    try:
        world.mend()
        out, errors = process.communicate(timeout=60)
        assert process.returncode != 0, errors
        assert world.states("shop") == before.states
    finally:
        shutil.rmtree(folder / "kopia", ignore_errors=True)
        (folder / "away").rename(folder / "kopia")
    (run,) = json.loads(out)["runs"]
    assert run["verdict"] == "failed"
    world.aftermath(before, "failed")


def test_state_folder_that_is_full_when_kopiwatch_is_killed(tmp_path):
    """Who is owed is on record, and comes back although there is still no room."""
    folder = tmp_path / "site"
    with small_disk(folder / "state", 16) as disk, fault_world(folder, "shop") as world:
        before = world.photo("shop")
        world.kopia.rule("snapshot create", "hold", at="read")
        process = world.start("shop")
        wait_until(lambda: world.kopia.reached == 1, "read")
        disk.fill()
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert world.states("shop") != before.states
        world.mend()
        refused = world.site.run("backup", "shop")
        assert refused.returncode != 0
        assert world.states("shop") == before.states, refused.stderr
        assert "started again" in refused.stderr
        disk.empty()
        world.aftermath(before, "running", "failed")
        world.back_up("shop")
    shutil.rmtree(folder)
