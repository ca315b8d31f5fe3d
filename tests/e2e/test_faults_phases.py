"""Whoever dies, in whichever phase: all come back, nothing half done counts.

Each phase is reached by a call that is held in it, to Docker or to Kopia.
"""

from __future__ import annotations

import json
import shutil
import signal
from collections.abc import Iterator

import pytest
from support import docker
from support.fault_world import FaultWorld, fault_world
from support.site import wait_until

pytestmark = pytest.mark.timeout(180)

DOWN = r"/containers/[^/]+/(stop|pause)"
UP = r"/containers/[^/]+/(start|unpause)"
KOPIA = {
    "check": [("snapshot list", "hold", "start", 1)],
    "ready": [("snapshot create", "hold", "start", 1)],
    "read": [("snapshot create", "hold", "read", 1)],
    "flush": [("snapshot create", "hold", "flush", 1)],
    "verify": [("snapshot restore", "hold", "start", 1)],
    "keep": [("snapshot list", "hold", "start", 2)],
    "report": [("snapshot create", "fail", "end", 1), ("snapshot pin", "hold", "start", 1)],
}
"""The calls to Kopia that are held, or fail, by phase: command, deed, moment, which one."""
DOCKER = {"stop": (DOWN, 2), "start": (UP, 1), "health": (r"/containers/[^/]+/exec", 1)}
"""The calls to Docker that are held, by phase: path, which one."""
IN_WINDOW = ("stop", "read", "start")


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[FaultWorld]:
    folder = tmp_path_factory.mktemp("phases") / "site"
    with fault_world(folder, "shop", "frozen") as made:
        made.stack("well", options=("--health-cmd=true", "--health-interval=1s"))
        made.stack("thin")
        made.back_up("thin")
        yield made
    shutil.rmtree(folder)


@pytest.fixture
def world(shared) -> Iterator[FaultWorld]:
    yield shared
    shared.rest()


def reach(world: FaultWorld, unit: str, phase: str):
    """Start a backup and return when it is in that phase, where it stays."""
    if phase == "health":
        wait_until(lambda: healthy(world.members[unit]["db"]), "db is healthy")
        # Kopia writes meanwhile, and must not be done with it yet.
        world.kopia.rule("snapshot create", "hold", at="flush")
    if phase in DOCKER:
        path, nth = DOCKER[phase]
        rule = world.proxy.rule("POST", path, "hold", nth=nth)
        process = world.start(unit)
        wait_until(lambda: rule.reached.is_set() or process.poll() is not None, phase)
    else:
        for command, deed, at, nth in KOPIA[phase]:
            world.kopia.rule(command, deed, at=at, nth=nth)
        process = world.start(unit)
        wanted = len(KOPIA[phase])
        wait_until(lambda: world.kopia.reached >= wanted or process.poll() is not None, phase)
    assert process.poll() is None, process.communicate()
    # From the launch of Kopia on a run owes its verdict, until that is durable.
    owes = (world.site.state / "journal" / f"{unit}.json").exists()
    assert owes == (phase not in ("check", "keep"))
    return process


def healthy(container: str) -> bool:
    return docker.inspect(container)["State"]["Health"]["Status"] == "healthy"


CASES = [
    *(("shop", phase) for phase in (*KOPIA, "stop", "start") if phase != "keep"),
    ("thin", "keep"),
    ("well", "health"),
    *(("frozen", phase) for phase in IN_WINDOW),
]


@pytest.mark.parametrize(("unit", "phase"), CASES)
def test_kopiwatch_killed(world, unit, phase):
    """The next command brings back who is down, and nothing of the dead run counts."""
    before = world.photo(unit)
    process = reach(world, unit, phase)
    process.kill()
    process.communicate()
    if phase in IN_WINDOW:
        assert world.states(unit) != before.states
    # In its phase keep, the verdict stands in the repository already.
    world.aftermath(before, "running", "failed", stored=phase == "keep")


@pytest.mark.parametrize(("unit", "phase"), CASES)
def test_kopiwatch_asked_to_leave(world, unit, phase):
    """All are back before it leaves, and its run is no success unless it was one already."""
    before = world.photo(unit)
    process = reach(world, unit, phase)
    process.terminate()
    world.mend()
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert world.states(unit) == before.states
    (run,) = json.loads(out)["runs"]
    verdict = "success" if phase == "keep" else "failed"
    assert world.aftermath(before, verdict)["reason"] == run["reason"]


WORKING = [("shop", phase) for phase in ("ready", "stop", "read", "start", "flush")]


@pytest.mark.parametrize(("unit", "phase"), [*WORKING, ("well", "health")])
def test_worker_killed(world, unit, phase):
    """All are back before kopiwatch leaves, and its run is no success."""
    lost_worker(world, unit, phase, signal.SIGKILL)


@pytest.mark.parametrize("phase", ["read", "flush"])
def test_worker_asked_to_leave(world, phase):
    """It takes Kopia with it."""
    lost_worker(world, "frozen", phase, signal.SIGTERM)


def lost_worker(world, unit: str, phase: str, number: signal.Signals) -> None:
    before = world.photo(unit)
    process = reach(world, unit, phase)
    world.strike_worker(number)
    world.mend()
    out, errors = process.communicate(timeout=60)
    assert process.returncode in (1, 5), errors
    assert world.states(unit) == before.states
    (run,) = json.loads(out)["runs"]
    assert world.aftermath(before, "failed")["reason"] == run["reason"]
