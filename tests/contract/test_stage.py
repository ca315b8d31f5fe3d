"""The stage on real file systems: what cannot be made up on the one of the tests."""

from __future__ import annotations

import itertools
import mmap
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.file_system import bound, file_system, run
from support.tree_change import apply, changes, long_ago, look, next_tick

from kopiwatch.worker.probe import probe_stage
from kopiwatch.worker.speech import Refused
from kopiwatch.worker.stage import Stage

pytestmark = pytest.mark.timeout(180)

MIB = 1024 * 1024
HOW = {"xfs": "clone", "btrfs": "clone", "ext4": "copy", "tmpfs": "copy"}


@pytest.fixture(scope="module", params=HOW)
def disk(request, tmp_path_factory):
    """A file system of each kind, and how it is staged there."""
    with file_system(request.param, tmp_path_factory.mktemp("disk") / request.param) as path:
        yield path, HOW[request.param]


@pytest.fixture
def place(disk):
    """A bare source and a bare stage on the disk: source, stage folder, and how."""
    path, how = disk
    fresh(path)
    return path / "source", path / "stage", how


def fresh(path: Path) -> None:
    for name in ("source", "stage"):
        shutil.rmtree(path / name, ignore_errors=True)
        (path / name).mkdir()


def a_stage(source: Path, stage: Path, how: str, *, now_ns=long_ago) -> Stage:
    part = {"source": str(source), "target": "volumes/data", "how": how}
    return Stage(str(stage), [part], 0, now_ns)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=changes(), hot=changes(), last=changes())
def test_stage_looks_like_its_source_after_any_change(disk, first, hot, last):
    """Content, mode, owner and times of each entry are the source's, whatever happened between."""
    path, how = disk
    fresh(path)
    apply(path / "source", first)
    stage = a_stage(path / "source", path / "stage", how)
    for changed in (hot, last):
        stage.update(hot=True)
        next_tick()
        apply(path / "source", changed)
    stage.update(hot=False)
    assert look(path / "stage/volumes/data") == look(path / "source")


WRITER = """
import mmap, os, random, sys
pages, path = int(sys.argv[1]), sys.argv[2]
with open(path, "r+b") as file:
    page = mmap.mmap(file.fileno(), pages * 4096)
count = 0
print("ready", flush=True)
while True:
    count += 1
    at = random.randrange(pages) * 4096 + random.randrange(512) * 8
    page[at : at + 8] = b"%08d" % (count % 10**8)
"""


def test_stage_holds_what_a_frozen_program_wrote_through_a_mapping(place):
    """Pages that are dirty already are stored to without any time moving, all the time."""
    source, folder, how = place
    pages = 64
    (source / "page").write_bytes(b"-" * pages * 4096)
    os.sync()
    for _ in range(8):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(pages), source / "page"], stdout=subprocess.PIPE
        )
        try:
            writer.stdout.readline()
            stage = a_stage(source, folder, how)
            stage.update(hot=True)
            stage.update(hot=True)
            writer.send_signal(signal.SIGSTOP)
            os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
            stage.update(hot=False)
            with (source / "page").open("rb") as file:
                held = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)[:]
            assert (folder / "volumes/data/page").read_bytes() == held
        finally:
            writer.kill()
            writer.wait()
            writer.stdout.close()


def test_stage_has_the_last_store_into_a_page_that_was_dirty_before_the_first_pass(place):
    """One store before, one after the first pass: only a write-protected page tells of it."""
    source, folder, how = place
    (source / "page").write_bytes(b"0" * 4096)
    with (source / "page").open("r+b") as file, mmap.mmap(file.fileno(), 4096) as page:
        for number in range(20):
            page[0:4] = b"%04d" % number
            next_tick()
            stage = a_stage(source, folder, how)
            stage.update(hot=True)
            page[0:4] = b"%04d" % (number + 1000)
            stage.update(hot=False)
            staged = (folder / "volumes/data/page").read_bytes()
            assert staged[:4] == b"%04d" % (number + 1000)


def test_stage_is_made_while_everything_changes(place):
    """Files that vanish, and folders that become files, under its hands are no errors."""
    source, folder, how = place
    program = f"""
import os, shutil
os.chdir({str(source)!r})
for turn in range(10**9):
    name = str(turn % 50)
    if os.path.isdir(name): shutil.rmtree(name)
    elif os.path.exists(name): os.unlink(name)
    if turn % 3:
        with open(name, "wb") as file: file.write(b"x" * (turn % 7000))
    else:
        os.mkdir(name)
        for each in range(5): os.mkfifo(name + "/fifo%d" % each); open(name + "/%d" % each, "w")
    if turn == 200: print("ready", flush=True)
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    try:
        writer.stdout.readline()
        stage = a_stage(source, folder, how)
        for _ in range(15):
            stage.update(hot=True)
        writer.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED)
        stage.update(hot=False)
        assert look(folder / "volumes/data") == look(source)
    finally:
        writer.kill()
        writer.wait()
        writer.stdout.close()


@pytest.fixture(scope="module", params=["xfs", "btrfs"])
def clonable(request, tmp_path_factory):
    with file_system(request.param, tmp_path_factory.mktemp("clone") / request.param) as path:
        yield path


def test_immutable_files_are_cloned_and_deleted(clonable):
    """chattr +i protects the source's file, not its replica."""
    fresh(clonable)
    (clonable / "source/file").write_text("content")
    run("chattr", "+i", clonable / "source/file")
    try:
        stage = a_stage(clonable / "source", clonable / "stage", "clone")
        stage.update(hot=True)
        assert look(clonable / "stage/volumes/data") == look(clonable / "source")
    finally:
        run("chattr", "-i", clonable / "source/file")
    (clonable / "source/file").unlink()
    assert stage.update(hot=False)["deleted"] == 1


def test_probe_clones_through_mounts_of_their_own(clonable, tmp_path):
    """As in a worker: a source that is mounted read-only, and a stage that is not."""
    fresh(clonable)
    (clonable / "source/folder").mkdir()
    (clonable / "source/folder/file").write_text("content")
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    with (
        bound(clonable / "source", tmp_path / "in", "ro"),
        bound(clonable / "stage", tmp_path / "out"),
    ):
        told = probe_stage(str(tmp_path / "out"), [str(tmp_path / "in"), "/etc/hostname", "/proc"])
        assert (told["writable"], told["why"]) == (True, "")
        assert 0 < told["free"] < told["total"] <= 320 * MIB
        answers = [answer["clonable"] for answer in told["sources"]]
        assert answers[:2] == [True, False]
        assert "another file system" in told["sources"][1]["why"]
        stage = a_stage(tmp_path / "in", tmp_path / "out", "clone")
        stage.update(hot=False)
        assert look(clonable / "stage/volumes/data") == look(clonable / "source")
    assert not list((clonable / "stage").glob(".*"))


def test_probe_finds_another_file_system_that_is_mounted_in_a_source(clonable, tmp_path):
    """One file that cannot be cloned is enough."""
    fresh(clonable)
    (clonable / "source/file").write_text("content")
    (clonable / "source/nested").mkdir()
    (tmp_path / "other").mkdir()
    (tmp_path / "other/file").write_text("content")
    with bound(tmp_path / "other", clonable / "source/nested"):
        told = probe_stage(str(clonable / "stage"), [str(clonable / "source")])
        assert "nested/file" in told["sources"][0]["why"]
        with pytest.raises(Refused, match="nested/file") as refused:
            a_stage(clonable / "source", clonable / "stage", "clone").update(hot=True)
        assert refused.value.reason == "no-clone"


def test_probe_takes_a_source_without_files_for_clonable(clonable):
    """There is nothing that could fail."""
    fresh(clonable)
    (clonable / "source/folder").mkdir()
    told = probe_stage(str(clonable / "stage"), [str(clonable / "source")])
    assert told["sources"] == [{"path": str(clonable / "source"), "why": "", "clonable": True}]


def test_probe_says_in_words_why_there_can_be_no_stage(tmp_path):
    """Missing, not ours, read-only, and a file system that cannot clone."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    assert "No such file" in probe_stage(str(tmp_path / "missing"), ["/etc"])["why"]
    told = probe_stage(str(tmp_path / "full"), ["/etc"])
    assert (told["writable"], told["sources"][0]["clonable"]) == (False, False)
    assert "did not make" in told["sources"][0]["why"]
    (tmp_path / "stage").mkdir()
    with bound(tmp_path / "stage", tmp_path / "stage", "ro"):
        assert "Read-only" in probe_stage(str(tmp_path / "stage"), [])["why"]
    with file_system("ext4", tmp_path / "ext4", 32) as ext4:
        (ext4 / "stage").mkdir()
        (ext4 / "file").write_text("content")
        told = probe_stage(str(ext4 / "stage"), [str(ext4 / "file")])
        assert "its file system cannot clone" in told["sources"][0]["why"]


def test_btrfs_files_without_checksums_are_cloned(tmp_path):
    """Databases lie in folders with chattr +C: the replica has to be one of the kind."""
    with file_system("btrfs", tmp_path / "btrfs") as path:
        fresh(path)
        run("chattr", "+C", path / "source")
        (path / "source/file").write_bytes(os.urandom(MIB))
        told = probe_stage(str(path / "stage"), [str(path / "source")])
        assert told["sources"][0]["clonable"]
        stage = a_stage(path / "source", path / "stage", "clone")
        stage.update(hot=True)
        next_tick()
        (path / "source/file").write_bytes(os.urandom(MIB))
        stage.update(hot=False)
        assert look(path / "stage/volumes/data") == look(path / "source")


def test_btrfs_subvolume_in_a_source_is_cloned(tmp_path):
    """It has a device number of its own, but it is no mount."""
    with file_system("btrfs", tmp_path / "btrfs") as path:
        fresh(path)
        run("btrfs", "subvolume", "create", path / "source/sub")
        (path / "source/sub/file").write_text("content")
        stage = a_stage(path / "source", path / "stage", "clone")
        stage.update(hot=True)
        assert look(path / "stage/volumes/data") == look(path / "source")


def test_clone_shares_its_blocks(clonable):
    """Whatever the size of a file, it takes no space in the stage."""
    fresh(clonable)
    (clonable / "source/big").write_bytes(os.urandom(64 * MIB))
    (clonable / "source/small").write_bytes(os.urandom(3 * 4096))
    os.sync()
    stage = a_stage(clonable / "source", clonable / "stage", "clone")
    for name in ("big", "small"):
        assert physical(clonable / "source" / name)
    stage.update(hot=False)
    for name in ("big", "small"):
        staged = clonable / "stage/volumes/data" / name
        assert physical(staged) == physical(clonable / "source" / name)


def physical(path: Path) -> list[str]:
    """Where the parts of a file lie on the disk."""
    os.sync()
    told = subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True)
    rows = [line.split(":") for line in told.stdout.splitlines()[3:] if line.count(":") > 3]
    return list(itertools.chain.from_iterable(row[2].split() for row in rows))


def test_full_disk_fails_the_stage_in_words(tmp_path):
    """No space for the copy: said so, and what was begun can be deleted."""
    with file_system("ext4", tmp_path / "ext4", 64) as path:
        fresh(path)
        (path / "source/big").write_bytes(os.urandom(40 * MIB))
        with pytest.raises(Refused, match="no space is left to stage") as refused:
            a_stage(path / "source", path / "stage", "copy").update(hot=True)
        assert refused.value.reason == "no-space"
        assert not (path / "stage/volumes/data/big").exists()
