"""What Kopia does not keep, listed in the restore point by the installed command."""

from __future__ import annotations

import json
import os
import socket
import stat
import struct

import pytest
from support import docker
from support.site import WRITER, mountpoint

from kopiwatch.attributes import HardLinks, Time, read, stored

pytestmark = pytest.mark.timeout(180)

ACL_ENTRIES = ((1, 6, -1), (2, 4, 4242), (4, 4, -1), (16, 4, -1), (32, 0, -1))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in ACL_ENTRIES)
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)


@pytest.fixture
def member(site, scope):
    """A labelled container with the volumes ``odd`` and ``plain``; its id."""
    labels = {"kopi.enable": "true", "kopi.unit": "odd", "kopi.instance": site.instance}
    volumes = [f"{scope.volume('odd')}:/data", f"{scope.volume('plain')}:/plain"]
    return scope.run("app", script=WRITER, labels=labels, volumes=volumes)


def make_special(root: bytes) -> None:
    """One of each that Kopia does not keep, owned by somebody else and closed to others."""
    os.makedirs(root + b"/sub/caf\xe9")
    for name in (b"one", b"sub/acl", b"sub/program", b"sub/caf\xe9/f\xfcr"):
        with open(root + b"/" + name, "wb") as file:
            file.write(name)
        os.chmod(root + b"/" + name, 0o600)
    os.link(root + b"/one", root + b"/sub/two")
    os.setxattr(root + b"/one", "user.note", b"\0\xff")
    os.setxattr(root + b"/sub/acl", "system.posix_acl_access", ACL)
    os.setxattr(root + b"/sub", "system.posix_acl_default", ACL)
    os.mkfifo(root + b"/sub/fifo", 0o600)
    os.mknod(root + b"/sub/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
    os.mknod(root + b"/sub/loop", stat.S_IFBLK | 0o600, os.makedev(7, 200))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(os.fsdecode(root) + "/socket")
    os.symlink("nowhere", root + b"/link")
    for name in (b"one", b"sub/acl", b"sub/program", b"sub/fifo", b"sub/null", b"socket"):
        os.chown(root + b"/" + name, 1234, 4321)
    os.setxattr(root + b"/sub/program", "security.capability", CAPABILITY)
    os.utime(root + b"/link", ns=(1, 1_600_000_000_123_456_789), follow_symlinks=False)
    os.utime(root + b"/sub/caf\xe9", ns=(1, 1_500_000_000_987_654_321))


def test_restore_point_lists_exactly_what_kopia_does_not_keep(site, scope, member, tmp_path):
    """Worker with one capability or namespace: of files that belong to others, too."""
    root = os.fsencode(mountpoint(scope.full("odd")))
    make_special(root)
    (run,) = site.json("backup", "odd")["runs"]
    assert (run["verdict"], run["warnings"]) == ("success", [])
    site.ok("restore", "odd", "--to", str(tmp_path / "out"))
    lists = tmp_path / "out" / "recipe" / "attributes" / "volumes"
    assert {path.name for path in lists.iterdir()} == {scope.full("odd"), scope.full("plain")}
    listed = read((lists / scope.full("odd")).read_bytes())
    assert listed.source == f"volumes/{scope.full('odd')}"
    assert listed.links == (HardLinks(listed.links[0].paths),)
    assert set(listed.links[0].paths) == {b"one", b"sub/two"}
    xattrs = {each.path: dict(each.of) for each in listed.xattrs}
    assert xattrs[b"one"] == xattrs[b"sub/two"] == {b"user.note": b"\0\xff"}
    assert xattrs[b"sub/acl"] == {b"system.posix_acl_access": ACL}
    assert xattrs[b"sub/program"] == {b"security.capability": CAPABILITY}
    assert xattrs[b"sub"][b"system.posix_acl_default"] == ACL
    # A folder's default ACL is inherited by what was made in it afterwards.
    made_later = {b"sub/fifo", b"sub/null", b"sub/loop", b"sub/caf\xe9/f\xfcr", b"sub/caf\xe9"}
    assert set(xattrs) - made_later == {b"one", b"sub", b"sub/acl", b"sub/program", b"sub/two"}
    nodes = {node.path: node for node in listed.nodes}
    assert {path: node.kind for path, node in nodes.items()} == {
        b"socket": "socket",
        b"sub/fifo": "fifo",
        b"sub/null": "character",
        b"sub/loop": "block",
    }
    assert (nodes[b"sub/loop"].major, nodes[b"sub/loop"].minor) == (7, 200)
    assert (nodes[b"sub/fifo"].uid, nodes[b"sub/fifo"].gid) == (1234, 4321)
    assert set(listed.names) == {b"sub/caf\xe9", b"sub/caf\xe9/f\xfcr"}
    assert listed.symlinks == (Time(b"link", 1_600_000_000_123_456_789),)
    folders = {each.path: each.mtime for each in listed.folders}
    assert folders[b"sub/caf\xe9"] == 1_500_000_000_987_654_321
    assert set(folders) == {b"", b"sub", b"sub/caf\xe9"}
    assert listed.unread == ()
    kept = tmp_path / "out" / "volumes" / scope.full("odd") / stored(b"sub/caf\xe9/f\xfcr")
    assert kept.read_bytes() == b"sub/caf\xe9/f\xfcr"
    plain = read((lists / scope.full("plain")).read_bytes())
    assert [each.path for each in plain.folders] == [b""]
    assert (plain.nodes, plain.links, plain.xattrs, plain.names) == ((), (), (), ())


def test_list_of_a_source_that_is_no_more_goes_with_it(site, scope, member):
    """The next run stores lists of what it stores, and of nothing else."""
    site.ok("backup", "odd")
    docker.call("rm", "--force", member)
    labels = {"kopi.enable": "true", "kopi.unit": "odd", "kopi.instance": site.instance}
    scope.run("app2", script=WRITER, labels=labels, volumes=[f"{scope.full('odd')}:/data"])
    site.ok("backup", "odd")
    lists = site.state / "staging" / "odd" / "recipe" / "attributes" / "volumes"
    assert [path.name for path in lists.iterdir()] == [scope.full("odd")]


def test_names_that_would_become_one_fail_the_run_before_anything_stops(site, scope, member):
    """Kopia would store both and a restore bring back one; the sentence names them."""
    root = os.fsencode(mountpoint(scope.full("odd")))
    for name in (b"caf\xe9", b"caf\xe8"):
        with open(root + b"/" + name, "wb") as file:
            file.write(name)
    started = docker.inspect(member)["State"]["StartedAt"]
    (run,) = site.json_any("backup", "odd")["runs"]
    assert (run["verdict"], run["reason"]) == ("failed", "names-collide")
    assert "caf\\xe9" in run["message"]
    assert "caf\\xe8" in run["message"]
    assert f"volumes/{scope.full('odd')}" in run["message"]
    assert "kopi.exclude" in run["hint"]
    assert docker.inspect(member)["State"]["StartedAt"] == started
    assert json.loads(site.kopia("snapshot", "list", "--json")) == []
    os.rename(root + b"/caf\xe8", root + b"/coffee")
    assert site.json("backup", "odd")["runs"][0]["verdict"] == "success"


def test_name_that_kopia_keeps_for_itself_fails_the_run_before_anything_stops(site, scope, member):
    """Kopia would store an object of the repository in its place, of whatever unit."""
    root = mountpoint(scope.full("odd"))
    site.ok("backup", "odd")
    (manifest,) = json.loads(site.kopia("snapshot", "list", "--json"))
    (root / "all.kopia-entry").write_text(
        json.dumps({"name": "all", "type": "d", "obj": manifest["rootEntry"]["obj"]})
    )
    started = docker.inspect(member)["State"]["StartedAt"]
    (run,) = site.json_any("backup", "odd")["runs"]
    assert (run["verdict"], run["reason"]) == ("failed", "names-reserved")
    assert f"all.kopia-entry in volumes/{scope.full('odd')}" in run["message"]
    assert docker.inspect(member)["State"]["StartedAt"] == started
    assert len(json.loads(site.kopia("snapshot", "list", "--json"))) == 1
