"""Retention on the real thing: what a success lets go, and that nothing else does."""

from __future__ import annotations

import json

import pytest
from support import docker
from support.site import IDLE, Site, mountpoint, wait_until

from kopiwatch.units.retention import Retention

pytestmark = pytest.mark.timeout(240)

NOTHING = dict.fromkeys(Retention().numbers, "0")


def member(scope, site, **numbers: int) -> str:
    """A unit ``shop`` with one volume; it is healthy as long as ``/data/ok`` is there."""
    labels = {
        "kopi.enable": "true",
        "kopi.unit": "shop",
        "kopi.instance": site.instance,
        "kopi.start-timeout": "2s",
        **{f"kopi.retention.{name}": str(n) for name, n in (NOTHING | numbers).items()},
    }
    scope.volume("data")
    (mountpoint(scope.full("data")) / "ok").touch()
    health = ["--health-cmd", "test -f /data/ok", "--health-interval", "1s"]
    health += ["--health-retries", "300", "--health-timeout", "5s"]
    container = scope.run(
        "shop", script=IDLE, labels=labels, volumes=["data:/data"], options=health
    )

    def healthy() -> bool:
        return docker.inspect(container)["State"]["Health"]["Status"] == "healthy"

    wait_until(healthy, "the member is healthy")
    return container


def backup(site: Site, scope, number: int) -> dict[str, object]:
    """Write a number into the volume and back it up; the run."""
    (mountpoint(scope.full("data")) / "number").write_text(str(number))
    done = site.run("backup", "shop", "--json")
    (run,) = json.loads(done.stdout)["runs"]
    return run


def states(site: Site) -> list[tuple[str, str]]:
    return [(p["run"], p["state"]) for p in site.json("points", "shop")["points"]]


def more_points(site: Site, number: int) -> None:
    """Complete points of the unit, made by one launch of Kopia itself."""
    folders = [site.folder / "more" / str(n) for n in range(number)]
    for folder in folders:
        folder.mkdir(parents=True)
        (folder / "f").touch()
    site.kopia(
        *("snapshot", "create", *map(str, folders), "--tags=kopiwatch-run:more"),
        f"--override-source=kopiwatch@testhost:/mnt/@{site.instance}/shop",
    )


def test_retention_keeps_what_the_labels_say(local_site, scope, tmp_path):
    """Two complete points are left of four; a failed run deletes nothing; the oldest restores."""
    site = local_site
    container = member(scope, site, latest=2)
    runs = [backup(site, scope, number) for number in range(4)]
    assert [(run["verdict"], run["deleted"]) for run in runs] == [
        *(("success", 0), ("success", 0), ("success", 1), ("success", 1))
    ]
    assert [phase["phase"] for phase in runs[0]["phases"]][-3:] == ["verify", "keep", "report"]
    ids = [run["run"] for run in runs]
    good = [(ids[2], "complete"), (ids[3], "complete")]
    assert states(site) == good

    (mountpoint(scope.full("data")) / "ok").unlink()
    failed = backup(site, scope, 4)
    assert (failed["verdict"], failed["reason"], failed["deleted"]) == ("failed", "health", 0)
    assert states(site) == [*good, (failed["run"], "bad")]

    for number, run in ((2, ids[2]), (3, "latest")):
        target = tmp_path / str(number)
        site.ok("restore", "shop", "--at", run, "--to", str(target))
        restored = target / "volumes" / scope.full("data") / "number"
        assert restored.read_text() == str(number)
    told = site.json("repo", "retention", "show", "shop")["units"][0]
    assert told["rule"] == {name: int(n) for name, n in (NOTHING | {"latest": 2}).items()}
    assert [point["kept"] for point in told["points"]] == [
        ["latest-2"],
        ["latest-1", "last-good"],
        ["bad-1", "recent"],
    ]
    docker.call("rm", "--force", container)


def test_retention_by_hand(local_site, scope):
    """apply deletes what show says; a gone unit must be named; eleven at once need --yes."""
    site = local_site
    container = member(scope, site, latest=20)
    runs = [backup(site, scope, number)["run"] for number in range(3)]
    assert len(states(site)) == 3
    # The same containers with another rule: what they had is more than it keeps.
    docker.call("rm", "--force", container)
    assert "left alone" in site.ok("repo", "retention", "apply")
    assert len(states(site)) == 3
    container = member(scope, site, latest=2)
    dry = site.ok("repo", "retention", "apply", "--dry-run")
    assert f"would delete {runs[0]} of " in dry
    assert "GOES" in site.ok("repo", "retention", "show", "shop")
    assert len(states(site)) == 3
    out = site.ok("repo", "retention", "apply", "shop")
    assert f"deleted {runs[0]} of " in out
    assert [run for run, _ in states(site)] == runs[1:]
    docker.call("rm", "--force", container)
    site.extra |= {f"KOPIWATCH_RETENTION_{name.upper()}": n for name, n in NOTHING.items()}
    assert site.run("repo", "retention", "apply", "shop").returncode == 3
    site.extra["KOPIWATCH_RETENTION_LATEST"] = "1"
    done = site.run("repo", "retention", "apply", "shop", "--json")
    assert "the configuration's numbers hold" in done.stderr
    (told,) = json.loads(done.stdout)["units"]
    assert (told["gone"], len(told["deleted"])) == (True, 1)
    assert [run for run, _ in states(site)] == runs[2:]
    more_points(site, 11)
    refused = site.run("repo", "retention", "apply", "shop")
    assert refused.returncode == 2
    assert "11 restore points" in refused.stderr
    assert "--yes" in refused.stderr
    assert len(states(site)) == 12
    site.ok("repo", "retention", "apply", "shop", "--yes")
    assert len(states(site)) == 1
