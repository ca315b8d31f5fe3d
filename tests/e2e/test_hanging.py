"""A source that hangs in the kernel: the run ends, everybody runs again, and others go on."""

from __future__ import annotations

import fcntl
import signal
import time
from contextlib import suppress
from pathlib import Path

import pytest
from support import docker
from support.hanging import hanging_folder
from support.sidecar import sidecar
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(300)


def labels(site, unit: str, **more: str) -> dict[str, str]:
    named = {f"kopi.{name.replace('_', '-')}": value for name, value in more.items()}
    return {"kopi.enable": "true", "kopi.unit": unit, "kopi.instance": site.instance} | named


@pytest.fixture
def folder(tmp_path):
    with hanging_folder(tmp_path / "dead") as made:
        yield made


@pytest.fixture
def member(site, scope, folder) -> str:
    """A container with the folder, and a volume that it writes to."""
    given = labels(site, "stuck", binds="true", window_timeout="5s")
    return scope.run(
        "stuck",
        labels=given,
        script=IDLE,
        volumes=["own:/own"],
        options=["--volume", f"{folder.path}:/data"],
    )


def lock_is_free(path: Path) -> bool:
    with path.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def end_worker(site, folder) -> None:
    """The disk answers again (with an error): what hung there is gone."""
    folder.release()
    wait_until(lambda: not _removed(site), "the worker is gone", 60)


def _removed(site) -> list[str]:
    for worker in site.workers():
        with suppress(RuntimeError):
            docker.call("rm", "--force", worker)
    return site.workers()


def test_source_that_hangs_when_read_ends_by_the_window_timeout(site, scope, folder, member):
    """Kopia hangs beyond SIGKILL; the member is back within 60 s, and the next unit goes on."""
    scope.run("other", labels=labels(site, "other"), script=IDLE, volumes=["data:/data"])
    folder.hang("read")
    began = time.monotonic()
    (run,) = site.json_any("backup", "stuck")["runs"]
    assert folder.hung
    assert docker.state(member) == "running"
    assert (run["verdict"], run["reason"]) == ("failed", "deadline")
    assert 5 <= run["window"] < 60
    assert any("left behind" in line for line in run["warnings"]), run["warnings"]
    assert time.monotonic() - began < 200
    assert lock_is_free(site.state / "locks" / "kopia.lock")
    (other,) = site.json("backup", "other")["runs"]
    assert other["verdict"] == "success"
    end_worker(site, folder)


def test_source_that_hangs_when_looked_at_is_refused_before_the_window(site, folder, member):
    """Nobody is stopped."""
    started = docker.inspect(member)["State"]["StartedAt"]
    folder.hang("look")
    (run,) = site.json_any("backup", "stuck")["runs"]
    assert (run["verdict"], run["window"]) == ("failed", 0)
    words = {"worker": "Docker at ", "namespace": "hangs"}
    assert words[site.access] in run["message"]
    assert str(folder.path) in run["message"] or "network file system" in run["hint"]
    assert docker.inspect(member)["State"]["StartedAt"] == started
    end_worker(site, folder)


def test_daemon_goes_on_after_a_hanging_source(site, scope, folder, member):
    """The daemon tells, and backs up the next unit."""
    scope.run("other", labels=labels(site, "other"), script=IDLE, volumes=["data:/data"])
    folder.hang("read")
    with sidecar(site) as daemon:
        assert site.run("backup", "stuck", timeout=200).returncode == 1
        assert docker.state(member) == "running"
        assert site.run("backup", "other", timeout=200).returncode == 0, daemon.log
        daemon.wait_metric(1, "unit_last_run_success", 20, unit="other")
        folder.release()
    end_worker(site, folder)


def test_kill_while_kopia_hangs_is_made_good_by_the_next_command(site, scope, folder, member):
    """-9 in the window, and a worker that cannot end: the member is back before anything else."""
    scope.run("other", labels=labels(site, "other"), script=IDLE, volumes=["data:/data"])
    folder.hang("read")
    run = site.start("backup", "stuck")
    wait_until(lambda: folder.hung, "Kopia hangs", 60)
    run.send_signal(signal.SIGKILL)
    run.communicate()
    assert docker.state(member) == "exited"
    again = site.start("backup", "other")
    wait_until(lambda: docker.state(member) == "running", "it runs again", 60)
    _, errors = again.communicate(timeout=120)
    assert again.returncode == 0, errors
    assert site.access == "namespace" or "is left behind" in errors
    end_worker(site, folder)
