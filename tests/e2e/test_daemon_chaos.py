"""The living daemon while Compose, Docker and the repository do their worst."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import compose, docker
from support.own_docker import OwnDocker, own_docker
from support.sidecar import Sidecar, sidecar
from support.site import IDLE, Site, mountpoint, wait_until

pytestmark = pytest.mark.timeout(300)
HUGE = 6 * 1024**3
"""A sparse file: no space, but seconds of reading."""
SLOW = "trap 'test -e /data/slow && sleep 3; exit 0' TERM; while :; do sleep 0.05; done"
"""Takes its time to end while that file is there."""
NO_RUN = ("running", "skipped")
STAMPS = ("unit_deadline_timestamp_seconds", "unit_last_success_timestamp_seconds")


def labels(site, unit: str, schedule: str = "") -> dict[str, str]:
    named = {
        "kopi.enable": "true",
        "kopi.unit": unit,
        "kopi.instance": site.instance,
        "kopi.strategy": "gate",
    }
    return named | ({"kopi.schedule": schedule} if schedule else {})


def status(site) -> dict:
    """What the living daemon shows, whether it complains or not."""
    document = json.loads(site.run("status", "--json").stdout)
    assert document["daemon"]
    return document


def history(site, unit: str) -> list[dict]:
    """The runs of a unit on record that have ended and count, the oldest first."""
    rows = site.json("history")["runs"]
    return [row for row in rows if row["unit"] == unit and row["verdict"] not in NO_RUN]


def verdicts(site, unit: str) -> list[str]:
    return [row["verdict"] for row in history(site, unit)]


def one_run_came_of_it(rows: list[dict], last: str) -> None:
    """Of all that had been due up to ``last`` came one good run; what was due later has its own."""
    dues = [row["due"] for row in rows]
    assert {row["verdict"] for row in rows} == {"success"}
    assert dues[0] >= last
    assert len(set(dues)) == len(dues)


def journal_holds(site, unit: str) -> bool:
    """Whether a run is on record as holding somebody down."""
    try:
        return bool(json.loads((site.state / "journal" / f"{unit}.json").read_text())["members"])
    except FileNotFoundError:
        return False


def wait_for_calm(daemon: Sidecar, *units: str) -> None:
    """Nothing runs or waits, and it is a while until the next minute makes something due."""

    def calm() -> bool:
        busy = [daemon.metric("unit_in_progress", unit=unit) for unit in units]
        return time.time() % 60 < 45 and not any(busy) and daemon.metric("queue_depth") == 0

    wait_until(calm, "nothing runs or is due", 90)


class Samples:
    """What /metrics says of one unit, looked at all the time."""

    def __init__(self, daemon: Sidecar, unit: str) -> None:
        self.seen: list[tuple[float | None, ...]] = []
        self._daemon = daemon
        self._unit = unit
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Samples:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            values = (self._daemon.metric(name, unit=self._unit) for name in STAMPS)
            self.seen.append(tuple(values))


# -- Compose -------------------------------------------------------------------------------------


class Stack:
    """A real Compose project of two services, both labelled, db with a volume; its name a unit."""

    def __init__(self, site, scope, folder) -> None:
        self.name = scope.name
        self.folder = folder
        folder.mkdir()
        service = {
            "image": scope.image,
            "pull_policy": "never",
            "network_mode": "none",
            "command": ["/bin/sh", "-c", IDLE],
            "labels": {
                "kopi.enable": "true",
                "kopi.instance": site.instance,
                "kopi.strategy": "gate",
                docker.LABEL: scope.name,
            },
        }
        services = {
            "db": {**service, "command": ["/bin/sh", "-c", SLOW], "volumes": ["data:/data"]},
            "web": {**service, "volumes": ["files:/data"], "depends_on": ["db"]},
        }
        volumes = {name: {"labels": {docker.LABEL: scope.name}} for name in ("data", "files")}
        project = {"name": self.name, "services": services, "volumes": volumes}
        (folder / "compose.json").write_text(json.dumps(project))

    def up(self) -> None:
        """Make all of it anew, whatever it is doing."""
        done = subprocess.run(
            [compose.program(), "--file", "compose.json", "up", "--detach", "--force-recreate"],
            cwd=self.folder,
            env={"DOCKER_HOST": docker.URL, "HOME": str(self.folder)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def containers(self) -> list[tuple[str, str]]:
        """Service and state of each container that there is."""
        flag = f"label=com.docker.compose.project={self.name}"
        form = '{{.Label "com.docker.compose.service"}} {{.State}}'
        lines = docker.call("ps", "--all", "--filter", flag, "--format", form).splitlines()
        return sorted((line.split()[0], line.split()[1]) for line in lines)

    def is_down(self) -> bool:
        """Whether no service runs."""
        return all(state == "exited" for _, state in self.containers())


def test_compose_recreates_all_of_it_again_and_again(local_site, scope, tmp_path):
    """Between runs, while members are stopped, while Kopia reads: nobody is down, nothing is lost.

    A run that was disturbed is no success, the next one is. What is shown equals a fresh look.
    """
    stack = Stack(local_site, scope, tmp_path / "stack")
    unit = stack.name
    with sidecar(local_site) as daemon:
        stack.up()
        daemon.wait_metric(1, "unit_present", unit=unit)
        local_site.ok("backup", unit)
        daemon.wait_metric(1, "unit_runs_total", unit=unit)
        first_seen = daemon.metric("unit_first_seen_timestamp_seconds", unit=unit)
        data = mountpoint(f"{unit}_data")
        with Samples(daemon, unit) as samples:
            for _ in range(2):
                stack.up()
            with (data / "huge").open("wb") as file:
                file.truncate(HUGE)
            (data / "slow").touch()
            disturb(local_site, stack, lambda: ("web", "exited") in stack.containers())
            (data / "slow").unlink()
            tick = daemon.metric("scheduler_last_tick_timestamp_seconds")
            disturb(local_site, stack, stack.is_down)
            (data / "huge").unlink()
            local_site.ok("backup", unit)
            daemon.wait_metric(4, "unit_runs_total", unit=unit)
        deadlines, successes = zip(*samples.seen, strict=True)
        assert None not in deadlines + successes
        assert list(successes) == sorted(successes)
        assert max(len(set(deadlines)), len(set(successes))) <= 2, "one for each success"
        assert daemon.metric("unit_first_seen_timestamp_seconds", unit=unit) == first_seen
        assert daemon.metric("unit_run_failures_total", unit=unit) == 2
        first, *disturbed, last = verdicts(local_site, unit)
        assert (first, last) == ("success", "success")
        assert {*disturbed} <= {"partial", "failed"}
        assert daemon.metric("scheduler_last_tick_timestamp_seconds") > tick
        shows_the_truth(local_site, daemon)
        assert daemon.stop() == 0


def disturb(site, stack, moment) -> None:
    """Recreate the project in the middle of a run of it, which must not be a success."""
    follower = site.start("backup", stack.name)
    wait_until(moment, "the moment has come", 60)
    stack.up()
    assert follower.poll() is None, "the run was over too early for this test"
    _, errors = follower.communicate(timeout=90)
    assert follower.returncode != 0, errors
    assert stack.containers() == [("db", "running"), ("web", "running")]


def shows_the_truth(site, daemon: Sidecar) -> None:
    """The daemon is well, and its units are those of a fresh list."""
    fresh = [
        (unit["unit"], unit["valid"], unit["origin"], unit["warnings"])
        for unit in site.json("units")["units"]
    ]

    def shown() -> list[tuple[str, bool, str, list[str]]]:
        return [
            (unit["unit"], unit["state"] != "invalid", unit["kind"], unit["warnings"])
            for unit in status(site)["board"]["units"]
        ]

    wait_until(lambda: shown() == fresh, f"{fresh} is shown")
    assert status(site)["troubles"] == []
    assert daemon.get("/readyz")[0] == 200
    assert daemon.metric("watcher_connected") == 1
    assert daemon.metric("units", state="scheduled") == len(fresh)
    assert "Traceback" not in daemon.log


# -- Docker --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def engine() -> Iterator[OwnDocker]:
    with own_docker() as made:
        made.start()
        made.import_image()
        yield made


@pytest.fixture
def own_site(engine, local_site) -> Site:
    """A site on the Docker of these tests, which runs and is empty at the beginning."""
    if not engine.running:
        engine.start()
    engine.empty()
    local_site.extra["DOCKER_HOST"] = engine.url
    return local_site


def labelled(engine, site, unit: str, name: str, *options: str, schedule: str = "off") -> str:
    """A labelled container with a volume; its id."""
    given = labels(site, unit) | {"kopi.schedule": schedule}
    flags = [f"--label={key}={value}" for key, value in given.items()]
    return engine.run(name, *flags, f"--volume={name}-data:/data", *options)


def kill(engine) -> None:
    """As a crash of Docker does it: containers go on, nobody answers."""
    engine.signal(signal.SIGKILL)
    engine.wait()


def test_docker_gone_for_longer_than_a_schedule(engine, own_site):
    """The unit stays known, no run is counted against it; then one run, however many were due."""
    app = labelled(engine, own_site, "app", "app", schedule="* * * * *")
    with sidecar(own_site) as daemon:
        daemon.wait_metric(1, "unit_present", unit="app")
        own_site.ok("backup", "app")
        wait_for_calm(daemon, "app")
        runs = len(history(own_site, "app"))
        kill(engine)
        daemon.wait_metric(0, "watcher_connected")
        deadline = daemon.metric("unit_deadline_timestamp_seconds", unit="app")
        dues = set()

        def two_were_due() -> bool:
            dues.update(ask["due"] for ask in status(own_site)["board"]["queue"])
            return len(dues) >= 2

        wait_until(two_were_due, "two due times have passed", 150)
        assert daemon.get("/healthz")[0] == 200
        assert daemon.metric("watcher_connected") == 0
        assert daemon.metric("queue_depth") == 1
        assert daemon.metric("unit_present", unit="app") == 1
        assert daemon.metric("unit_deadline_timestamp_seconds", unit="app") == deadline
        assert daemon.metric("unit_run_failures_total", unit="app") == 0
        assert daemon.metric("unit_runs_total", unit="app") == runs
        assert {trouble["kind"] for trouble in status(own_site)["troubles"]} == {"watcher"}
        engine.start(live_restore=True)
        daemon.wait_metric(1, "watcher_connected", 60)
        wait_until(
            lambda: (daemon.metric("unit_runs_total", unit="app") or 0) > runs, "it is made up", 90
        )
        one_run_came_of_it(history(own_site, "app")[runs:], max(dues))
        assert daemon.metric("unit_run_failures_total", unit="app") == 0
        wait_until(lambda: running(engine, app), "it runs")


def test_docker_that_dies_in_the_window_and_stays_away(engine, own_site):
    """The run has failed; when Docker is back, the daemon starts whom it stopped, by itself."""
    members = [labelled(engine, own_site, "shop", name) for name in ("db", "web")]
    huge = Path(engine.call("volume", "inspect", "--format={{.Mountpoint}}", "db-data"), "huge")
    with huge.open("wb") as file:
        file.truncate(HUGE // 2)
    with sidecar(own_site) as daemon:
        daemon.wait_metric(1, "unit_present", unit="shop")
        follower = own_site.start("backup", "shop")
        wait_until(lambda: not any(running(engine, each) for each in members), "both are down", 60)
        kill(engine)
        out, errors = follower.communicate(timeout=90)
        assert follower.returncode != 0, errors
        assert "shop: failed" in out
        daemon.wait_metric(2, "unit_containers_left_stopped", unit="shop")
        assert status(own_site)["troubles"][0]["kind"] == "left-down"
        engine.start()
        wait_until(lambda: all(running(engine, each) for each in members), "both run again", 60)
        daemon.wait_metric(0, "unit_containers_left_stopped", unit="shop")
        assert daemon.metric("journal_recoveries_total") == 2
        huge.unlink()
        daemon.wait_metric(1, "watcher_connected", 60)
        own_site.ok("backup", "shop")
        assert verdicts(own_site, "shop") == ["failed", "success"]
        assert all(running(engine, each) for each in members)
        points = own_site.json("points", "shop")["points"]
        assert [point["state"] for point in points].count("complete") == 1


def running(engine, container: str) -> bool:
    return engine.call("inspect", "--format={{.State.Running}}", container) == "true"


# -- the repository ------------------------------------------------------------------------------


def test_repository_gone_for_several_runs(local_site, scope):
    """After three failures runs wait and nobody is stopped; when it is back, one run of each."""
    units = ("app", "bar", "cup")
    members = {
        unit: scope.run(
            unit,
            script=IDLE,
            labels=labels(local_site, unit, "* * * * *"),
            volumes=[f"{unit}-data:/data"],
        )
        for unit in units
    }
    away = local_site.folder / "away"
    with sidecar(local_site) as daemon:
        daemon.wait_metric(3, "units", state="scheduled")
        wait_for_calm(daemon, *units)
        local_site.repository.rename(away)
        assert local_site.run("backup", "--all").returncode == 4
        daemon.wait_metric(1, "repository_breaker_open")
        counted = [daemon.metric("unit_runs_total", unit=unit) for unit in units]
        since = [docker.inspect(member)["State"]["StartedAt"] for member in members.values()]
        probes = daemon.metric("repository_failures_total", operation="probe")

        def due() -> dict[str, str]:
            queue = status(local_site)["board"]["queue"]
            return {ask["unit"]: ask["due"] for ask in queue if ask["trigger"] == "schedule"}

        wait_until(lambda: due().keys() == members.keys(), "all were due again", 90)
        wait_until(
            lambda: daemon.metric("repository_failures_total", operation="probe") > probes,
            "a probe has failed",
            90,
        )
        waiting = due()
        assert daemon.metric("repository_breaker_open") == 1
        assert [daemon.metric("unit_runs_total", unit=unit) for unit in units] == counted
        assert since == [docker.inspect(each)["State"]["StartedAt"] for each in members.values()]
        assert "repository" in {trouble["kind"] for trouble in status(local_site)["troubles"]}
        shutil.rmtree(local_site.repository, ignore_errors=True)
        away.rename(local_site.repository)
        for unit in units:
            daemon.wait_metric(1, "unit_last_run_success", 120, unit=unit)
        daemon.wait_metric(0, "repository_breaker_open")
        for unit, before in zip(units, counted, strict=True):
            one_run_came_of_it(history(local_site, unit)[int(before) :], waiting[unit])
        assert "Traceback" not in daemon.log
