"""Others who write to a unit's data: found, shown, and no success while they do."""

from __future__ import annotations

import threading

import pytest
from support import docker
from support.site import IDLE, wait_until

pytestmark = pytest.mark.timeout(180)

SLOW = "trap '' TERM; while :; do sleep 0.05; done"
"""Takes its whole stop timeout to end, which makes a long window."""


@pytest.fixture
def member(local_site, scope):
    """Start one labelled container; its id."""

    def run(name: str, *, unit: str = "app", **given) -> str:
        labels = {"kopi.enable": "true", "kopi.unit": unit, "kopi.instance": local_site.instance}
        labels |= given.pop("labels", {})
        return scope.run(name, labels=labels, **({"script": IDLE} | given))

    return run


def backup(site, unit: str = "app") -> dict:
    (run,) = site.json_any("backup", unit)["runs"]
    return run


@pytest.mark.parametrize("labelled", [True, False])
def test_writer_of_another_unit_makes_it_partial_while_it_runs(local_site, scope, member, labelled):
    """Labelled or not; it is shown before, and once it is stopped all is well."""
    member("app", volumes=["data:/data"])
    if labelled:
        other = member("other", unit="other", volumes=["data:/x"])
    else:
        other = scope.run("other", script=IDLE, volumes=["data:/x"])
    (shown,) = local_site.json("units", "app")["units"]
    assert any(scope.full("other") in line for line in shown["warnings"]), shown["warnings"]
    run = backup(local_site)
    assert (run["verdict"], run["reason"]) == ("partial", "interference")
    assert scope.full("other") in run["message"]
    assert "kopi.unit" in run["hint"]
    docker.call("stop", other)
    assert backup(local_site)["verdict"] == "success"
    states = [p["state"] for p in local_site.json("points", "app")["points"]]
    assert states.count("complete") == 1


def test_reader_of_the_same_volume_is_no_writer(local_site, scope, member):
    member("app", volumes=["data:/data"])
    scope.run("other", script=IDLE, volumes=["data:/x:ro"])
    assert backup(local_site)["verdict"] == "success"


def test_writer_through_a_folder_above_is_found(local_site, scope, member, tmp_path):
    """A bind of the parent writes to what the bind holds."""
    (tmp_path / "up" / "down").mkdir(parents=True)
    member("app", labels={"kopi.binds": "true"}, volumes=[f"{tmp_path}/up/down:/data"])
    other = scope.run("other", script=IDLE, volumes=[f"{tmp_path}/up:/x"])
    (shown,) = local_site.json("units", "app")["units"]
    assert any(scope.full("other") in line for line in shown["warnings"]), shown["warnings"]
    run = backup(local_site)
    assert (run["verdict"], run["reason"]) == ("partial", "interference")
    docker.call("stop", other)
    assert backup(local_site)["verdict"] == "success"


def passing(local_site, scope, member, volume: str) -> dict:
    """A run during whose window somebody runs ``docker run --rm`` with this volume."""
    slow = member("app", script=SLOW, volumes=["data:/data"], labels={"kopi.stop-timeout": "6s"})
    full = scope.volume(volume)
    runs: list[dict] = []
    thread = threading.Thread(target=lambda: runs.append(backup(local_site)))
    thread.start()
    journal = local_site.state / "journal" / "app.json"
    wait_until(lambda: journal.exists() and scope.full("app") in journal.read_text(), "the window")
    given = ("--rm", "--network=none", "--name", scope.full("passer"), "--label", scope.label)
    docker.call("run", *given, "--volume", f"{full}:/x", scope.image, "touch", "/x/y")
    assert docker.state(slow) == "running", "it was gone again before the read began"
    thread.join()
    return runs[0]


def test_writer_that_came_and_went_in_the_window_is_found(local_site, scope, member):
    """``docker run --rm``: nobody is there any more when the read ends."""
    run = passing(local_site, scope, member, "data")
    assert (run["verdict"], run["reason"]) == ("partial", "interference")
    assert scope.full("passer") in run["message"]
    assert docker.state(scope.full("app")) == "running"


def test_passer_by_with_a_volume_of_its_own_is_no_writer(local_site, scope, member):
    run = passing(local_site, scope, member, "elsewhere")
    assert (run["verdict"], run["message"]) == ("success", "")
