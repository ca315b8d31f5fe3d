"""The worker and its stage on a disk that fills up, hangs, or is left alone."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.file_system import file_system
from support.hanging import hanging_folder
from support.site import wait_until
from support.tree_change import look
from support.worker_process import WorkerProcess

from kopiwatch.kopia.policy import GATE_AFTER, GATE_BEFORE

pytestmark = pytest.mark.timeout(180)

MIB = 1024 * 1024
RESERVE = 32 * MIB


@pytest.fixture
def worker(tmp_path):
    running = WorkerProcess(tmp_path)
    running.set_up()
    running.hear("set-up")
    yield running
    running.end()


@pytest.fixture
def disk(tmp_path):
    with file_system("xfs", tmp_path / "xfs", 448) as path:
        (path / "source").mkdir()
        (path / "stage").mkdir()
        yield path


def pre_stage(worker: WorkerProcess, disk: Path, say: str = "pre-staged", **fields: object) -> dict:
    return worker.ask("pre-stage", say, **(order(disk) | fields))


def order(disk: Path) -> dict:
    part = {"source": str(disk / "source"), "target": "volumes/data", "how": "clone"}
    return {"stage": str(disk / "stage"), "parts": [part], "reserve": RESERVE}


def fill(disk: Path) -> None:
    """Leave less free than is reserved."""
    found = os.statvfs(disk)
    with (disk / "ballast").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, found.f_bavail * found.f_frsize - RESERVE // 2)


def test_worker_takes_a_stage_through_its_life(worker, disk):
    """Probed, staged hot, brought up to date, deleted: with figures each time."""
    (disk / "source/one").write_text("one")
    probed = worker.ask(
        "probe-stage", "probed", stages=[str(disk / "stage")], sources=[{"path": str(disk)}]
    )
    assert probed["result"]["stages"][0]["sources"][0]["clonable"]
    assert pre_stage(worker, disk)["result"]["fresh"] == 1
    (disk / "source/two").write_text("two")
    staged = worker.ask("stage", "staged")["result"]
    assert (staged["files"], staged["bytes"]) == (2, 6)
    assert look(disk / "stage/volumes/data") == look(disk / "source")
    unstaged = worker.ask("unstage", "unstaged", stages=[str(disk / "stage"), str(disk / "none")])
    assert unstaged["result"]["files"] == 2
    assert not any((disk / "stage").iterdir())
    assert worker.ask("stage", "error")["reason"] == "protocol"


def test_worker_stages_again_after_a_failure(worker, disk):
    """What a stage could not be made of is said; another one begins bare."""
    (disk / "source/file").write_text("content")
    missing = [{"source": str(disk / "missing"), "target": "a", "how": "clone"}]
    assert pre_stage(worker, disk, "error", parts=missing)["reason"] == "unreadable"
    assert pre_stage(worker, disk, "error", parts=[{"source": "/etc"}])["reason"] == "protocol"
    assert pre_stage(worker, disk)["result"]["fresh"] == 1
    assert worker.ask("stage", "staged")["result"]["files"] == 1


APPLICATION = """
import os, sys, time
block = os.urandom(1 << 20)
handle = os.open(sys.argv[1], os.O_WRONLY)
begun = time.monotonic()
for each in range(300):
    os.pwrite(handle, block, each << 20)
    if each % 16 == 15:
        os.fsync(handle)
    time.sleep(max(0.0, begun + each / float(sys.argv[2]) - time.monotonic()))
os.fsync(handle)
"""


@pytest.mark.parametrize("megabytes_per_second", [100, 200])
def test_application_finds_room_that_a_stage_took(worker, disk, megabytes_per_second):
    """300 MiB are rewritten in place where a clone of them leaves 60: it is dropped in time."""
    (disk / "source/data").write_bytes(os.urandom(MIB) * 300)
    os.sync()
    pre_stage(worker, disk)
    worker.ask("stage", "staged")
    argv = [sys.executable, "-c", APPLICATION, disk / "source/data", str(megabytes_per_second)]
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    dropped = worker.hear("dropped")["result"]
    assert dropped["free"] < dropped["reserve"] == RESERVE
    assert (dropped["killed"], dropped["files"], dropped["bytes"]) == (False, 1, 300 * MIB)
    assert not any((disk / "stage").iterdir())


def test_dropped_stage_is_an_error_until_it_was_cleared_away(worker, disk):
    """Nobody takes what is not there for a stage; afterwards another can be made."""
    (disk / "source/file").write_text("content")
    pre_stage(worker, disk)
    fill(disk)
    worker.hear("dropped")
    assert worker.ask("stage", "error")["reason"] == "dropped"
    assert pre_stage(worker, disk, "error")["reason"] == "dropped"
    (disk / "ballast").unlink()
    worker.ask("unstage", "unstaged", stages=[str(disk / "stage")])
    assert pre_stage(worker, disk)["result"]["files"] == 1


def gated(between: str = "") -> str:
    return f"sh -c {shlex.quote(GATE_BEFORE)} && {between} sh -c {shlex.quote(GATE_AFTER)}"


def test_kopia_that_reads_from_a_dropped_stage_is_killed_first(worker, disk):
    """It would store cut files; its end is said before the drop is."""
    (disk / "source/file").write_text("content")
    pre_stage(worker, disk)
    worker.ask("stage", "staged")
    worker.launch(gated("sleep 60;"))
    worker.hear("ready")
    worker.order("go", stage=True)
    fill(disk)
    assert worker.hear("exit")["killed"]
    assert worker.hear("dropped")["result"]["killed"]


def test_kopia_at_its_gate_is_not_let_into_a_dropped_stage(worker, disk):
    """It would find cut files there, or none, and call that a snapshot."""
    (disk / "source/file").write_text("content")
    pre_stage(worker, disk)
    worker.ask("stage", "staged")
    worker.launch(gated())
    worker.hear("ready")
    fill(disk)
    assert not worker.hear("dropped")["result"]["killed"]
    assert worker.ask("go", "error", path=str(disk / "stage"), stage=True)["reason"] == "dropped"
    assert worker.ask("kill", "exit")["killed"]


@pytest.mark.parametrize("fields", [{}, {"stage": True}])
def test_kopia_that_does_not_read_from_a_dropped_stage_lives_on(worker, disk, fields):
    """Because it reads the live path, or has read all it wants."""
    (disk / "source/file").write_text("content")
    pre_stage(worker, disk)
    worker.launch(gated())
    worker.hear("ready")
    worker.ask("go", "read", **fields)
    fill(disk)
    assert not worker.hear("dropped")["result"]["killed"]
    worker.order("flush")
    assert worker.hear("exit")["code"] == 0


def test_kill_leaves_a_stage_where_it_is_and_watches_on(worker, disk):
    """The order is about Kopia."""
    (disk / "source/file").write_text("content")
    pre_stage(worker, disk)
    assert worker.ask("kill", "exit")["killed"]
    assert worker.ask("stage", "staged")["result"]["files"] == 1
    fill(disk)
    worker.hear("dropped")


def test_pass_under_way_is_dropped(worker, disk):
    """Whoever waits for its end is told; what it had begun is deleted."""
    with hanging_folder(disk.parent / "hanging") as folder:
        folder.hang("read")
        parts = [
            *order(disk)["parts"],
            {"source": str(folder.path), "target": "hanging", "how": "copy"},
        ]
        (disk / "source/file").write_text("content")
        worker.order("pre-stage", **(order(disk) | {"parts": parts}))
        wait_until(lambda: folder.hung, "the pass hangs")
        fill(disk)
        assert worker.hear("error")["reason"] == "dropped"
        worker.hear("dropped")
        folder.release()
        worker.ask("unstage", "unstaged", stages=[str(disk / "stage")])
        assert not any((disk / "stage").iterdir())


@pytest.mark.parametrize("by", ["unstage", "kill"])
def test_pass_that_hangs_can_be_left_off(worker, disk, by):
    """The worker answers although a disk below does not."""
    with hanging_folder(disk.parent / "hanging") as folder:
        folder.hang("read")
        parts = [{"source": str(folder.path), "target": "hanging", "how": "copy"}]
        worker.order("pre-stage", **(order(disk) | {"parts": parts}))
        wait_until(lambda: folder.hung, "the pass hangs")
        if by == "kill":
            worker.ask("kill", "exit")
        worker.ask("unstage", "unstaged", stages=[str(disk / "stage")])
        assert pre_stage(worker, disk)["result"]["folders"] == 1


@pytest.mark.parametrize("how", ["end of input", "SIGTERM"])
def test_worker_that_leaves_deletes_its_stage(worker, disk, how):
    """Before it has left: as the first process of a container it takes all others with it."""
    for number in range(3000):  # more than are deleted before anybody could look
        (disk / "source" / str(number)).touch()
    pre_stage(worker, disk)
    children = Path(f"/proc/{worker.process.pid}/task/{worker.process.pid}/children").read_text()
    assert len(children.split()) == 2
    if how == "SIGTERM":
        worker.process.send_signal(signal.SIGTERM)
    else:
        worker.process.stdin.close()
    assert worker.process.wait(20) == 0
    assert not any((disk / "stage").iterdir())
    assert not [pid for pid in children.split() if Path(f"/proc/{pid}/exe").exists()]
