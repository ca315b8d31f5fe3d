"""What a verdict refuses, the operator's word on it, and a unit under a new name."""

from __future__ import annotations

import json
import os
import pwd
import shutil
from pathlib import Path

import pytest
from support import docker
from support.sidecar import sidecar
from support.site import IDLE, mountpoint

pytestmark = pytest.mark.timeout(240)


def start(site, scope, *volumes: str, **more: str) -> str:
    """One labelled container of unit ``app`` that mounts these volumes; its id."""
    labels = {"kopi.enable": "true", "kopi.unit": "app", "kopi.instance": site.instance}
    labels |= {f"kopi.{name}": value for name, value in more.items()}
    mounts = [f"{name}:/{name}" for name in volumes]
    return scope.run("app", script=IDLE, labels=labels, volumes=mounts)


def fill(scope, name: str, content: bytes = b"precious") -> Path:
    """A volume with two files; where it lies."""
    scope.volume(name)
    folder = mountpoint(scope.full(name))
    (folder / "one").write_bytes(content)
    (folder / "two").write_bytes(b"2")
    return folder


def clear(folder: Path) -> None:
    for entry in folder.iterdir():
        entry.unlink()


def back_up(site, unit: str = "app") -> tuple[str, str]:
    """Verdict and reason of a run, and its exit code is what they say."""
    done = site.run("backup", unit, "--json")
    (run,) = json.loads(done.stdout)["runs"]
    assert (done.returncode == 0) == (run["verdict"] == "success"), done.stderr
    assert (run["exit_code"], bool(run["hint"])) == (
        (0, False) if run["verdict"] == "success" else (1, True)
    )
    return run["verdict"], run["reason"]


def states(site, unit: str = "app") -> list[tuple[str, str, str]]:
    points = site.json("points", unit)["points"]
    return [(point["state"], point["reason"], point["accepted"]) for point in points]


def refused(site, *args: str) -> tuple[int, str]:
    done = site.run(*args)
    return done.returncode, done.stderr


GOOD = ("complete", "", "")
EMPTY = ("bad", "source-empty", "")
ACCEPTED = ("complete", "", "source-empty")


def test_emptied_volume_is_refused_until_it_is_accepted(site, scope, tmp_path):
    """The good point stays the latest; accepted, the new one is, on every host."""
    folder = fill(scope, "data")
    start(site, scope, "data")
    volume = f"volumes/{scope.full('data')}"
    assert refused(site, "accept", "app")[0] == 2
    assert back_up(site) == ("success", "")
    code, said = refused(site, "accept", "app")
    assert (code, "nothing was refused" in said) == (2, True)

    clear(folder)
    assert back_up(site) == ("partial", "source-empty")
    assert states(site) == [GOOD, EMPTY]
    site.ok("restore", "app", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out" / volume / "one").read_bytes() == b"precious"

    code, said = refused(site, "accept", "app", "other")
    assert (code, volume in said) == (2, True)
    plan = site.json("accept", "app", "--dry-run")
    assert (plan["dry_run"], plan["accepted"]["reason"]) == (True, "source-empty")
    assert states(site) == [GOOD, EMPTY]
    done = site.run("accept", "app", volume, "--json")
    assert "2 files, 9 B → 0 files" in done.stderr
    (source,) = json.loads(done.stdout)["accepted"]["sources"]
    assert (source["path"], source["files_before"], source["files"]) == (volume, 2, 0)

    assert states(site) == [GOOD, ACCEPTED]
    assert "complete (accepted: source-empty)" in site.ok("points", "app")
    assert back_up(site) == ("success", "")
    _, row, _ = site.json("history")["runs"]
    assert (row["verdict"], row["accepted"]) == ("partial", True)
    assert row["accepted_by"].startswith(pwd.getpwuid(os.getuid()).pw_name + "@")
    assert row["snapshot"] == site.json("points", "app")["points"][1]["snapshot"]
    assert "(accepted)" in site.ok("history")

    before = site.json("points", "app")
    shutil.rmtree(site.state)
    assert site.json("points", "app") == before, "a fresh host sees what the old one saw"
    site.ok("history", "--rebuild")
    rows = site.json("history")["runs"]
    assert [(row["verdict"], row["accepted"]) for row in rows] == [
        *(("success", False), ("partial", True)),
        ("success", False),
    ]
    assert back_up(site) == ("success", "")


def test_refused_point_can_be_accepted_on_a_fresh_host(local_site, scope):
    """Everything that is needed stands in the repository."""
    folder = fill(scope, "data")
    start(local_site, scope, "data")
    back_up(local_site)
    clear(folder)
    back_up(local_site)
    shutil.rmtree(local_site.state)
    done = local_site.json("accept", "app")
    assert (done["recorded"], done["accepted"]["sources"][0]["reason"]) == (True, "empty")
    assert states(local_site) == [GOOD, ACCEPTED]
    rows = local_site.json("history")["runs"]
    assert [(row["verdict"], row["accepted"]) for row in rows] == [
        ("success", False),
        ("partial", True),
    ]
    assert back_up(local_site) == ("success", "")


def test_collapse_is_refused_and_its_figures_told(local_site, scope):
    """Under a fifth of what it was; a label may say otherwise."""
    folder = fill(scope, "data", b"x" * 3_000_000)
    container = start(local_site, scope, "data")
    back_up(local_site)
    (folder / "one").write_bytes(b"x" * 500_000)
    done = local_site.run("backup", "app")
    assert done.returncode == 1
    assert "has collapsed: 2 files, 2.9 MiB → 2 files, 488.3 KiB" in done.stdout
    assert f"kopiwatch accept app volumes/{scope.full('data')}" in done.stderr
    docker.call("rm", "--force", container)
    start(local_site, scope, "data", collapse="10%")
    assert back_up(local_site) == ("success", "")


def test_removed_mount_has_vanished_until_it_is_accepted_or_left_out(local_site, scope):
    """A mount that is gone is told apart from one that labels leave out."""
    fill(scope, "data")
    fill(scope, "more")
    fill(scope, "cache")
    container = start(local_site, scope, "data", "more", "cache")
    back_up(local_site)
    docker.call("rm", "--force", container)
    container = start(local_site, scope, "data", "cache")
    assert back_up(local_site) == ("partial", "source-vanished")
    assert states(local_site)[-1] == ("bad", "source-vanished", "")
    out = local_site.ok("accept", "app", f"volumes/{scope.full('more')}")
    assert "its restore point is complete" in out
    assert back_up(local_site) == ("success", "")
    docker.call("rm", "--force", container)
    start(local_site, scope, "data", "cache", exclude=scope.full("cache"))
    done = local_site.run("backup", "app")
    assert done.returncode == 0
    assert f"volumes/{scope.full('cache')} is left out from now on" in done.stderr


def test_living_daemon_learns_of_an_acceptance(local_site, scope):
    """Freshness and the failing series follow within seconds, without a restart."""
    folder = fill(scope, "data")
    start(local_site, scope, "data", schedule="off")
    with sidecar(local_site) as daemon:
        back_up(local_site)
        first = daemon.metric("unit_last_success_timestamp_seconds", unit="app")
        clear(folder)
        assert back_up(local_site) == ("partial", "source-empty")
        daemon.wait_metric(1, "unit_consecutive_failures", 20, unit="app")
        local_site.ok("accept", "app")
        daemon.wait_metric(0, "unit_consecutive_failures", 20, unit="app")
        assert daemon.metric("unit_last_run_success", unit="app") == 1
        assert daemon.metric("unit_last_success_timestamp_seconds", unit="app") > first
        assert daemon.metric("unit_run_failures_total", unit="app") == 1
        assert back_up(local_site) == ("success", "")


def compose(site, scope, project: str) -> str:
    """A Compose project with a volume of its own and a shared one that keeps its name."""
    labels = {"kopi.enable": "true", "kopi.instance": site.instance}
    volumes = [f"{project}_data:/data", "shared:/shared"]
    stack = {"db": {"script": IDLE, "volumes": volumes, "labels": labels}}
    return scope.stack(stack, project)["db"]


def test_renamed_project_keeps_its_history(local_site, scope):
    """Points, record and deadline move along; the next run is incremental and a success."""
    old, new = scope.full("old"), scope.full("new")
    fill(scope, "old_data")
    shared = fill(scope, "shared")
    container = compose(local_site, scope, "old")
    assert back_up(local_site, old) == ("success", "")
    assert back_up(local_site, old) == ("success", "")
    code, said = refused(local_site, "adopt", old, new)
    assert (code, "still has containers" in said) == (2, True)

    docker.call("rm", "--force", container)
    for file in mountpoint(scope.full("old_data")).iterdir():
        scope.volume("new_data")
        shutil.copy2(file, mountpoint(scope.full("new_data")))
    compose(local_site, scope, "new")
    before = local_site.json("points", old)["points"]
    plan = local_site.json("adopt", old, new, "--dry-run")["adopted"]
    assert (plan["points"], plan["runs"], plan["mixed"]) == (2, 2, 0)
    assert local_site.json("points", old)["points"] == before
    local_site.ok("adopt", old, new)

    assert refused(local_site, "points", old)[0] == 2
    after = local_site.json("points", new)["points"]
    for was, now in zip(before, after, strict=True):
        assert was["snapshot"] != now["snapshot"]
        assert now == was | {"snapshot": now["snapshot"], "unit": new}
    rows = local_site.json("history", "--unit", new)["runs"]
    assert [row["snapshot"] for row in rows] == [point["snapshot"] for point in after]
    status = json.loads(local_site.run("status", "--json").stdout)
    board = {unit["unit"]: unit for unit in status["board"]["units"]}
    assert set(board) == {new}
    assert board[new]["last_success"] == after[-1]["at"]

    assert back_up(local_site, new) == ("success", ""), "volumes/…old_data has not vanished"
    manifests = json.loads(local_site.kopia("snapshot", "list", "--json"))
    newest = max(manifests, key=lambda each: each["startTime"])
    assert newest["source"]["path"].endswith(f"/{new}")
    assert newest["stats"]["cachedFiles"] >= len(list(shared.iterdir()))
    assert refused(local_site, "adopt", old, new)[0] == 2, "nothing is left of it"


def test_renamed_project_with_new_empty_volumes_has_lost_its_data(local_site, scope):
    """That is what Compose makes of a new name when nobody copies: it is said after adopting."""
    old, new = scope.full("old"), scope.full("new")
    fill(scope, "old_data")
    container = compose(local_site, scope, "old")
    back_up(local_site, old)
    docker.call("rm", "--force", container)
    compose(local_site, scope, "new")
    local_site.ok("adopt", old, new)
    assert back_up(local_site, new) == ("partial", "source-empty")


def test_units_that_lived_side_by_side_are_not_mixed_by_chance(local_site, scope):
    """Their points would stand among each other; --yes says that it is meant."""
    old, new = scope.full("old"), scope.full("new")
    fill(scope, "old_data")
    fill(scope, "new_data")
    container = compose(local_site, scope, "old")
    compose(local_site, scope, "new")
    back_up(local_site, old)
    back_up(local_site, new)
    back_up(local_site, old)
    docker.call("rm", "--force", container)
    code, said = refused(local_site, "adopt", old, new)
    assert (code, "would be mixed" in said) == (2, True)
    assert len(local_site.json("points", old)["points"]) == 2
    local_site.ok("adopt", old, new, "--yes")
    assert len(local_site.json("points", new)["points"]) == 3
