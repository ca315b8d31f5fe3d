"""Every kind of mount on real containers: stored and brought back, or listed with the reason."""

from __future__ import annotations

import json
import os
import shutil
import socket
import stat
from pathlib import Path

import pytest
from support import docker, tree
from support.site import IDLE, mountpoint

pytestmark = pytest.mark.timeout(180)


@pytest.fixture
def member(site, scope):
    """Start one labelled container of the unit ``app``; its id."""

    def run(
        name: str = "app", *, unit: str = "app", binds: str = "true", start=True, **given
    ) -> str:
        labels = {
            "kopi.enable": "true",
            "kopi.unit": unit,
            "kopi.instance": site.instance,
            "kopi.binds": binds,
        }
        labels |= given.pop("labels", {})
        return scope.run(name, labels=labels, start=start, **({"script": IDLE} | given))

    return run


@pytest.fixture
def restore(site, tmp_path):
    """Restore the newest point of the unit; the folder."""
    made = iter(range(100))

    def run(unit: str = "app") -> Path:
        target = tmp_path / f"out{next(made)}"
        site.ok("restore", unit, "--to", str(target))
        return target

    return run


def backed_up(site, unit: str = "app") -> dict:
    """The one run of a backup that is a success."""
    (run,) = site.json("backup", unit)["runs"]
    assert (run["verdict"], run["message"]) == ("success", "")
    return run


def not_backed_up(site, unit: str = "app") -> dict:
    (run,) = site.json_any("backup", unit)["runs"]
    assert run["verdict"] != "success"
    return run


def coverage(site, unit: str = "app") -> dict[str, tuple[str, str]]:
    """State, and place or reason, by destination."""
    (found,) = site.json("units", unit)["units"]
    return {
        line["destination"]: (line["state"], line["source"] or line["reason"])
        for line in found["coverage"]
    }


def slug(path: Path) -> str:
    return "binds/" + str(path).strip("/").replace("/", "~")


def started(container: str) -> str:
    return docker.inspect(container)["State"]["StartedAt"]


def filled(path: Path, name: str = "file") -> Path:
    """A folder with one file that tells where it lies."""
    path.mkdir(parents=True)
    (path / name).write_text(f"{path}\n")
    return path


def test_each_mount_is_stored_or_listed_with_the_reason(site, scope, member, restore, tmp_path):
    """One container with all kinds: `units`, the recipe and the restored tree agree."""
    folder, read_only = filled(tmp_path / "folder"), filled(tmp_path / "ro")
    linked = filled(tmp_path / "target")
    (tmp_path / "link").symlink_to(linked)
    (tmp_path / "single.conf").write_text("setting\n")
    scope.volume("quiet")
    (mountpoint(scope.full("quiet")) / "file").write_text("quiet\n")
    binds = {
        "/b/folder": f"{folder}:/b/folder",
        "/b/ro": f"{read_only}:/b/ro:ro",
        "/b/link": f"{tmp_path}/link:/b/link",
        "/b/single": f"{tmp_path}/single.conf:/b/single",
        "/b/docker": "/var/run/docker.sock:/b/docker",
        "/b/null": "/dev/null:/b/null",
        "/b/dev": "/dev:/b/dev",
        "/b/proc": "/proc:/b/proc:ro",
        "/b/sys": "/sys:/b/sys:ro",
        "/b/root": "/:/b/root:ro",
        "/b/time": "/etc/hostname:/b/time:ro",
        "/b/repository": f"{site.repository.parent}:/b/repository:ro",
    }
    write = "for d in /v/named /v/anonymous /data /data/sub; do echo $d > $d/file; done"
    container = member(
        script=f"{write}; {IDLE}",
        volumes=["named:/v/named", "quiet:/v/quiet:ro", "outer:/data", "inner:/data/sub"],
        options=[
            *("--volume", "/v/anonymous"),
            *("--mount", "type=tmpfs,dst=/t/mount", "--tmpfs", "/t/flag"),
            *(part for bind in binds.values() for part in ("--volume", bind)),
        ],
    )
    anonymous = f"volumes/{scope.full('app')}:%2Fv%2Fanonymous"
    stored = {
        "/v/named": f"volumes/{scope.full('named')}",
        "/v/anonymous": anonymous,
        "/v/quiet": f"volumes/{scope.full('quiet')}",
        "/data": f"volumes/{scope.full('outer')}",
        "/data/sub": f"volumes/{scope.full('inner')}",
        "/b/folder": slug(folder),
        "/b/ro": slug(read_only),
        "/b/link": slug(tmp_path / "link"),
        "/b/single": slug(tmp_path / "single.conf"),
    }
    reasons = {
        "/t/mount": ("not-supported", "gone with every stop"),
        "/t/flag": ("not-supported", "gone with every stop"),
        "/b/docker": ("not-supported", "socket"),
        "/b/null": ("not-supported", "device"),
        "/b/dev": ("not-supported", "device"),
        "/b/proc": ("not-supported", "kernel"),
        "/b/sys": ("not-supported", "kernel"),
        "/b/root": ("not-supported", "whole file system"),
        "/b/time": ("opt-in", "belongs to the host"),
        "/b/repository": ("not-supported", "kopiwatch's own"),
    }
    found = coverage(site)
    assert {place: line[1] for place, line in found.items() if line[0] == "protected"} == stored
    others = {place: line for place, line in found.items() if line[0] != "protected"}
    assert others.keys() == reasons.keys()
    for place, (state, words) in reasons.items():
        assert others[place][0] == state, place
        assert words in others[place][1], place
    backed_up(site)
    out = restore()
    for place, source in stored.items():
        copy = out / source
        if place.startswith("/b/"):
            original = Path(docker_source(container, place)).resolve()
            if original.is_dir():
                assert tree.differences(original, copy) == [], place
            else:
                assert copy.read_text() == original.read_text()
        else:
            words = "quiet" if place == "/v/quiet" else place
            assert (copy / "file").read_text() == words + "\n"
    assert list((out / stored["/data"] / "sub").iterdir()) == []
    recipe = json.loads((out / "recipe" / "unit.json").read_text())
    listed = {line["destination"]: line["state"] for line in recipe["coverage"]}
    assert listed == {place: line[0] for place, line in found.items()}
    assert set(recipe["expected"]) == {"recipe", *stored.values()}


def docker_source(container: str, destination: str) -> str:
    mounts = docker.inspect(container)["Mounts"]
    return next(m["Source"] for m in mounts if m["Destination"] == destination)


@pytest.fixture
def driver_backed(scope, tmp_path) -> dict[str, list[str]]:
    """Options of volumes that Docker mounts only while somebody uses them."""
    filled(tmp_path / "device")
    return {
        "bound": ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={tmp_path}/device"],
        "memory": ["--opt", "type=tmpfs", "--opt", "device=tmpfs"],
    }


@pytest.mark.parametrize("name", ["bound", "memory"])
def test_driver_backed_volume_is_stored_or_refused(  # noqa: PLR0917 - fixtures
    site, scope, member, restore, driver_backed, name
):
    """A worker reads it although its users are down; namespace access would store it empty."""
    scope.volume(name, *driver_backed[name])
    script = f"echo content > /data/more; {IDLE}"
    container = member(script=script, volumes=[f"{name}:/data"])
    before = started(container)
    if site.access == "namespace":
        run = not_backed_up(site)
        assert (run["verdict"], run["broke_in"], started(container)) == ("failed", "check", before)
        assert "driver options" in run["message"]
        assert "KOPIWATCH_WORKER_IMAGE" in run["hint"]
        return
    backed_up(site)
    assert started(container) != before
    stored = restore() / "volumes" / scope.full(name)
    assert (stored / "more").read_text() == "content\n"


def test_nfs_volume_that_cannot_be_mounted_fails_before_the_window(site, scope, member):
    """Within a deadline, with Docker's own words, and nobody was stopped."""
    scope.volume("nfs", "--opt", "type=nfs", "--opt", "o=addr=203.0.113.1", "--opt", "device=:/x")
    up = member("up", volumes=["plain:/data"])
    member("broken", volumes=["nfs:/data"], start=False)
    before = started(up)
    run = not_backed_up(site)
    assert (run["verdict"], run["window"], started(up)) == ("failed", 0, before)
    words = {"worker": "failed to mount local volume", "namespace": "driver options"}
    assert words[site.access] in run["message"]
    assert scope.full("nfs") in run["message"]


def test_anonymous_volume_keeps_its_identity_when_its_container_is_made_anew(
    site, scope, member, restore
):
    """The volume's name changes, the path in the tree does not."""
    given = {"options": ["--volume", "/data"]}
    first = member(script=f"echo one > /data/file; {IDLE}", **given)
    names = [backed_up(site)["sources"]]
    docker.call("rm", "--force", "--volumes", first)
    member(script=f"echo two > /data/file; {IDLE}", **given)
    names.append(backed_up(site)["sources"])
    paths = [{source["path"] for source in sources} for sources in names]
    place = f"volumes/{scope.full('app')}:%2Fdata"
    assert paths == [{"recipe", place}] * 2
    assert (restore() / place / "file").read_text() == "two\n"


def test_missing_bind_source_is_refused_before_anybody_stops(site, member, tmp_path):
    """Never an empty source: the path is named."""
    folder = filled(tmp_path / "gone")
    container = member(
        volumes=["data:/data"], options=["--mount", f"type=bind,src={folder},dst=/b"]
    )
    before = started(container)
    shutil.rmtree(folder)
    run = not_backed_up(site)
    assert (run["verdict"], run["window"], started(container)) == ("failed", 0, before)
    assert str(folder) in run["message"]
    assert not folder.exists(), "a worker made an empty folder in its place"


def test_link_that_points_elsewhere_now_is_read_where_it_points(site, member, restore, tmp_path):
    """As the container sees it from its next start on, which the backup brings."""
    link = tmp_path / "link"
    link.symlink_to(filled(tmp_path / "one"))
    container = member(volumes=[f"{link}:/data"])
    backed_up(site)
    link.unlink()
    link.symlink_to(filled(tmp_path / "two"))
    backed_up(site)
    assert (restore() / slug(link) / "file").read_text() == f"{tmp_path}/two\n"
    assert docker.call("exec", container, "cat", "/data/file") == f"{tmp_path}/two"


def test_file_that_was_replaced_is_read_as_it_is_now(site, member, restore, tmp_path):
    """A running container still sees the old one, until its next start."""
    file = tmp_path / "app.conf"
    file.write_text("one\n")
    container = member(volumes=[f"{file}:/etc/app.conf"])
    backed_up(site)
    (tmp_path / "new").write_text("two\n")
    (tmp_path / "new").rename(file)
    assert docker.call("exec", container, "cat", "/etc/app.conf") == "one"
    backed_up(site)
    assert (restore() / slug(file)).read_text() == "two\n"
    assert docker.call("exec", container, "cat", "/etc/app.conf") == "two"


@pytest.mark.parametrize("kind", ["socket", "FIFO", "device"])
def test_bind_of_what_holds_no_data_is_refused_before_anybody_stops(site, member, tmp_path, kind):
    """Nothing is silently empty; left out by label, the rest is stored."""
    path = tmp_path / "odd"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "FIFO":
        os.mkfifo(path)
    else:
        os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 3))
    given = {"volumes": ["data:/data", f"{path}:/odd"]}
    container = member(**given)
    before = started(container)
    run = not_backed_up(site)
    assert (run["verdict"], run["window"], started(container)) == ("failed", 0, before)
    assert f"is a {kind}" in run["message"]
    assert "kopi.exclude" in run["hint"]
    docker.call("rm", "--force", container)
    member(**given, labels={"kopi.exclude": "/odd"})
    backed_up(site)
    assert coverage(site)["/odd"] == ("left-out", "kopi.exclude names it")


@pytest.mark.parametrize("place", ["repository", "folder", "state/locks"])
def test_link_to_our_own_folders_is_refused_before_anybody_stops(site, member, tmp_path, place):
    """By its text the path has nothing to do with them; the kernel knows better."""
    link = tmp_path / "link with blanks"
    link.symlink_to(site.folder if place == "folder" else site.folder / place)
    container = member(volumes=["data:/data", f"{link}:/b"])
    before = started(container)
    run = not_backed_up(site)
    assert (run["verdict"], run["window"], started(container)) == ("failed", 0, before)
    assert "own repository or state" in run["message"]
    assert "symbolic link" in run["hint"]
