"""Dying at the worst moment: nothing stays down, nothing is called success."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path

import pytest
from support import docker
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(240)

STUBBORN = "trap '' TERM; while :; do sleep 0.05; done"
HUGE = 24 * 1024**3
"""A sparse file: no space, but seconds of reading."""


def labels(site) -> dict[str, str]:
    """Of a member whose data is read in the window, however much there is."""
    named = {"kopi.enable": "true", "kopi.unit": "shop", "kopi.instance": site.instance}
    return named | {"kopi.strategy": "gate"}


def slow_read(site, scope) -> dict[str, str]:
    """Two members, one of them with a volume that takes seconds to read."""
    stack = scope.stack(
        {
            "db": {"script": IDLE, "volumes": ["data:/data"], "labels": labels(site)},
            "web": {
                "script": IDLE,
                "volumes": ["files:/data"],
                "labels": labels(site),
                "depends_on": "db:service_started:false",
            },
        }
    )
    folder = Path(docker.inspect(scope.full("data"))["Mountpoint"])
    with (folder / "huge").open("wb") as file:
        file.truncate(HUGE)
    return stack


def slow_stop(site, scope) -> dict[str, str]:
    """web stops at once, then db takes four seconds."""
    return scope.stack(
        {
            "db": {
                "script": STUBBORN,
                "volumes": ["data:/data"],
                "labels": labels(site),
                "options": ["--stop-timeout", "4"],
            },
            "web": {
                "script": IDLE,
                "volumes": ["files:/data"],
                "labels": labels(site),
                "depends_on": "db:service_started:false",
            },
        }
    )


def journal(site) -> Path:
    return site.state / "journal" / "shop.json"


def down(stack) -> bool:
    return all(docker.state(container) == "exited" for container in stack.values())


def up(stack) -> bool:
    return all(docker.state(container) == "running" for container in stack.values())


def test_kill_9_while_members_are_down_is_mended_by_the_next_backup(site, scope):
    """They run again before anything else, it is said, and no half snapshot counts."""
    stack = slow_read(site, scope)
    process = site.start("backup", "shop")
    wait_until(lambda: down(stack), "both members are down")
    held = json.loads(journal(site).read_text())
    assert {member["name"] for member in held["members"]} == {
        docker.inspect(container)["Name"].lstrip("/") for container in stack.values()
    }
    process.kill()
    process.communicate()
    assert down(stack)
    assert "LEFT DOWN by a run that died" in site.run("units").stderr
    (Path(docker.inspect(scope.full("data"))["Mountpoint"]) / "huge").unlink()
    done = site.run("backup", "shop")
    assert done.returncode == 0, done.stderr
    assert "was interrupted" in done.stderr
    assert done.stderr.count("started again") == 2
    assert up(stack)
    assert not journal(site).exists()
    points = site.json("points", "shop")["points"]
    assert [point["state"] for point in points] == ["complete"]


def test_kill_9_during_a_slow_stop_brings_back_who_falls_later(local_site, scope):
    """Docker goes on with a stop whose client died: the replay waits for that and starts it."""
    stack = slow_stop(local_site, scope)
    process = local_site.start("backup", "shop")
    wait_until(lambda: docker.state(stack["web"]) == "exited", "web is down")
    process.kill()
    process.communicate()
    done = local_site.run("backup", "shop", timeout=60)
    assert done.returncode == 0, done.stderr
    assert up(stack)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_in_the_window_brings_back_and_stores_nothing(site, scope, number):
    """What is down comes back before the command leaves; the run is no restore point."""
    stack = slow_read(site, scope)
    process = site.start("backup", "shop")
    wait_until(lambda: down(stack), "both members are down")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert up(stack)
    assert not journal(site).exists(), journal(site).read_text()
    assert [p for p in site.json("points")["points"] if p["state"] == "complete"] == []


def test_reading_commands_in_a_live_window_touch_nothing(local_site, scope):
    """They show what they know; journal and members stay as they are; a second run is refused."""
    stack = slow_read(local_site, scope)
    process = local_site.start("backup", "shop", "--json")
    wait_until(lambda: down(stack), "both members are down")
    before = journal(local_site).read_bytes()
    for command in (
        ("units",),
        ("units", "shop"),
        ("explain", docker.inspect(stack["db"])["Name"].lstrip("/")),
        ("check",),
        ("backup", "shop", "--dry-run"),
    ):
        local_site.ok(*command)
        assert down(stack), command
        assert journal(local_site).read_bytes() == before
    assert "held down just now" in local_site.run("units").stderr
    second = local_site.run("backup", "shop")
    assert second.returncode == 75
    assert "backup shop" in second.stderr
    assert str(process.pid) in second.stderr
    assert down(stack), "the window was over too early for this test"
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert json.loads(out)["runs"][0]["verdict"] == "success"
    assert up(stack)


def test_points_in_a_live_window_waits_or_says_busy(local_site, scope):
    """One Kopia at a time: points waits for it, and never disturbs the run."""
    stack = slow_read(local_site, scope)
    process = local_site.start("backup", "shop")
    wait_until(lambda: down(stack), "both members are down")
    points = local_site.run("points")
    assert points.returncode in (0, 75), points.stderr
    process.communicate(timeout=120)
    assert process.returncode == 0
    assert up(stack)


def test_window_timeout_starts_the_members_and_fails_the_run(local_site, scope):
    """Longer than kopi.window-timeout is too long: started, failed, no restore point."""
    limit = {"kopi.window-timeout": "1s"}
    stack = scope.stack(
        {
            "db": {
                "script": IDLE,
                "volumes": ["data:/data"],
                "labels": labels(local_site) | limit,
            }
        }
    )
    folder = Path(docker.inspect(scope.full("data"))["Mountpoint"])
    with (folder / "huge").open("wb") as file:
        file.truncate(HUGE)
    done = local_site.run("backup", "shop", "--json")
    assert done.returncode == 1
    run = json.loads(done.stdout)["runs"][0]
    assert (run["verdict"], run["reason"]) == ("failed", "deadline")
    assert up(stack)
    assert local_site.json("points")["points"] == []
    assert not journal(local_site).exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_in_a_row_do_not_pierce_the_bringing_back(local_site, scope, number):
    """A second Ctrl-C, a lost terminal: whoever is still stopping is brought back first."""
    stack = slow_stop(local_site, scope)
    process = local_site.start("backup", "shop", "--json")
    wait_until(lambda: docker.state(stack["web"]) == "exited", "web is down")
    for _ in range(3):
        process.send_signal(number)
        time.sleep(0.5)
    out, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number, errors
    assert up(stack)
    assert not journal(local_site).exists()
    (run,) = json.loads(out)["runs"]
    assert (run["verdict"], run["reason"]) == ("failed", "cancelled")


def test_debt_of_an_earlier_run_is_never_forgotten(local_site, scope):
    """A member that cannot start stays in the journal, run after run, until it runs."""
    stack = slow_read(local_site, scope)
    process = local_site.start("backup", "shop")
    wait_until(lambda: down(stack), "both members are down")
    process.kill()
    process.communicate()
    (Path(docker.inspect(scope.full("data"))["Mountpoint"]) / "huge").unlink()
    blocker = scope.network("blocker")
    docker.call("network", "disconnect", "none", stack["web"])
    docker.call("network", "connect", blocker, stack["web"])
    docker.call("network", "rm", blocker)
    for _ in range(2):
        done = local_site.run("backup", "shop")
        assert done.returncode == 1, done.stdout + done.stderr
        assert "STILL DOWN" in done.stderr
        assert "(owed)" in done.stdout
        assert docker.state(stack["db"]) == "running"
    docker.call("network", "disconnect", "--force", blocker, stack["web"])
    docker.call("network", "connect", "none", stack["web"])
    local_site.ok("backup", "shop")
    assert up(stack)


def test_interrupted_run_is_not_restored_before_its_verdict(local_site, scope, tmp_path):
    """Its manifest may be there, but points and restore know that nobody judged it."""
    stack = slow_read(local_site, scope)
    (Path(docker.inspect(scope.full("data"))["Mountpoint"]) / "huge").unlink()
    process = local_site.start("backup", "shop")
    # The run looks at its members again two seconds after their start: long enough to be killed.
    wait_until(lambda: bool(manifests(local_site)), "the manifest is there")
    process.kill()
    process.communicate()
    assert up(stack)
    (point,) = local_site.json("points", "shop")["points"]
    assert point["state"] == "unfinished"
    done = local_site.run("restore", "shop", "--to", str(tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    assert not (tmp_path / "out").exists()
    (point,) = local_site.json("points", "shop")["points"]
    assert (point["state"], point["reason"]) == ("bad", "interrupted")


def manifests(site) -> list[dict]:
    return json.loads(site.kopia("snapshot", "list", "--json"))
