"""The living daemon on disks that run full: its own, and the repository's."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
from support import docker
from support.disk import small_disk
from support.sidecar import sidecar
from support.site import IDLE, Site, make_site, mountpoint, wait_until

pytestmark = pytest.mark.timeout(300)
MEBIBYTE = 1024**2
PAGE = 4096


@pytest.fixture
def small_state(tmp_path, scope):
    """A site whose state folder is a disk of 16 MiB; yields both."""
    folder = tmp_path / "site"
    with small_disk(folder / "state", 16) as disk:
        yield make_site(folder, "namespace", scope), disk
    shutil.rmtree(folder)


@pytest.fixture
def small_repository(tmp_path, scope):
    """A site whose repository is on a disk of 384 MiB; yields both."""
    folder = tmp_path / "site"
    with small_disk(folder / "disk", 384) as disk:
        site = Site(folder, "namespace", scope.name)
        site.extra["KOPIWATCH_REPOSITORY"] = f"filesystem:{disk.path}/repository"
        (disk.path / "repository").mkdir()
        site.ok("repo", "create")
        yield site, disk
    shutil.rmtree(folder)


def one(site, scope, unit: str = "app") -> str:
    """One labelled container with a volume; its id."""
    labels = {"kopi.enable": "true", "kopi.unit": unit, "kopi.instance": site.instance}
    return scope.run(unit, script=IDLE, labels=labels, volumes=[f"{unit}-data:/data"])


def state(container: str) -> dict[str, object]:
    return docker.inspect(container)["State"]


def troubles(site) -> dict[str, str]:
    """What `status` complains of: sentences by kind."""
    done = site.run("status", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["daemon"]) == (0 if document["ok"] else 1, True)
    return {trouble["kind"]: trouble["message"] for trouble in document["troubles"]}


def outcomes(site, unit: str = "app") -> list[tuple[str, str]]:
    """Verdict and reason of each run of a unit on record, the oldest first."""
    rows = site.json("history")["runs"]
    return [(row["verdict"], row["reason"]) for row in rows if row["unit"] == unit]


def test_full_state_folder_stops_nobody_and_loses_no_record(small_state, scope):
    """Nobody is stopped who could not be noted, and it is told. As soon as a run finds room at all
    it is a success, on record or not. With room for the history, too, all of it is on record.
    """
    site, disk = small_state
    member = one(site, scope)
    with sidecar(site) as daemon:
        daemon.wait_metric(1, "unit_present", unit="app")
        site.ok("backup", "app")
        daemon.wait_metric(1, "unit_runs_total", unit="app")
        first = daemon.metric("unit_last_success_timestamp_seconds", unit="app")
        since = state(member)["StartedAt"]
        disk.fill()
        done = site.run("backup", "app")
        assert (done.returncode, "No space left on device" in done.stdout) == (1, True)
        assert state(member)["StartedAt"] == since
        daemon.wait_metric(1, "unit_consecutive_failures", unit="app")
        assert daemon.metric("history_failures_total") > 0
        assert troubles(site).keys() == {"failing", "history"}
        assert daemon.log.count("backups go on, and what happens is kept in memory") == 1
        runs, code = 2, done.returncode
        while code != 0 and runs < 20:
            disk.empty()
            disk.fill(leave=runs * 2 * PAGE)
            code = site.run("backup", "app").returncode
            runs += 1
        assert code == 0, daemon.log
        daemon.wait_metric(runs, "unit_runs_total", unit="app")
        assert daemon.metric("unit_last_success_timestamp_seconds", unit="app") > first
        assert "history" in troubles(site)
        assert len(outcomes(site)) < runs
        disk.empty()
        wait_until(lambda: troubles(site) == {}, "the history is written again")
        verdicts = [verdict for verdict, _ in outcomes(site)]
        assert verdicts == ["success", *["failed"] * (runs - 2), "success"]
        assert daemon.metric("unit_runs_total", unit="app") == runs


def test_state_folder_that_runs_full_in_the_window(small_state, scope):
    """Space was kept for the journal, so the run goes on and nothing stays owed. The next one has
    no such space and is refused before anybody is stopped, until there is room.
    """
    site, disk = small_state
    member = one(site, scope)
    with sidecar(site) as daemon:
        daemon.wait_metric(1, "unit_present", unit="app")
        before = state(member)["StartedAt"]
        follower = site.start("backup", "app")
        wait_until(lambda: "stopping" in daemon.log, "the window opens", 60)
        disk.fill()
        out, _ = follower.communicate(timeout=60)
        assert (follower.returncode, "app: success" in out) == (0, True), out
        since = state(member)["StartedAt"]
        assert (state(member)["Running"], since != before) == (True, True)
        assert not list((site.state / "journal").glob("*.json"))
        disk.fill()
        done = site.run("backup", "app")
        assert (done.returncode, "no space can be kept" in done.stdout) == (1, True), done.stdout
        assert state(member)["StartedAt"] == since
        disk.empty()
        site.ok("backup", "app")
        daemon.wait_metric(0, "unit_containers_left_stopped", unit="app")
        assert troubles(site) == {}
        assert outcomes(site) == [("success", ""), ("failed", "journal"), ("success", "")]
        points = site.json("points", "app")["points"]
        assert [point["state"] for point in points] == ["complete", "complete"]
        disk.fill()
        assert daemon.stop(signal.SIGTERM) == 0


def test_repository_that_runs_full(small_repository, scope, tmp_path):
    """Failed, with its reason; nobody stays down; the earlier points are good; then runs wait.

    The first run finds out while Kopia writes, the next ones before anybody is stopped. What is
    asked for while the breaker is open is one run of each unit as soon as there is room.
    """
    site, disk = small_repository
    members = {name: one(site, scope, name) for name in ("app", "bar", "cup")}
    volume = mountpoint(scope.full("app-data"))
    (volume / "kept").write_text("kept\n")
    with sidecar(site) as daemon:
        daemon.wait_metric(3, "units", state="scheduled")
        site.ok("backup", "--all")
        disk.fill(leave=80 * MEBIBYTE)
        (volume / "more").write_bytes(os.urandom(120 * MEBIBYTE))
        full = site.run("backup", "app")
        assert full.returncode != 0
        assert "app: failed (repository-full)" in full.stdout
        disk.fill(leave=MEBIBYTE)  # what Kopia gave back would let a run on trial begin
        assert all(state(member)["Running"] for member in members.values())
        since = {member: state(member)["StartedAt"] for member in members.values()}
        refused = site.start("backup", "--all")
        daemon.wait_metric(1, "repository_breaker_open", 60)
        assert "failing" in troubles(site)
        site.ok("restore", "app", "--to", f"{tmp_path}/out")
        restored = tmp_path / "out" / "volumes" / volume.parent.name
        assert (restored / "kept").read_text() == "kept\n"
        waiting = [site.start("backup", "--all") for _ in range(2)]
        daemon.wait_metric(3, "queue_depth")
        assert daemon.metric("repository_breaker_open") == 1
        assert since == {member: state(member)["StartedAt"] for member in members.values()}
        disk.empty()
        for process in (refused, *waiting):
            process.communicate(timeout=150)
        assert refused.returncode != 0
        assert [process.returncode for process in waiting] == [0, 0]
        daemon.wait_metric(0, "repository_breaker_open")
        daemon.wait_metric(0, "queue_depth")
        assert troubles(site) == {}
        for unit, member in members.items():
            assert state(member)["Running"]
            told = outcomes(site, unit)
            assert (told[0], told[-1]) == (("success", ""), ("success", ""))
            assert set(told[1:-1]) <= {("failed", "repository-full")}
        assert outcomes(site, "app").count(("failed", "repository-full")) == 2
