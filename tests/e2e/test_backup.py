"""From a label to a snapshot and back."""

from __future__ import annotations

import json

import pytest
from support import docker, tree
from support.site import make_stack, mountpoint

pytestmark = pytest.mark.timeout(180)


def test_backup_stores_what_restore_brings_back(site, scope, tmp_path):
    """Every file's content, mode, owner, time and link comes back, and the members run again."""
    stack = make_stack(site, scope)
    run = site.json("backup", "shop")["runs"][0]
    assert (run["verdict"], run["reason"]) == ("success", "")
    assert [docker.state(container) for container in stack.values()] == ["running", "running"]
    for container in stack.values():
        docker.call("kill", container)
    before = tree.describe(mountpoint(scope.full("files")))
    site.ok("restore", "shop", "--to", str(tmp_path / "out"))
    restored = tmp_path / "out" / "volumes" / scope.full("files")
    log = before.pop(b"log")
    after = tree.describe(restored)
    assert after.pop(b"log") != log, "the writer went on after the backup"
    assert after == before
    recipe = json.loads((tmp_path / "out" / "recipe" / "unit.json").read_text())
    assert recipe["expected"] == [
        "recipe",
        f"volumes/{scope.full('data')}",
        f"volumes/{scope.full('files')}",
    ]
    assert {c["Name"].lstrip("/").split("-shop-")[1] for c in recipe["containers"]} == {
        "db-1",
        "web-1",
    }


def test_backup_of_one_volume_restores_alone(local_site, scope, tmp_path):
    """--volume takes Docker's name or the Compose file's, and nothing else is written."""
    make_stack(local_site, scope)
    local_site.ok("backup", "shop")
    full = scope.full("files")
    local_site.ok("restore", "shop", "--volume", full, "--to", str(tmp_path / "out"))
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["volumes"]
    assert [p.name for p in (tmp_path / "out" / "volumes").iterdir()] == [full]
    refused = local_site.run("restore", "shop", "--volume", "nope", "--to", str(tmp_path / "two"))
    assert refused.returncode == 2
    assert full in refused.stderr


def test_backup_is_one_manifest_with_our_tags(local_site, scope):
    """One run makes one snapshot, at the unit's place, and points shows it."""
    make_stack(local_site, scope)
    run = local_site.json("backup", "shop")["runs"][0]
    (manifest,) = json.loads(local_site.kopia("snapshot", "list", "--json"))
    assert manifest["source"] == {
        "host": "testhost",
        "userName": "kopiwatch",
        "path": f"/mnt/@{local_site.instance}/shop",
    }
    assert manifest["tags"]["tag:kopiwatch-run"] == run["run"]
    (point,) = local_site.json("points", "shop")["points"]
    assert (point["run"], point["state"]) == (run["run"], "complete")


def test_backup_leaves_a_stopped_member_stopped(local_site, scope):
    """Who did not run before does not run afterwards."""
    stack = make_stack(local_site, scope)
    docker.call("stop", stack["web"])
    run = local_site.json("backup", "shop")["runs"][0]
    assert run["verdict"] == "success"
    assert docker.state(stack["web"]) == "exited"
    assert docker.state(stack["db"]) == "running"


def test_backup_of_a_unit_without_volumes_stores_its_recipe(local_site, scope):
    """Nobody is stopped, and it is said."""
    labels = {"kopi.enable": "true", "kopi.unit": "bare", "kopi.instance": local_site.instance}
    container = scope.run("bare", labels=labels)
    started = docker.inspect(container)["State"]["StartedAt"]
    out = local_site.ok("backup", "bare")
    assert "its recipe only" in out
    assert docker.inspect(container)["State"]["StartedAt"] == started
    assert "recipe" in local_site.ok("units", "bare")


def test_backup_stores_a_bind_mount_and_a_single_file(site, scope, tmp_path):
    """Binds that were opted in are stored, a single file as a file."""
    folder = tmp_path / "bound"
    folder.mkdir()
    tree.make_odd(folder)
    (tmp_path / "app.conf").write_bytes(b"setting = 1\n")
    labels = {
        "kopi.enable": "true",
        "kopi.unit": "binds",
        "kopi.binds": "true",
        "kopi.instance": site.instance,
    }
    volumes = [f"{folder}:/data", f"{tmp_path}/app.conf:/etc/app.conf:ro"]
    scope.run("binds", labels=labels, volumes=volumes)
    site.ok("backup", "binds")
    site.ok("restore", "binds", "--to", str(tmp_path / "out"))
    slug = str(folder).strip("/").replace("/", "~")
    assert tree.differences(folder, tmp_path / "out" / "binds" / slug) == []
    single = str(tmp_path / "app.conf").strip("/").replace("/", "~")
    assert (tmp_path / "out" / "binds" / single).read_bytes() == b"setting = 1\n"


def test_dry_run_touches_nothing(local_site, scope):
    """It says who would be stopped, in order, and opens no repository."""
    stack = make_stack(local_site, scope)
    started = [docker.inspect(c)["State"]["StartedAt"] for c in stack.values()]
    local_site.repository.rename(local_site.folder / "elsewhere")
    out = local_site.ok("backup", "shop", "--dry-run")
    assert "would stop: " in out
    assert out.index("shop-web") < out.index("shop-db")
    assert [docker.inspect(c)["State"]["StartedAt"] for c in stack.values()] == started
