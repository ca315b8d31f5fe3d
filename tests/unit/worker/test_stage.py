"""A stage on the file system of the tests: copied, brought up to date, told what it did."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support.hanging import hanging_folder
from support.tree_change import apply, changes, long_ago, look, next_tick

from kopiwatch.worker.clone import mend
from kopiwatch.worker.index import key_of, settled, unsettled
from kopiwatch.worker.replica import Pass
from kopiwatch.worker.speech import Refused
from kopiwatch.worker.stage import Stage

HUGE = 1 << 62
MIB = 1024 * 1024


def can_clone(folder: Path) -> bool:
    """Whether these tests happen to lie on such a file system."""
    argv = ["cp", "--reflink=always", __file__, folder / "clone"]
    return subprocess.run(argv, check=False, capture_output=True).returncode == 0


def a_stage(
    folder: Path, *, reserve: int = 0, now_ns=long_ago, source: Path | None = None
) -> Stage:
    (folder / "stage").mkdir(exist_ok=True)
    source = source or folder / "source"
    part = {"source": str(source), "target": "volumes/data", "how": "copy"}
    return Stage(str(folder / "stage"), [part], reserve, now_ns)


@pytest.fixture
def source(tmp_path):
    (tmp_path / "source").mkdir()
    return tmp_path / "source"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(first=changes(), hot=changes(), last=changes())
def test_stage_looks_like_its_source_after_any_change(tmp_path, first, hot, last):
    """Content, mode, owner and times of each entry are the source's, whatever happened between."""
    folder = tmp_path / "case"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "source").mkdir(parents=True)
    apply(folder / "source", first)
    stage = a_stage(folder)
    for changed in (hot, last):
        stage.update(hot=True)
        next_tick()
        apply(folder / "source", changed)
    stage.update(hot=False)
    assert look(folder / "stage/volumes/data") == look(folder / "source")


def test_stage_takes_only_what_has_changed(source, tmp_path):
    """A pass over a tree with one changed file copies that file, and says so."""
    for name in ("one", "two", "three"):
        (source / name).write_text(name)
    (source / "link").symlink_to("one")
    stage = a_stage(tmp_path)
    first = stage.update(hot=True)
    assert (first["files"], first["links"], first["bytes"], first["fresh"]) == (3, 1, 11, 3)
    next_tick()
    (source / "two").write_text("2")
    (source / "three").unlink()
    last = stage.update(hot=False)
    assert (last["files"], last["fresh"], last["fresh_bytes"], last["deleted"]) == (2, 1, 1, 1)


def test_stage_does_not_trust_what_is_too_young(source, tmp_path):
    """A file that changed right before the first pass could change again within the same tick."""
    (source / "file").write_text("young")
    stage = a_stage(tmp_path, now_ns=time.time_ns)
    stage.update(hot=True)
    assert stage.update(hot=True)["fresh"] == 1
    assert stage.update(hot=False)["fresh"] == 1
    assert stage.update(hot=False)["fresh"] == 0


def test_key_is_settled_after_two_seconds(source):
    """One nanosecond less is unsettled, equal to nothing, and still of its kind."""
    key = key_of(os.lstat(source))
    assert settled(key, key[1] + 2_000_000_001) == key
    assert settled(key, key[1] + 2_000_000_000) == unsettled(key) != key
    assert unsettled(key)[0] == key[0]


def test_stage_keeps_holes(source, tmp_path):
    """64 MiB of nothing with one block in it take no 64 MiB in the stage."""
    with (source / "sparse").open("wb") as file:
        file.seek(64 * MIB)
        file.write(b"end")
    stage = a_stage(tmp_path)
    stage.update(hot=True)
    staged = tmp_path / "stage/volumes/data/sparse"
    assert staged.stat().st_size == 64 * MIB + 3
    assert staged.stat().st_blocks * 512 < MIB


def test_stage_of_a_changed_file_writes_only_the_blocks_that_differ(source, tmp_path):
    """The others keep their place on the disk: a block of 1 MiB is what is written."""
    size = 8 * MIB
    (source / "file").write_bytes(os.urandom(size))
    stage = a_stage(tmp_path)
    stage.update(hot=True)
    staged = tmp_path / "stage/volumes/data/file"
    next_tick()
    with (source / "file").open("r+b") as file:
        file.seek(2 * MIB)
        file.write(b"changed")
    with (source / "file").open("rb") as ours, staged.open("r+b") as theirs:
        assert mend(ours.fileno(), theirs.fileno(), size) == MIB
        assert mend(ours.fileno(), theirs.fileno(), size) == 0
    assert staged.read_bytes() == (source / "file").read_bytes()


def test_stage_has_zeros_where_its_source_has_a_new_hole(source, tmp_path):
    """A file that was made anew with a hole, in which the stage has data from before."""
    (source / "file").write_bytes(b"x" * 4 * MIB)
    stage = a_stage(tmp_path)
    stage.update(hot=True)
    next_tick()
    with (source / "file").open("wb") as file:
        file.write(b"begin")
        file.seek(3 * MIB)
        file.write(b"end")
    stage.update(hot=False)
    assert look(tmp_path / "stage/volumes/data") == look(source)


def test_stage_of_a_single_file_is_a_file(tmp_path):
    """A source that is a file lies at its target, under the target's name."""
    (tmp_path / "config.ini").write_text("[a]")
    stage = a_stage(tmp_path, source=tmp_path / "config.ini")
    stage.update(hot=True)
    next_tick()
    (tmp_path / "config.ini").write_text("[b]")
    os.utime(tmp_path / "config.ini", ns=(1, 123_456_789))
    assert stage.update(hot=False)["fresh"] == 1
    staged = tmp_path / "stage/volumes/data"
    assert (staged.read_text(), staged.stat().st_mtime_ns) == ("[b]", 123_456_789)


def test_stage_goes_deeper_than_a_path_can_be_long(source, tmp_path):
    """30 folders with names of 255 bytes: twice what one path may have."""
    here = os.open(source, os.O_RDONLY)
    for _ in range(30):
        os.mkdir("d" * 255, dir_fd=here)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=here))
    os.close(here)
    stage = a_stage(tmp_path)
    assert (stage.update(hot=True)["folders"], stage.update(hot=False)["files"]) == (31, 1)
    shutil.rmtree(source)
    source.mkdir()
    assert stage.update(hot=False)["deleted"] == 1


def test_stage_without_a_pass_before_takes_all(source, tmp_path):
    """The window alone is enough."""
    (source / "file").write_text("content")
    a_stage(tmp_path).update(hot=False)
    assert look(tmp_path / "stage/volumes/data") == look(source)


def test_new_stage_is_bare(source, tmp_path):
    """What an interrupted run left in the folder is gone before the first file is taken."""
    (source / "file").write_text("content")
    a_stage(tmp_path).update(hot=True)
    (tmp_path / "stage/left").write_text("behind")
    a_stage(tmp_path).update(hot=False)
    assert [path.name for path in (tmp_path / "stage").iterdir()] == ["volumes"]


def test_stage_needs_its_reserve(source, tmp_path):
    """Where less is free than must stay so, nothing is copied."""
    (source / "file").write_text("content")
    with pytest.raises(Refused, match="must stay so") as refused:
        a_stage(tmp_path, reserve=HUGE).update(hot=True)
    assert refused.value.reason == "no-space"
    assert not any((tmp_path / "stage").iterdir())


def test_stage_that_failed_stays_so(source, tmp_path):
    """Its index knows no more what is there, so it is not built upon."""
    stage = a_stage(tmp_path, source=tmp_path / "missing")
    with pytest.raises(Refused) as refused:
        stage.update(hot=True)
    assert refused.value.reason == "unreadable"
    (tmp_path / "missing").mkdir()
    with pytest.raises(Refused, match="earlier pass"):
        stage.update(hot=False)


def test_clone_is_never_a_copy(source, tmp_path):
    """A file system that cannot clone is an error in words; not even small files are copied."""
    (source / "file").write_text("content")
    stage = a_stage(tmp_path)
    stage.parts[0].clones = True
    if can_clone(tmp_path):
        stage.update(hot=True)
        return
    with pytest.raises(Refused, match="source/file cannot be cloned: its file system cannot") as no:
        stage.update(hot=True)
    assert no.value.reason == "no-clone"
    assert not any((tmp_path / "stage/volumes/data").iterdir())


@pytest.mark.parametrize(
    "targets", [("/",), ("a/../b",), ("a", "a/b"), ("a/b", "a/b"), ("volumes/.",)]
)
def test_stage_refuses_places_that_are_none(tmp_path, targets):
    """A part lies below the stage, and in no other part."""
    parts = [{"source": "/", "target": target, "how": "copy"} for target in targets]
    with pytest.raises(Refused) as refused:
        Stage(str(tmp_path), parts, 0)
    assert refused.value.reason == "protocol"


def test_stage_leaves_out_hot_what_cannot_be_read_and_fails_with_it_in_the_window(tmp_path):
    """A bad block is no reason to give up early: it may be gone, or the gate has words for it."""
    with hanging_folder(tmp_path / "source") as folder:
        stage = a_stage(tmp_path)
        folder.fail("read")
        assert stage.update(hot=True)["files"] == 0
        assert not any((tmp_path / "stage/volumes/data").iterdir())
        with pytest.raises(Refused, match="source/file cannot be read") as refused:
            stage.update(hot=False)
        assert refused.value.reason == "unreadable"


def test_stage_takes_in_the_window_what_could_not_be_read_before(tmp_path):
    """What a hot pass left out is new to the next one."""
    with hanging_folder(tmp_path / "source") as folder:
        stage = a_stage(tmp_path)
        folder.fail("read")
        stage.update(hot=True)
        folder.fail()
        assert stage.update(hot=False)["fresh"] == 1
        assert look(tmp_path / "stage/volumes/data") == look(folder.path)


def test_file_that_becomes_a_device_is_not_read(source, tmp_path, monkeypatch):
    """A container may make device nodes, and a host's disk is no content of its volume."""
    (source / "file").write_bytes(b"x" * 100)
    original = os.open

    def swap(path, flags, *args, **more):
        if path == "file" and more.get("dir_fd") is not None:
            return original("/dev/zero", os.O_RDONLY)
        return original(path, flags, *args, **more)

    stage = a_stage(tmp_path)
    monkeypatch.setattr(os, "open", swap)
    monkeypatch.setattr(Pass, "take_file", lambda *_: pytest.fail("it is read"))
    assert stage.update(hot=True)["vanished"] == 1
    monkeypatch.undo()
    assert not any((tmp_path / "stage/volumes/data").iterdir())
