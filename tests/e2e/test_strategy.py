"""Strategies on real file systems, containers and Kopia, by each way to the data."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import docker
from support.filesystem import MIB, mounted
from support.site import WRITER, wait_until

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def disk(request, tmp_path) -> Iterator[Path]:
    """An xfs of its own: reflinks work on it."""
    with mounted(getattr(request, "param", "xfs"), tmp_path / "fs", 8192) as place:
        (place / "data").mkdir()
        (place / "stage").mkdir()
        yield place


class Shop:
    """One container that writes to a bind mount of that disk, and a volume that none can clone."""

    def __init__(self, site, scope, disk: Path) -> None:
        self.site = site
        self.scope = scope
        self.disk = disk
        self.container = ""
        (disk / "data" / "big").write_bytes(os.urandom(64 * MIB))

    def start(self, strategy: str, *, script: str = WRITER, **labels: str) -> str:
        if self.container:
            docker.call("rm", "--force", self.container)
        given = {
            "kopi.enable": "true",
            "kopi.unit": "shop",
            "kopi.instance": self.site.instance,
            "kopi.binds": "true",
            "kopi.strategy": strategy,
            **labels,
        }
        self.container = self.scope.run(
            "shop",
            script=script,
            labels=given,
            volumes=[f"{self.disk}/data:/data", "conf:/conf"],
        )
        return self.container

    def backup(self) -> dict:
        told = self.site.json_any("backup", "shop")
        assert "runs" in told, told
        (run,) = told["runs"]
        return run

    @property
    def left(self) -> list[str]:
        """Files that are left in the operator's folder, and volumes of ours."""
        files = [str(p) for p in (self.disk / "stage").rglob("*") if p.is_file()]
        ours = f"name=kopiwatch-stage-{self.site.instance}-"
        return [*files, *docker.call("volume", "ls", "-q", "--filter", ours).split()]


@pytest.fixture
def shop(site, scope, disk) -> Shop:
    site.extra["KOPIWATCH_STAGE_PATHS"] = str(disk / "stage")
    return Shop(site, scope, disk)


@pytest.mark.parametrize("strategy", ["gate", "hot", "clone", "copy"])
def test_strategy_does_what_its_label_says(shop, tmp_path, strategy):
    """Stored whole, told by name, everybody runs, and nothing is left behind."""
    container = shop.start(strategy)
    for turn in ("first", "second"):
        run = shop.backup()
        assert (run["verdict"], run["message"], run["warnings"]) == ("success", "", [])
        assert (run["strategy"], run["strategy_reason"]) == (strategy, "its label says so")
        assert docker.state(container) == "running"
        assert shop.left == []
        target = tmp_path / turn
        shop.site.ok("restore", "shop", "--at", run["run"], "--to", str(target))
        (stored,) = (target / "binds").iterdir()
        assert (stored / "big").read_bytes() == (shop.disk / "data" / "big").read_bytes()
        assert (stored / "log").read_bytes() == (shop.disk / "data" / "log").read_bytes()[
            : (stored / "log").stat().st_size
        ]
        with (shop.disk / "data" / "big").open("r+b") as file:
            file.seek(5 * MIB)
            file.write(turn.encode())
    assert shop.site.json("points", "shop")["points"][0]["state"] == "complete"
    assert {p["run"] for p in shop.site.json("points", "shop")["points"]} == {
        row["run"] for row in shop.site.json("history")["runs"]
    }


def test_auto_clones_on_xfs_and_says_why(shop):
    """64 MiB that were never stored are worth it; the history and explain tell."""
    shop.start("auto")
    run = shop.backup()
    assert (run["verdict"], run["strategy"]) == ("success", "clone")
    assert "instead of" in run["strategy_reason"]
    assert f"strategy: clone: {run['strategy_reason']}" in shop.site.ok("history", run["run"])
    told = shop.site.ok("explain", shop.scope.full("shop"))
    assert f"strategy of run {run['run']}: clone" in told
    assert shop.backup()["strategy"] == "gate"


@pytest.mark.parametrize("disk", ["ext4"], indirect=True)
def test_label_that_the_disk_cannot_do_stops_nobody(shop):
    """ext4 knows no reflinks: which container, which source, and the way out."""
    container = shop.start("clone")
    since = docker.inspect(container)["State"]["StartedAt"]
    run = shop.backup()
    assert (run["verdict"], run["reason"]) == ("failed", "strategy")
    assert f"{shop.scope.full('shop')}: kopi.strategy=clone: binds/" in run["message"]
    assert "KOPIWATCH_STAGE_PATHS" in run["hint"]
    assert docker.inspect(container)["State"]["StartedAt"] == since
    assert shop.left == []


def test_named_folder_that_is_missing_is_said(shop):
    shop.site.extra["KOPIWATCH_STAGE_PATHS"] = str(shop.disk / "nowhere")
    shop.start("clone")
    run = shop.backup()
    assert (run["verdict"], run["reason"]) == ("failed", "stage-path")
    assert f"KOPIWATCH_STAGE_PATHS names {shop.disk}/nowhere" in run["message"]
    assert shop.left == []


def test_kill_while_it_is_staged_leaves_nothing(shop):
    """SIGKILL in the window: the next command starts the container and removes the stage."""
    for number in range(4000):
        (shop.disk / "data" / f"file-{number}").write_bytes(b"x")
    container = shop.start(
        "clone",
        script="trap 'sleep 1; exit 0' TERM; while :; do sleep 0.05; done",
        **{"kopi.stop-timeout": "10s"},
    )
    run = shop.site.start("backup", "shop")
    wait_until(lambda: any((shop.disk / "stage").rglob("file-1")), "it is staged", 60)
    wait_until(lambda: docker.state(container) != "running" or run.poll() is not None, "down", 60)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    again = shop.backup()
    assert (again["verdict"], again["strategy"]) == ("success", "clone")
    assert docker.state(container) == "running"
    assert shop.left == []


def test_volumes_are_staged_in_a_volume_of_ours(site, scope):
    """Beside Docker's own, without any setting; a killed run's is removed by the next command."""
    labels = {
        "kopi.enable": "true",
        "kopi.unit": "shop",
        "kopi.instance": site.instance,
        "kopi.strategy": "copy",
        "kopi.stop-timeout": "10s",
    }
    patient = "trap 'sleep 2; exit 0' TERM; while :; do date +%s%N >> /data/log; sleep 0.05; done"
    container = scope.run(
        "shop", script=patient, labels=labels, volumes=["data:/data", "media:/media:ro"]
    )
    name = f"kopiwatch-stage-{site.instance}-shop"

    def stages() -> list[str]:
        return docker.call("volume", "ls", "-q", "--filter", f"name={name}").split()

    run = site.start("backup", "shop")
    wait_until(lambda: bool(stages()) or run.poll() is not None, "there is a stage", 60)
    wait_until(lambda: "stopping" in stopping(site) or run.poll() is not None, "it stops", 60)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert stages() == [name]
    (again,) = site.json("backup", "shop")["runs"]
    assert (again["verdict"], again["strategy"], again["warnings"]) == ("success", "copy", [])
    assert {s["path"]: s["reason"] for s in again["sources"]} == {
        "recipe": "",
        f"volumes/{scope.full('data')}": "",
        f"volumes/{scope.full('media')}": "",
    }
    assert docker.state(container) == "running"
    assert stages() == []


def stopping(site) -> str:
    """``stopping`` once the journal names somebody who is held."""
    journal = site.state / "journal" / "shop.json"
    held = journal.exists() and b'"name"' in journal.read_bytes()
    return "stopping" if held else ""
