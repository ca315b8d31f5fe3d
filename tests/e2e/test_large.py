"""The largest stack of the tests: 3 services, 4 volumes, a bind mount, 20,000 files, 700 MiB."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from support import docker, tree
from support.site import IDLE, mountpoint

pytestmark = pytest.mark.timeout(600)

FILES = 20_000
SIZE = 700 * 1024 * 1024 // FILES


def fill(folder: Path, count: int) -> None:
    """Files of 36 KB, two thirds of them random, in folders of 200, with various owners."""
    for number in range(count):
        place = folder / f"{number // 200:04d}"
        if number % 200 == 0:
            place.mkdir()
        path = place / f"{number:06d}"
        path.write_bytes(os.urandom(SIZE // 3 * 2) + bytes(SIZE - SIZE // 3 * 2))
        if number % 7 == 0:
            os.chown(path, 1000 + number % 5, 2000)
            path.chmod(0o640)
        if number % 50 == 0:
            (place / f"link{number}").symlink_to(path.name)


def test_large_stack_is_one_manifest_and_comes_back_equal(local_site, scope, tmp_path):
    """Every file's content, mode, owner, time and link is equal; differences would be printed."""
    labels = {
        "kopi.enable": "true",
        "kopi.unit": "large",
        "kopi.binds": "true",
        "kopi.instance": local_site.instance,
    }
    bind = tmp_path / "bound"
    bind.mkdir()
    on_db = "db:service_started:false"
    stack = scope.stack(
        {
            "db": {"script": IDLE, "volumes": ["a:/a", "b:/b"], "labels": labels},
            "app": {
                "script": IDLE,
                "volumes": ["c:/c", f"{bind}:/bound"],
                "labels": labels,
                "depends_on": on_db,
            },
            "web": {"script": IDLE, "volumes": ["d:/d"], "labels": labels, "depends_on": on_db},
        }
    )
    places = {f"volumes/{scope.full(name)}": mountpoint(scope.full(name)) for name in "abcd"}
    places["binds/" + str(bind).strip("/").replace("/", "~")] = bind
    for folder in places.values():
        fill(folder, FILES // len(places))
    tree.make_odd(bind)
    first = local_site.json("backup", "large")["runs"][0]
    assert first["verdict"] == "success"
    assert sum(source["files"] for source in first["sources"]) > FILES
    stored = json.loads(local_site.kopia("snapshot", "list", "--json"))
    # A hot pass is another source, and no restore point.
    paths = [each["source"]["path"] for each in stored]
    assert len([path for path in paths if not path.startswith("/mnt/.hot/")]) == 1, paths
    assert len(local_site.json("points", "large")["points"]) == 1
    assert [docker.state(container) for container in stack.values()] == ["running"] * 3
    out = tmp_path / "out"
    local_site.ok("restore", "large", "--to", str(out), timeout=300)
    for path, folder in places.items():
        assert tree.differences(folder, out / path) == []
