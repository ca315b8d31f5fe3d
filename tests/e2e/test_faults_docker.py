"""Docker refuses, loses answers, and containers go away: all come back, the verdict is honest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from support import docker
from support.fault_world import FaultWorld, fault_world
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(180)

DOWN = r"/containers/[^/]+/(stop|pause)"
UP = r"/containers/[^/]+/(start|unpause)"
TRIES = 4
"""How often a start is tried."""


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[FaultWorld]:
    folder = tmp_path_factory.mktemp("docker") / "site"
    with fault_world(folder, "shop", "frozen") as made:
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def world(shared) -> Iterator[FaultWorld]:
    yield shared
    shared.rest()


CASES = {
    "stop-refused": (DOWN, "error", {"nth": 2}, "failed"),
    "stop-unheard": (DOWN, "cut-before", {}, "failed"),
    "stop-answer-lost": (DOWN, "cut-after", {}, "failed"),
    "start-fails-once": (UP, "error", {"status": 503}, "success"),
    "start-answer-lost": (UP, "cut-after", {}, "success"),
}


@pytest.mark.parametrize(
    ("unit", "name"),
    [
        *(("shop", name) for name in CASES),
        *(("frozen", name) for name in ("stop-refused", "stop-answer-lost", "start-fails-once")),
    ],
)
def test_docker_fails_in_the_window(world, unit, name):
    """All are back before kopiwatch leaves, and what it says is true."""
    path, deed, more, verdict = CASES[name]
    before = world.photo(unit)
    rule = world.proxy.rule("POST", path, deed, **more)
    out, errors = world.start(unit).communicate(timeout=60)
    assert rule.reached.is_set(), errors
    assert world.states(unit) == before.states
    (run,) = json.loads(out)["runs"]
    assert run["verdict"] == verdict, run
    world.aftermath(before, verdict)


@pytest.mark.parametrize("unit", ["shop", "frozen"])
def test_start_refused(world, unit):
    """Only who does not start is down, and comes as soon as Docker lets it."""
    before = world.photo(unit)
    # Levels start one after the other; who is frozen is thawed side by side.
    times = TRIES if unit == "shop" else 2 * TRIES
    world.proxy.rule("POST", UP, "error", times=times)
    out, _ = world.start(unit).communicate(timeout=60)
    (run,) = json.loads(out)["runs"]
    states = world.states(unit)
    assert (run["verdict"], states["db"] != "running") == ("failed", True)
    assert states["web"] == ("running" if unit == "shop" else "paused")
    journal = json.loads((world.site.state / "journal" / f"{unit}.json").read_text())
    down = {name for name, state in states.items() if state != before.states[name]}
    assert {member["service"] for member in journal["members"]} == down
    world.aftermath(before, "failed")


@pytest.mark.parametrize("fate", ["vanished", "recreated"])
def test_container_goes_away_while_it_is_down(world, fate):
    """Who was removed is told and not waited for; who was recreated is started in its place.

    It had been read by then, so the run is a success where all run again.
    """
    unit = f"was-{fate}"
    world.stack(unit)
    before = world.photo(unit)
    rule = world.proxy.rule("POST", UP, "hold")
    process = world.start(unit)
    wait_until(rule.reached.is_set, "the first start")
    old = world.members[unit]["db"]
    seen = docker.inspect(old)
    docker.call("rm", old)
    before.states["db"] = "gone"
    if fate == "recreated":
        world.members[unit]["db"] = world.scope.run(
            seen["Name"].lstrip("/"),
            script=IDLE,
            labels=seen["Config"]["Labels"],
            volumes=[f"{unit}-db:/data"],
            start=False,
        )
        before.states["db"] = "running"
    world.proxy.clear()
    out, errors = process.communicate(timeout=60)
    (run,) = json.loads(out)["runs"]
    assert world.states(unit) == before.states, errors
    assert (run["verdict"] == "success") == (fate == "recreated")
    world.aftermath(before, run["verdict"])
