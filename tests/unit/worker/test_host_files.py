"""Reading files of the host in the worker: never out of bounds, whatever the paths."""

from __future__ import annotations

import base64
import os
import shutil
import socket
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.worker.host_files import read_files

MIB = 1 << 20


def ask(roots, *paths, own=(), locks="/nowhere", folders=(), limits=(MIB, 16 * MIB)):
    told = read_files(
        roots=[list(root) for root in roots],
        own=list(own),
        locks=locks,
        paths=list(paths),
        folders=list(folders),
        limits=list(limits),
    )
    return {each["path"]: each for each in told}


def content(answer) -> bytes:
    return base64.b64decode(answer["content"])


@pytest.fixture
def point(tmp_path: Path) -> Path:
    """What is mounted of the host's ``/srv/shop``; beside it lies what must not be read."""
    (tmp_path / "secret").write_text("SECRET")
    made = tmp_path / "mounted"
    (made / "sub").mkdir(parents=True)
    (made / "a").write_text("A")
    (made / "sub" / "b").write_text("B")
    return made


def test_files_are_read_with_owner_mode_and_time(point):
    os.chown(point / "a", 12, 34)
    (point / "a").chmod(0o640)
    os.utime(point / "a", ns=(1, 2_000_000_001))
    (told,) = ask([("/srv/shop", point)], "/srv/shop/a").values()
    assert content(told) == b"A"
    assert (told["uid"], told["gid"], told["mode"], told["mtime"]) == (12, 34, 0o640, 2_000_000_001)


def test_links_within_the_folder_are_followed_by_the_hosts_paths(point):
    (point / "relative").symlink_to("sub/../a")
    (point / "absolute").symlink_to("/srv/shop/sub")
    (point / "twice").symlink_to("relative")
    paths = ["/srv/shop/relative", "/srv/shop/absolute/b", "/srv/shop/twice"]
    told = ask([("/srv/shop", point)], *paths)
    assert [content(told[path]) for path in paths] == [b"A", b"B", b"A"]


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("../secret", "outside"),
        ("/etc/passwd", "outside"),
        ("/srv/shop/../secret", "outside"),
        ("sub/../../mounted/a", "outside"),
        ("link", "loop"),
        ("nothing", "missing"),
        ("sub", "kind"),
        ("/proc/self/environ", "outside"),
    ],
)
def test_a_link_leads_nowhere_else(point, target, reason):
    (point / "link").symlink_to(target)
    (told,) = ask([("/srv/shop", point)], "/srv/shop/link").values()
    assert told["reason"] == reason


def test_only_regular_files_are_read(point):
    os.mkfifo(point / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(point / "socket"))
    os.mknod(point / "zero", 0o20666, os.makedev(1, 5))
    told = ask([("/srv/shop", point)], *(f"/srv/shop/{n}" for n in ("fifo", "socket", "zero")))
    assert {each["reason"] for each in told.values()} == {"kind"}


def test_what_is_too_large_is_left_out(point):
    (point / "big").write_bytes(bytes(11))
    told = ask([("/srv/shop", point)], "/srv/shop/big", limits=(10, 100))
    assert told["/srv/shop/big"]["reason"] == "large"
    paths = [f"/srv/shop/{number}" for number in range(4)]
    for number in range(4):
        (point / str(number)).write_bytes(bytes(10))
    told = ask([("/srv/shop", point)], *paths, limits=(10, 25))
    assert ["content" in told[path] for path in paths] == [True, True, False, False]


def test_our_own_folders_are_not_read_by_any_path(point, tmp_path):
    """The state folder is known by the locks in it: the worker has nothing else of it mounted."""
    locks = point / "state" / "locks"
    locks.mkdir(parents=True)
    (point / "state" / "state.json").write_text("{}")
    (point / "cache").mkdir()
    (point / "cache" / "x").write_text("x")
    (point / "way").symlink_to("state")
    told = ask(
        [("/srv/shop", point)],
        *(f"/srv/shop/{n}" for n in ("state/state.json", "way/state.json", "cache/x", "a")),
        own=[str(locks), str(point / "cache")],
        locks=str(locks),
    )
    assert [each.get("reason", "") for each in told.values()] == ["own", "own", "own", ""]


def test_a_root_that_is_not_mounted_is_missing(tmp_path):
    (told,) = ask([("/srv/shop", tmp_path / "absent")], "/srv/shop/a").values()
    assert (told["reason"], told["text"]) == ("missing", "/srv/shop is not there")


def test_a_single_file_can_be_a_root(point):
    told = ask([("/opt/x/compose.yml", point / "a")], "/opt/x/compose.yml", "/opt/x/other")
    assert content(told["/opt/x/compose.yml"]) == b"A"
    assert told["/opt/x/other"]["reason"] == "outside"


def test_a_folder_that_begins_alike_is_another(point):
    (told,) = ask([("/srv/shop", point)], "/srv/shop/../shop-a").values()
    assert told["reason"] == "outside"
    (told,) = ask([("/srv/sh", point)], "/srv/shop/a").values()
    assert told["reason"] == "outside"


def test_the_files_of_a_folder(point):
    told = ask([("/srv/shop", point)], folders=["/srv/shop", "/srv/shop/none"])
    assert content(told["/srv/shop/a"]) == b"A"
    assert told["/srv/shop/sub"]["reason"] == "kind"
    assert told["/srv/shop/none"]["reason"] == "missing"


part = st.sampled_from(["a", "sub", "b", "..", ".", "l0", "l1", "l2", "mounted", "secret", ""])
path = st.lists(part, max_size=7).map("/".join)
target = st.tuples(st.sampled_from(["", "/", "/srv/shop/", "../"]), path).map("".join)


@settings(max_examples=300, deadline=None)
@given(st.lists(target.filter(bool), min_size=3, max_size=3), path)
def test_no_path_and_no_links_lead_out(targets, asked):
    """Three links with any targets, and any path through them."""
    folder = Path(tempfile.mkdtemp())
    try:
        (folder / "secret").write_text("SECRET")
        point = folder / "mounted"
        (point / "sub").mkdir(parents=True)
        (point / "a").write_text("A")
        (point / "sub" / "b").write_text("B")
        for number, each in enumerate(targets):
            (point / "sub" / f"l{number}").symlink_to(each)
            (point / f"l{number}").symlink_to(each)
        for told in ask([("/srv/shop", point)], f"/srv/shop/{asked}").values():
            if "content" in told:
                assert content(told) in (b"A", b"B")
    finally:
        shutil.rmtree(folder)
