"""The walk of the sources, on real files."""

from __future__ import annotations

import errno
import os
import socket
import stat
import struct
import time

import pytest

from kopiwatch.attributes import HardLinks, Node, Time, Unread, Xattrs, read
from kopiwatch.worker import survey as module
from kopiwatch.worker.sources import disk_of
from kopiwatch.worker.speech import Refused
from kopiwatch.worker.survey import survey

HOUR = 3600.0
ACL_ENTRIES = ((1, 6, -1), (2, 4, 4242), (4, 4, -1), (16, 4, -1), (32, 0, -1))
ACL = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in ACL_ENTRIES)
"""user::rw- user:4242:r-- group::r-- mask::r-- other::---, as linux/posix_acl_xattr.h has it."""
CAPABILITY = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)
"""cap_net_bind_service=ep, revision 2, as linux/capability.h has it."""


class Source:
    """A folder to be walked, and what the walk made of it."""

    def __init__(self, folder):
        self.root = folder / "source"
        self.root.mkdir()
        self.into = folder / "lists"
        self.into.mkdir()
        self.figures = {}

    def walk(self, since=0.0, root=None):
        order = [{"path": str(root or self.root), "name": "volumes/data"}]
        (self.figures,) = survey(order, since, str(self.into))["sources"]
        return self.listed()

    @property
    def list(self):
        return self.into / "volumes" / "data"

    def listed(self):
        return read(self.list.read_bytes())

    def write(self, name, content=b"content"):
        path = os.path.join(os.fsencode(self.root), os.fsencode(name))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(content)
        return path


@pytest.fixture
def source(tmp_path):
    return Source(tmp_path)


def test_plain_files_are_counted_and_not_listed(source):
    """Figures count regular files; the list has the folders' times alone."""
    source.write("a", b"12345")
    source.write("sub/b", b"1")
    listed = source.walk()
    figures = source.figures
    assert (figures["files"], figures["bytes"], figures["folders"]) == (2, 6, 2)
    assert figures["kept_aside"] == {}
    assert {each.path for each in listed.folders} == {b"", b"sub"}
    assert listed.source == "volumes/data"
    assert (listed.nodes, listed.links, listed.xattrs, listed.names) == ((), (), (), ())


def test_times_of_folders_and_links_are_exact(source):
    """To the nanosecond, and of the link itself."""
    source.write("sub/file")
    os.symlink("nowhere", source.root / "link")
    os.utime(source.root / "link", ns=(1, 123_456_789), follow_symlinks=False)
    os.utime(source.root / "sub", ns=(1, 987_654_321))
    os.utime(source.root, ns=(1, -5))
    listed = source.walk()
    assert listed.symlinks == (Time(b"link", 123_456_789),)
    assert set(listed.folders) == {Time(b"", -5), Time(b"sub", 987_654_321)}


def test_hard_links_are_groups(source):
    """All names of a file stand together; names outside the source are counted."""
    one = source.write("one")
    os.makedirs(source.root / "sub")
    os.link(one, source.root / "sub" / "two")
    os.link(one, source.into / "outside")
    os.link(source.write("half"), source.into / "away")
    listed = source.walk()
    (group,) = listed.links
    assert HardLinks(tuple(sorted(group.paths)), group.outside) == HardLinks(
        (b"one", b"sub/two"), 1
    )
    assert source.figures["kept_aside"] == {"hard-link": 1}
    assert source.figures["outside_links"] == 2


def test_fifo_and_socket_are_listed(source):
    """With mode, owner and time: Kopia leaves them out without a word."""
    os.mkfifo(source.root / "fifo")
    os.chmod(source.root / "fifo", 0o1640)
    os.chown(source.root / "fifo", 12, 34)
    os.utime(source.root / "fifo", ns=(1, 77))
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(source.root / "s"))
    nodes = {node.path: node for node in source.walk().nodes}
    assert nodes[b"fifo"] == Node(b"fifo", "fifo", 0o1640, 12, 34, 77)
    assert nodes[b"s"].kind == "socket"
    assert source.figures["files"] == 0
    assert source.figures["kept_aside"] == {"fifo": 1, "socket": 1}


@pytest.mark.parametrize(("form", "kind"), [(stat.S_IFCHR, "character"), (stat.S_IFBLK, "block")])
def test_device_is_listed_with_its_numbers(source, form, kind):
    """Major and minor, beyond eight bits."""
    os.mknod(source.root / "node", form | 0o640, os.makedev(300, 70_000))
    (node,) = source.walk().nodes
    assert (node.kind, node.major, node.minor) == (kind, 300, 70_000)
    assert node.mode == 0o640


def test_extended_attributes_are_listed_of_files_and_folders(source):
    """User attributes, ACLs (a default one, too) and capabilities, with their exact values."""
    plain = source.write("sub/file")
    os.setxattr(plain, "user.note", b"\0\xff\n")
    os.setxattr(plain, "user.empty", b"")
    os.setxattr(source.write("acl"), "system.posix_acl_access", ACL)
    os.setxattr(source.root / "sub", "system.posix_acl_default", ACL)
    os.setxattr(source.write("program"), "security.capability", CAPABILITY)
    os.setxattr(source.root, "trusted.kept", b"by root")
    listed = {each.path: each.of for each in source.walk().xattrs}
    assert listed == {
        b"": ((b"trusted.kept", b"by root"),),
        b"acl": ((b"system.posix_acl_access", ACL),),
        b"program": ((b"security.capability", CAPABILITY),),
        b"sub": ((b"system.posix_acl_default", ACL),),
        b"sub/file": ((b"user.empty", b""), (b"user.note", b"\0\xff\n")),
    }
    assert source.figures["kept_aside"] == {"xattrs": 5}


def test_attribute_set_that_many_share_is_written_once(source):
    """Where every file has the same ACL, the list stays small and tells of each."""
    for number in range(50):
        os.setxattr(source.write(f"file{number}"), "system.posix_acl_access", ACL)
    listed = source.walk()
    assert {each.of for each in listed.xattrs} == {((b"system.posix_acl_access", ACL),)}
    assert len(listed.xattrs) == 50
    assert source.list.read_bytes().count(b"posix_acl_access") == 1


def test_symbolic_links_are_not_followed(source, tmp_path):
    """What they lead to is somewhere else."""
    (tmp_path / "elsewhere").mkdir()
    os.setxattr(tmp_path / "elsewhere", "user.x", b"1")
    os.mkfifo(tmp_path / "elsewhere" / "fifo")
    os.symlink(tmp_path / "elsewhere", source.root / "link")
    listed = source.walk()
    assert (listed.nodes, listed.xattrs) == ((), ())


def test_names_that_are_not_utf8_are_listed_raw(source):
    """As bytes, wherever they stand in a path; others are not listed."""
    source.write(b"caf\xe9/in")
    source.write(b"caf\xe9/\xff")
    source.write("café-利")
    source.write(b"true\xef\xbf\xbd")
    listed = source.walk()
    assert set(listed.names) == {b"caf\xe9", b"caf\xe9/\xff"}
    assert b"caf\xe9" in {each.path for each in listed.folders}
    assert source.figures["collisions"] == []


@pytest.mark.parametrize(
    ("one", "other"),
    [(b"a\xe9", b"a\xe8"), (b"a\xe9", b"a\xef\xbf\xbd"), (b"\xe4\xb8", b"\xff\xfe")],
)
def test_names_that_kopia_stores_as_one_collide(source, one, other):
    """Both are told, in a way that shows which is which."""
    source.write(b"sub/" + one)
    source.write(b"sub/" + other)
    source.walk()
    ((first, second),) = source.figures["collisions"]
    assert {first, second} == {
        "sub/" + name.decode("utf-8", "backslashreplace") for name in (one, other)
    }


def test_names_collide_in_one_folder_and_among_what_kopia_stores_only(source):
    """A FIFO of that name is not stored, and elsewhere it is another path."""
    source.write(b"a\xe9")
    source.write(b"sub/a\xe8")
    os.mkfifo(os.fsencode(source.root) + b"/a\xe8")
    source.walk()
    assert source.figures["collisions"] == []


def test_names_that_kopia_keeps_for_itself_are_told(source):
    """Whatever bears one, but for what Kopia does not store; ``kopia-entry`` alone is a name."""
    source.write("sub/file.kopia-entry")
    source.write("folder.kopia-entry/in")
    (source.root / ".kopia-entry").symlink_to("sub")
    source.write("kopia-entry")
    os.mkfifo(source.root / "fifo.kopia-entry")
    source.walk()
    assert set(source.figures["placeholders"]) == {
        "sub/file.kopia-entry",
        "folder.kopia-entry",
        ".kopia-entry",
    }


def test_source_that_bears_a_name_of_kopia_is_told(tmp_path):
    """A volume may be called so."""
    order = [{"path": str(tmp_path), "name": "volumes/data.kopia-entry"}]
    (figures,) = survey(order, 0.0, str(tmp_path))["sources"]
    assert figures["placeholders"] == ["."]


def test_what_changed_is_what_is_newer_than_the_last_run(source):
    """By mtime or ctime; an mtime ahead of the clock tells nothing."""
    source.write("old", b"1")
    future = source.write("future", b"12")
    now = time.time()
    os.utime(future, (now + HOUR, now + HOUR))
    source.walk(since=now + HOUR / 2)
    assert source.figures["changed_files"] == 0
    source.write("backdated", b"1" * 30)
    os.utime(source.root / "backdated", (1, 1))
    source.write("new", b"1" * 20)
    source.walk(since=now - HOUR)
    figures = source.figures
    assert (figures["changed_files"], figures["changed_bytes"]) == (4, 53)
    assert figures["largest_changed"] == 30
    source.walk()
    assert source.figures["changed_files"] == source.figures["files"] == 4


def test_single_file_is_a_source(source):
    """A bind mount of one file: its own attributes have the empty path."""
    path = source.write("app.conf", b"123")
    os.setxattr(path, "user.x", b"1")
    listed = source.walk(root=source.root / "app.conf")
    assert (source.figures["files"], source.figures["bytes"]) == (1, 3)
    assert listed.xattrs == (Xattrs(b"", ((b"user.x", b"1"),)),)
    assert listed.folders == ()


def test_disk_of_a_source_is_told(source):
    """Type, room, and the number by which two sources on one disk are known."""
    source.walk()
    disk, room = source.figures["disk"], os.statvfs(source.root)
    assert disk["total"] == room.f_blocks * room.f_frsize
    assert 0 < disk["free"] <= disk["total"]
    assert disk["type"]
    assert ":" in disk["device"]


def test_disk_in_memory_is_told():
    """A tmpfs is one, by its mount point."""
    disk = disk_of("/dev/shm")
    assert (disk["type"], disk["in_memory"]) == ("tmpfs", True)


def test_equal_list_leaves_the_file_alone(source):
    """Kopia need not read in the window what it knows; any difference makes a new one."""
    os.mkfifo(source.root / "fifo")
    source.walk()
    before = source.list.stat()
    source.walk()
    assert source.list.stat().st_ino == before.st_ino
    assert source.list.stat().st_mtime_ns == before.st_mtime_ns
    os.chmod(source.root / "fifo", 0o600)
    source.walk()
    assert source.list.stat().st_mtime_ns != before.st_mtime_ns


def test_damaged_list_is_replaced(source):
    """Whatever stands where the list belongs, a whole one stands there afterwards."""
    source.walk()
    whole = source.list.read_bytes()
    source.list.write_bytes(whole[:-7] + b"1234567")
    source.walk()
    assert source.list.read_bytes() == whole
    source.list.unlink()
    os.symlink(source.root / "absent", source.list)
    source.walk()
    assert source.list.read_bytes() == whole
    assert not (source.root / "absent").exists()


def test_lists_of_sources_that_are_no_more_are_removed(source):
    """And what an interrupted walk left."""
    for stray in ("volumes/gone", "binds/gone", ".new", "volumes/.odd"):
        path = source.into / stray
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"old")
    source.walk()
    found = {str(path.relative_to(source.into)) for path in source.into.rglob("*")}
    assert found == {"volumes", "volumes/data"}


def test_list_is_private(source):
    """Names of files are nobody else's business."""
    source.walk()
    assert stat.S_IMODE(source.list.stat().st_mode) == 0o600


def test_attributes_that_cannot_be_read_are_counted_and_listed(source, monkeypatch):
    """Never silently: the figures tell how many, the list which."""
    source.write("a")
    source.write("b")

    def refuse(path, **_):
        if path == b"b":
            raise PermissionError(errno.EACCES, "Permission denied")
        return []

    monkeypatch.setattr(module.os, "listxattr", refuse)
    listed = source.walk()
    assert listed.unread == (Unread(b"b", "xattrs", "Permission denied"),)
    assert source.figures["unread"] == 1
    assert source.figures["unread_example"] == "b: Permission denied"


@pytest.mark.parametrize("number", [errno.ENOTSUP, errno.ENOENT])
def test_no_attributes_there_are_no_fault(source, monkeypatch, number):
    """A file system that has none, and a file that vanished a moment ago."""
    source.write("a")

    def only_a(path, **_):
        if path.endswith(b"/a"):
            raise OSError(number, "no")
        return []

    monkeypatch.setattr(module.os, "listxattr", only_a)
    assert source.walk().unread == ()


def test_full_disk_is_said_and_the_old_list_stands(source):
    """A list that does not fit is refused, whole."""
    source.walk()
    before = source.list.read_bytes()
    os.mkfifo(source.root / "fifo")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kopiwatch.worker.listing.os.write", full)
        with pytest.raises(Refused, match="No space left on device") as refused:
            source.walk()
    assert refused.value.reason == "attributes"
    assert source.list.read_bytes() == before
    assert [path.name for path in source.into.iterdir()] == ["volumes"]


@pytest.mark.parametrize("at", ["middle", "middle/inner"])
def test_folder_that_becomes_a_link_is_not_followed(source, tmp_path, monkeypatch, at):
    """A container runs beside the walk: no link of its making leads out of the source."""
    (tmp_path / "secret/inner").mkdir(parents=True)
    (tmp_path / "secret/inner/file").write_bytes(b"x")
    (tmp_path / "secret/file").write_bytes(b"x")
    source.write("middle/inner/own")
    original = module.Walk._entry

    def swap(walk, path, status, here):
        found = original(walk, path, status, here)
        place = source.root / at
        if path == os.fsencode(place) and not place.is_symlink():
            place.rename(tmp_path / "aside")
            place.symlink_to(tmp_path / "secret" / at.partition("/")[2])
        return found

    monkeypatch.setattr(module.Walk, "_entry", swap)
    source.walk()
    assert source.figures["files"] == 0
