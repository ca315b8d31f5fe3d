"""``kopiwatch run`` as a process: seen, due, backed up, told, and left in order."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import time

import pytest
from support import docker
from support.sidecar import Sidecar, sidecar
from support.site import IDLE, SLOW, make_stack, wait_until

pytestmark = pytest.mark.timeout(180)


def labels(site, unit: str = "app", **more: str) -> dict[str, str]:
    named = {f"kopi.{name.replace('_', '-')}": value for name, value in more.items()}
    return {"kopi.enable": "true", "kopi.unit": unit, "kopi.instance": site.instance} | named


def one(site, scope, name: str = "app", script: str = IDLE, **more: str) -> str:
    """One labelled container with a volume; its id."""
    stack = scope.stack(
        {name: {"script": script, "volumes": [f"{name}:/data"], "labels": labels(site, **more)}}
    )
    return stack[name]


def running(container: str) -> bool:
    return docker.inspect(container)["State"]["Running"]


def test_labelled_container_is_seen_and_backed_up_when_due(local_site, scope):
    """From the label to a success in the metrics, the history and `status`, by itself."""
    with sidecar(local_site) as daemon:
        one(local_site, scope, schedule="* * * * *")
        daemon.wait_metric(1, "unit_present", 10, unit="app")
        assert daemon.metric("unit_last_success_timestamp_seconds", unit="app") == 0
        daemon.wait_metric(1, "unit_runs_total", 90, unit="app")
        assert daemon.metric("unit_last_run_success", unit="app") == 1
        assert daemon.metric("unit_last_success_timestamp_seconds", unit="app") > time.time() - 90
        (row,) = local_site.json("history")["runs"]
        assert (row["unit"], row["verdict"], row["trigger"]) == ("app", "success", "schedule")
        due = int(time.time()) // 60 * 60
        assert row["due"].startswith(time.strftime("%Y-%m-%dT%H:%M", time.gmtime(due)))
        assert "all is well" in local_site.ok("status")
        assert daemon.stop() == 0


def test_backup_hands_over_to_the_daemon(local_site, scope):
    """The daemon does the work, the command follows it and has its exit code."""
    make_stack(local_site, scope)
    with sidecar(local_site) as daemon:
        done = local_site.run("backup", "shop")
        assert (done.returncode, "shop: success" in done.stdout) == (0, True), done.stderr
        assert "shop: success" in daemon.log
        unknown = local_site.run("backup", "shopp")
        assert (unknown.returncode, "did you mean 'shop'?" in unknown.stderr) == (2, True)
        (row,) = local_site.json("history")["runs"]
        assert row["trigger"] == "command"


def test_backup_goes_on_when_its_follower_dies(local_site, scope):
    """A `docker exec` that dies takes nothing with it."""
    make_stack(local_site, scope)
    with sidecar(local_site) as daemon:
        follower = local_site.start("backup", "shop")
        wait_until(lambda: daemon.metric("unit_in_progress", unit="shop") == 1, "it runs")
        follower.kill()
        follower.communicate()
        daemon.wait_metric(1, "unit_runs_total", 60, unit="shop")
        assert daemon.metric("unit_last_run_success", unit="shop") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_window_brings_everything_back(local_site, scope, number):
    """The daemon leaves only when its members run again, and nothing is called a success."""
    stack = make_stack(local_site, scope)
    daemon = Sidecar(local_site)
    daemon.wait_ready()
    follower = local_site.start("backup", "shop")
    wait_until(lambda: "stopping" in daemon.log, "the window opens", 60)
    assert daemon.stop(number) == 0
    assert all(running(container) for container in stack.values()), daemon.log
    follower.communicate(timeout=30)
    assert follower.returncode != 0
    (row,) = local_site.json("history")["runs"]
    assert row["verdict"] == "failed"
    left = [file.read_text() for file in (local_site.state / "journal").glob("*.json")]
    assert not left, daemon.log


def test_killed_daemon_brings_back_at_its_next_start(local_site, scope):
    """After -9 in the window the next life starts the members before anything else."""
    stack = make_stack(local_site, scope, db=SLOW, patience=30)
    daemon = Sidecar(local_site)
    daemon.wait_ready()
    follower = local_site.start("backup", "shop")
    wait_until(
        lambda: not all(running(container) for container in stack.values()), "somebody is down", 60
    )
    daemon.stop(signal.SIGKILL)
    follower.communicate(timeout=30)
    with sidecar(local_site) as again:
        wait_until(
            lambda: all(running(container) for container in stack.values()), "all run again", 60
        )
        again.wait_until(
            lambda: (again.metric("journal_recoveries_total") or 0) >= 1, "it is counted"
        )
        (row,) = local_site.json("history")["runs"]
        assert (row["verdict"], row["reason"]) == ("failed", "interrupted")


def test_lost_state_is_rebuilt_before_units_are_shown(local_site, scope):
    """A machine that lost its state folder does not alarm about backups that are there."""
    make_stack(local_site, scope)
    local_site.ok("backup", "shop")
    for name in ("history.db", "state.json"):
        (local_site.state / name).unlink()
    with sidecar(local_site) as daemon:
        stamp = daemon.metric("unit_last_success_timestamp_seconds", unit="shop")
        assert stamp is not None
        assert stamp > time.time() - 120
        assert daemon.metric("unit_restore_points", unit="shop") == 1


def test_damaged_history_is_kept_aside_and_rebuilt(local_site, scope):
    """Loudly, and without losing what the repository knows."""
    make_stack(local_site, scope)
    local_site.ok("backup", "shop")
    (local_site.state / "history.db").write_bytes(os.urandom(8192))
    with sidecar(local_site) as daemon:
        assert daemon.metric("unit_last_success_timestamp_seconds", unit="shop") > 0
        assert "the history was damaged" in daemon.log
    assert list(local_site.state.glob("history.db.corrupt-*"))
    assert sqlite3.connect(local_site.state / "history.db").execute("SELECT 1").fetchone()


def test_vanished_unit_keeps_its_deadline_until_forgotten(local_site, scope):
    """Silence alarms; only the operator's word ends that."""
    container = one(local_site, scope, max_age="1s")
    with sidecar(local_site) as daemon:
        docker.call("rm", "--force", container)
        daemon.wait_metric(0, "unit_present", 15, unit="app")
        daemon.wait_metric(1, "unit_overdue", 10, unit="app")
        status = local_site.run("status")
        assert status.returncode == 1
        assert "overdue" in status.stderr
        local_site.ok("forget", "app")
        wait_until(lambda: daemon.metric("unit_overdue", unit="app") is None, "it is forgotten")
        assert local_site.run("forget", "app").returncode == 2


def test_broken_label_disables_its_own_unit_and_is_said_once(local_site, scope):
    """The other unit is backed up; the broken one is `invalid`, with its labels named."""
    one(local_site, scope, "good", unit="good")
    one(local_site, scope, "bad", unit="bad", schedule="whenever")
    with sidecar(local_site) as daemon:
        daemon.wait_metric(1, "units", 10, state="invalid")
        assert daemon.metric("invalid_labels", label="kopi.schedule") == 1
        one(local_site, scope, "third", unit="third")
        daemon.wait_metric(1, "unit_present", 15, unit="third")
        assert daemon.log.count("DISABLED") == 1
        done = local_site.run("backup", "--all")
        assert done.returncode != 0
        assert "good: success" in done.stdout
        assert "bad: skipped (labels)" in done.stdout


def test_vanished_repository_is_no_silence(local_site, scope):
    """It is down in the metrics, a run fails and says so, nobody is stopped for it."""
    make_stack(local_site, scope)
    with sidecar(local_site) as daemon:
        daemon.wait_metric(1, "repository_up", 30)
        away = local_site.folder / "away"
        local_site.repository.rename(away)
        done = local_site.run("backup", "shop")
        assert (done.returncode, "shop: failed" in done.stdout) == (4, True), done.stdout
        daemon.wait_metric(0, "repository_up", 60)
        assert daemon.metric("unit_consecutive_failures", unit="shop") == 1
        shutil.rmtree(local_site.repository, ignore_errors=True)
        away.rename(local_site.repository)
        assert local_site.run("backup", "shop").returncode == 0


def test_port_in_use_ends_the_start_and_says_by_whom(local_site):
    """Exit 3, and the process that holds it."""
    with sidecar(local_site) as daemon:
        second = local_site.extra | {"KOPIWATCH_STATE_DIR": str(local_site.folder / "other")}
        local_site.extra = second | {"KOPIWATCH_LISTEN": f"127.0.0.1:{daemon.port}"}
        done = local_site.run("run", timeout=30)
        assert done.returncode == 3
        assert f"{daemon.process.pid}" in done.stderr


def test_second_daemon_on_one_state_folder_is_refused(local_site):
    """One daemon per state folder; it says who is there."""
    with sidecar(local_site) as daemon:
        done = local_site.run("run", timeout=30)
        assert done.returncode == 75
        assert str(daemon.process.pid) in done.stderr


def test_healthcheck_and_status_without_a_daemon_say_so(local_site):
    """Nothing runs is the worst thing to be silent about."""
    health = local_site.run("healthcheck")
    assert (health.returncode, "no daemon answers" in health.stderr) == (1, True)
    status = local_site.run("status", "--json")
    document = json.loads(status.stdout)
    assert (status.returncode, document["daemon"], document["ok"]) == (1, False, False)


def test_configuration_is_read_again_and_a_bad_one_changes_nothing(local_site, scope):
    """A changed file counts at once, an invalid one is said and shown."""
    file = local_site.folder / "config.toml"
    file.write_text("")
    local_site.extra = {"KOPIWATCH_CONFIG": str(file)}
    one(local_site, scope)
    with sidecar(local_site) as daemon:
        daemon.wait_metric(1, "unit_present", 10, unit="app")
        file.write_text('schedule = "@yearly"\n')
        wait_until(lambda: "schedule @yearly instead of" in daemon.log, "it is read", 20)
        file.write_text("schedul = 1\n")
        daemon.wait_metric(0, "config_last_reload_success", 20)
        file.write_text('schedule = "@yearly"\n')
        daemon.process.send_signal(signal.SIGHUP)
        daemon.wait_metric(1, "config_last_reload_success", 20)
