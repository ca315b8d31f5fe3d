"""Modes on real containers: who is frozen, who goes on, and what a kill leaves."""

from __future__ import annotations

import signal

import pytest
from support import docker
from support.site import IDLE, WRITER, mountpoint, wait_until

pytestmark = pytest.mark.timeout(180)

HUGE = 24 * 1024**3
"""Bytes of a hole: it takes no room, and Kopia long to read."""


@pytest.fixture
def start(site, scope):
    """Start one labelled container; its id."""

    def run(name: str, mode: str, **given) -> str:
        labels = {
            "kopi.enable": "true",
            "kopi.unit": "shop",
            "kopi.instance": site.instance,
            "kopi.mode": mode,
            "kopi.strategy": "gate",  # what is read is read while it is frozen
        }
        return scope.run(name, labels=labels, **({"script": WRITER} | given))

    return run


def started(container: str) -> str:
    return docker.inspect(container)["State"]["StartedAt"]


def test_modes_mix_in_one_unit(site, start):
    """One is stopped, one frozen, one writes on; the point says what it is worth."""
    containers = {
        "stop": start("a", "stop", volumes=["one:/data"]),
        "pause": start("b", "pause", volumes=["two:/data"]),
        "live": start("c", "live", volumes=["three:/data"]),
    }
    before = {mode: started(container) for mode, container in containers.items()}
    (run,) = site.json("backup", "shop")["runs"]
    assert (run["verdict"], run["message"]) == ("success", "")
    assert {docker.state(container) for container in containers.values()} == {"running"}
    after = {mode: started(container) for mode, container in containers.items()}
    assert {mode for mode in before if before[mode] != after[mode]} == {"stop"}
    (point,) = site.json("points", "shop")["points"]
    assert point["mode"] == "live"
    assert any("writes on while its data is read" in line for line in run["warnings"])


def test_paused_container_keeps_its_process(site, start):
    """A freeze is short, and nothing restarts."""
    container = start("a", "pause", volumes=["one:/data"])
    before = docker.inspect(container)["State"]["Pid"]
    (run,) = site.json("backup", "shop")["runs"]
    assert run["verdict"] == "success"
    assert docker.inspect(container)["State"]["Pid"] == before
    assert 0 < run["window"] < 30


def test_kill_while_frozen_is_thawed_by_the_next_command(site, scope, start):
    """kill -9 leaves it frozen; whoever comes next brings it back."""
    container = start("a", "pause", volumes=["one:/data"])
    start("b", "pause", script=IDLE, volumes=["two:/data"])
    huge = mountpoint(scope.full("two")) / "huge"
    with huge.open("wb") as file:
        file.truncate(HUGE)
    run = site.start("backup", "shop")
    wait_until(lambda: docker.state(container) == "paused" or run.poll() is not None, "frozen")
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert docker.state(container) == "paused"
    huge.unlink()
    (again,) = site.json("backup", "shop")["runs"]
    assert again["verdict"] == "success"
    assert docker.state(container) == "running"
    complete = [p for p in site.json("points", "shop")["points"] if p["state"] == "complete"]
    assert [p["run"] for p in complete] == [again["run"]]


def test_container_that_was_paused_before_stays_paused(site, start):
    container = start("a", "stop", volumes=["one:/data"])
    docker.call("pause", container)
    try:
        (run,) = site.json("backup", "shop")["runs"]
        assert (run["verdict"], run["message"]) == ("success", "")
        assert docker.state(container) == "paused"
    finally:
        docker.call("unpause", container)
