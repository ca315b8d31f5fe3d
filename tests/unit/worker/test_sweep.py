"""What a sweep deletes, and above all what it does not."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

import pytest
from support.file_system import bound

from kopiwatch.worker.child import Child
from kopiwatch.worker.speech import Refused
from kopiwatch.worker.sweep import claim, sweep

MIB = 1024 * 1024
needs_mounts = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")


@pytest.fixture
def stage(tmp_path):
    folder = tmp_path / "stage"
    folder.mkdir()
    claim(str(folder))
    return folder


def fill(folder: Path) -> None:
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/b/small").write_bytes(b"x" * 10)
    (folder / "a/big").write_bytes(b"x" * 2 * MIB)
    (folder / "link").symlink_to("/etc")
    os.mkfifo(folder / "a/fifo")


@pytest.mark.parametrize("shed", [True, False])
def test_sweep_deletes_all_and_says_how_much(stage, shed):
    """The folder itself stays, bare."""
    fill(stage)
    swept = sweep(str(stage), shed=shed)
    assert not any(stage.iterdir())
    assert (swept["files"], swept["bytes"]) == (4, 2 * MIB + 10 + len("/etc"))


def test_stage_is_closed_to_the_users_of_the_host(tmp_path):
    """Docker makes it for everybody, and what is staged has the modes of its sources."""
    (tmp_path / "stage").mkdir(mode=0o755)
    claim(str(tmp_path / "stage"))
    (tmp_path / "stage").chmod(0o755)
    claim(str(tmp_path / "stage"))
    assert (tmp_path / "stage").stat().st_mode & 0o7777 == 0o700


@pytest.mark.parametrize("shed", [True, False])
def test_sweep_deletes_folders_however_deep_they_lie(stage, shed):
    """Whoever fills a volume decides how deep: what could be staged can be dropped again."""
    here = os.open(stage, os.O_RDONLY)
    for _ in range(1500):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    child = Child(functools.partial(sweep, str(stage), shed=shed))
    while not child.take():
        pass
    child.result()
    assert not any(stage.iterdir())


def test_sweep_leaves_a_folder_alone_that_is_no_stage(tmp_path):
    """An operator's typing error deletes nothing."""
    fill(tmp_path)
    assert sweep(str(tmp_path))["files"] == 0
    assert (tmp_path / "a/big").exists()


def test_sweep_of_a_missing_folder_is_no_error(tmp_path):
    """There is nothing left behind where there is nothing."""
    assert sweep(str(tmp_path / "missing"))["files"] == 0


def test_sweep_does_not_follow_links(stage, tmp_path):
    """A link to a folder is deleted, what it points to is not; a link as stage is refused."""
    fill(tmp_path / "other")
    (stage / "link").symlink_to(tmp_path / "other")
    sweep(str(stage), shed=True)
    assert (tmp_path / "other/a/big").stat().st_size == 2 * MIB
    (tmp_path / "alias").symlink_to(stage)
    with pytest.raises(Refused):
        sweep(str(tmp_path / "alias"))


@pytest.mark.parametrize("name", ["file", "a/b/file"])
def test_claim_refuses_a_folder_with_files(tmp_path, name):
    """What kopiwatch did not make, it does not take for its own; the file is named."""
    (tmp_path / "stage" / name).parent.mkdir(parents=True)
    (tmp_path / "stage" / name).write_text("mine")
    with pytest.raises(Refused, match=name) as refused:
        claim(str(tmp_path / "stage"))
    assert refused.value.reason == "stage"
    assert sweep(str(tmp_path / "stage"))["files"] == 0
    assert (tmp_path / "stage" / name).exists()


def test_claim_takes_folders_for_empty(tmp_path):
    """Docker leaves the places of former mounts behind."""
    (tmp_path / "stage/recipe/deep").mkdir(parents=True)
    claim(str(tmp_path / "stage"))
    (tmp_path / "stage/file").write_text("ours")
    claim(str(tmp_path / "stage"))
    assert sweep(str(tmp_path / "stage"))["files"] == 1


@needs_mounts
@pytest.mark.parametrize("shed", [True, False])
@pytest.mark.parametrize("place", ["recipe", "volumes/data"])
def test_sweep_enters_no_mount(stage, tmp_path, place, shed):
    """A folder of the same file system that is mounted in the stage keeps every byte."""
    fill(tmp_path / "other")
    fill(stage)
    (stage / place).mkdir(parents=True)
    (stage / place).with_name("beside").write_text("ours")
    with bound(tmp_path / "other", stage / place):
        swept = sweep(str(stage), shed=shed)
        assert (tmp_path / "other/a/big").stat().st_size == 2 * MIB
        assert (tmp_path / "other/a/b/small").exists()
        assert sorted(str(p.relative_to(stage)) for p in stage.glob("*")) == [place.split("/")[0]]
        assert swept["files"] == 5
    sweep(str(stage))
    assert not any(stage.iterdir())


@needs_mounts
@pytest.mark.parametrize("shed", [True, False])
def test_sweep_neither_deletes_nor_cuts_a_mounted_file(stage, tmp_path, shed):
    """A single file that is mounted in the stage stays as long as it was."""
    (tmp_path / "precious").write_bytes(b"x" * 2 * MIB)
    (stage / "place").write_bytes(b"")
    with bound(tmp_path / "precious", stage / "place"):
        sweep(str(stage), shed=shed)
        assert (tmp_path / "precious").stat().st_size == 2 * MIB
        assert (stage / "place").exists()


@needs_mounts
def test_claim_looks_at_no_mount(tmp_path):
    """What is mounted in a new stage is no foreign file."""
    fill(tmp_path / "other")
    (tmp_path / "stage/recipe").mkdir(parents=True)
    with bound(tmp_path / "other", tmp_path / "stage/recipe"):
        claim(str(tmp_path / "stage"))
    shutil.rmtree(tmp_path / "stage")
