"""The worker program as a process, with a shell script in Kopia's place."""

from __future__ import annotations

import os
import shlex
import socket
import subprocess
import time
from pathlib import Path

import pytest
from support.hanging import hanging_folder
from support.site import wait_until
from support.worker_process import WorkerProcess

from kopiwatch.kopia.policy import GATE_AFTER, GATE_BEFORE


@pytest.fixture
def worker(tmp_path):
    running = WorkerProcess(tmp_path)
    yield running
    running.end()


def lock_is_free(path: Path) -> bool:
    return subprocess.run(["flock", "--nonblock", str(path), "true"], check=False).returncode == 0


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


KOPIA = f"""
sh -c {shlex.quote(GATE_BEFORE)} || exit 1
echo reading >&2
sh -c {shlex.quote(GATE_AFTER)} || exit 1
echo '{{"id":"k1"}}'
"""


def test_worker_takes_kopia_through_its_gate(worker):
    """ready comes before go, read after it, and exit carries code, output and errors."""
    worker.set_up()
    worker.hear("set-up")
    worker.launch(KOPIA)
    worker.hear("ready")
    worker.order("go")
    worker.hear("read")
    worker.order("flush")
    ended = worker.hear("exit")
    assert (ended["code"], ended["killed"]) == (0, False)
    assert ended["out"] == '{"id":"k1"}\n'
    assert "reading" in ended["err"]


def test_worker_without_go_leaves_kopia_at_the_gate(worker):
    """Nothing is read until the order comes."""
    worker.set_up()
    worker.hear("set-up")
    worker.launch(KOPIA)
    worker.hear("ready")
    worker.order("kill")
    ended = worker.hear("exit")
    assert ended["killed"]
    assert "reading" not in ended["err"]


def test_worker_kill_ends_all_that_kopia_started(worker, tmp_path):
    """A grandchild that ignores SIGTERM is gone when the worker says exit."""
    worker.set_up()
    worker.hear("set-up")
    worker.launch(f"(trap '' TERM; echo $$ > {tmp_path}/child; sleep 60) & {KOPIA}")
    worker.hear("ready")
    worker.order("kill")
    assert worker.hear("exit")["code"] == -9
    pids = subprocess.run(["pgrep", "-f", f"{tmp_path}/child"], check=False, capture_output=True)
    assert all(gone(int(pid)) for pid in pids.stdout.split())


def test_worker_with_closed_input_kills_kopia_and_leaves(worker, tmp_path):
    """The end of input is a dead man's switch: Kopia dies, the lock is free."""
    worker.set_up()
    worker.hear("set-up")
    assert not lock_is_free(tmp_path / "kopia.lock")
    worker.launch(KOPIA)
    worker.hear("ready")
    worker.process.stdin.close()
    assert worker.process.wait(10) == 0
    deadline = time.monotonic() + 5
    while not lock_is_free(tmp_path / "kopia.lock"):
        assert time.monotonic() < deadline, "the lock is still held"


def test_worker_lock_names_its_owner_and_lives_with_the_worker(worker, tmp_path):
    """The lock file holds the text for people, and is private."""
    worker.set_up()
    worker.hear("set-up")
    assert (tmp_path / "kopia.lock").read_text() == '{"pid": 1}'
    assert (tmp_path / "kopia.lock").stat().st_mode & 0o777 == 0o600


def test_worker_secrets_are_private_files(worker, tmp_path):
    """Files of the set-up land below base, readable by their owner only."""
    worker.set_up()
    worker.hear("set-up")
    written = tmp_path / "base" / "repository.config"
    assert written.read_bytes() == b"{}"
    assert written.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "base").stat().st_mode & 0o777 == 0o700


def test_worker_refuses_a_missing_source(worker, tmp_path):
    """A path of the tree that is not there is an error, not an empty source."""
    worker.set_up(expect=[str(tmp_path / "volumes" / "db")])
    refused = worker.hear("error")
    assert refused["reason"] == "missing"
    assert "volumes/db" in refused["text"]


@pytest.mark.parametrize("kind", ["socket", "FIFO", "device"])
def test_worker_refuses_a_source_that_holds_no_data(worker, tmp_path, kind):
    """Kopia would pass over it, and the source be empty."""
    path = tmp_path / "odd"
    if kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    elif kind == "FIFO":
        os.mkfifo(path)
    worker.set_up(expect=["/dev/null" if kind == "device" else str(path)])
    refused = worker.hear("error")
    assert (refused["reason"], f"is a {kind}" in refused["text"]) == ("no-data", True)


def test_worker_refuses_a_folder_that_cannot_be_written(worker, tmp_path):
    """The probe write happens with the rights that Kopia will have."""
    worker.set_up(probe=[str(tmp_path / "absent")])
    refused = worker.hear("error")
    assert refused["reason"] == "probe"
    assert "absent" in refused["text"]


def test_worker_with_a_program_that_is_missing_says_launch(worker):
    """A worker image without Kopia is told apart from a Kopia that fails."""
    worker.set_up()
    worker.hear("set-up")
    worker.order("launch", argv=["/absent/kopia"], env={})
    assert worker.hear("error")["reason"] == "launch"


STRANGE = (
    *(b"nonsense", b"[]", b'{"do": 1}', b'{"do": "go"}', b'{"x": 1}'),
    *(b'{"do": "sync"}', b'{"do": "set-up"}', b'{"do": "survey"}'),
)


@pytest.mark.parametrize("line", STRANGE)
def test_worker_survives_strange_orders(worker, line):
    """An order that is none is refused, and the worker goes on."""
    worker.hear("hello")
    worker.process.stdin.write(line + b"\n")
    worker.process.stdin.flush()
    assert worker.hear("error")["reason"] == "protocol"
    worker.order("kill")
    worker.hear("exit")


def test_worker_keeps_the_end_of_long_errors(worker):
    """Floods on both pipes block nobody; the end of the errors is kept."""
    worker.set_up()
    worker.hear("set-up")
    worker.launch("i=0; while [ $i -lt 20000 ]; do echo line$i >&2; i=$((i+1)); done; exit 3")
    ended = worker.hear("exit")
    assert ended["code"] == 3
    assert ended["err"].endswith("line19999\n")
    assert len(ended["err"]) <= 16 * 1024


@pytest.fixture
def dead(tmp_path):
    with hanging_folder(tmp_path / "dead") as folder:
        yield folder


def test_worker_refuses_a_source_that_hangs(worker, dead):
    """It says so, and obeys on: only a child waits for the dead disk."""
    dead.hang("look")
    worker.set_up(expect=[str(dead.path)])
    wait_until(lambda: dead.hung, "the child hangs")
    worker.order("kill")
    assert worker.hear("error")["reason"] == "stuck"
    worker.hear("exit")


def test_worker_gives_the_lock_back_when_kopia_hangs_beyond_sigkill(worker, dead, tmp_path):
    """Killed, it never runs again; it keeps its descriptors, but not the lock."""
    worker.set_up()
    worker.hear("set-up")
    dead.hang("read")
    worker.launch(f"exec cat {dead.file}")
    wait_until(lambda: dead.hung, "Kopia hangs")
    worker.order("kill")
    ended = worker.hear("exit")
    assert (ended["killed"], ended["remains"]) == (True, True)
    assert lock_is_free(tmp_path / "kopia.lock")


def test_worker_leaves_although_kopia_hangs(worker, dead, tmp_path):
    """The dead man's switch works then, too."""
    worker.set_up()
    worker.hear("set-up")
    dead.hang("read")
    worker.launch(f"exec cat {dead.file}")
    wait_until(lambda: dead.hung, "Kopia hangs")
    worker.process.stdin.close()
    assert worker.process.wait(15) == 0
    assert lock_is_free(tmp_path / "kopia.lock")


def survey_of(worker, *folders: Path) -> None:
    """Order the walk of these folders; the lists go beside the worker's base."""
    sources = [{"path": str(folder), "name": f"volumes/{folder.name}"} for folder in folders]
    worker.order("survey", sources=sources, since=0, into=str(worker.folder / "lists"))


def test_worker_walks_the_sources_while_kopia_opens_the_repository(worker, tmp_path):
    """Both words come, in whatever order; the lists are on the disk by then."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_bytes(b"12345")
    worker.set_up()
    worker.hear("set-up")
    survey_of(worker, tmp_path / "data")
    worker.launch(KOPIA)
    said = {line["say"]: line for line in (worker.hear_any(), worker.hear_any())}
    assert set(said) == {"ready", "surveyed"}
    (found,) = said["surveyed"]["result"]["sources"]
    assert (found["path"], found["files"], found["bytes"]) == ("volumes/data", 1, 5)
    assert (tmp_path / "lists" / "volumes" / "data").exists()
    worker.order("go")
    worker.hear("read")


def test_worker_that_may_not_write_lists_says_so(worker, tmp_path):
    """The reason is one that the hint knows."""
    (tmp_path / "lists").write_bytes(b"no folder")
    (tmp_path / "data").mkdir()
    worker.hear("hello")
    survey_of(worker, tmp_path / "data")
    refused = worker.hear("error")
    assert refused["reason"] == "attributes"
    assert "Not a directory" in refused["text"]


def test_worker_obeys_on_while_the_walk_hangs(worker, dead):
    """Only a child waits for the dead disk; told to kill, the worker leaves it there."""
    (worker.folder / "lists").mkdir()
    worker.set_up()
    worker.hear("set-up")
    dead.hang("list", "look")
    survey_of(worker, dead.path)
    wait_until(lambda: dead.hung, "the walk hangs")
    worker.launch(KOPIA)
    worker.hear("ready")
    worker.order("kill")
    assert worker.hear("exit")["killed"]
