"""The gate's scripts, in every shell at hand."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from kopiwatch.kopia.policy import GATE_AFTER, GATE_BEFORE

SHELLS = [["/bin/sh"]] + [
    [path, *words]
    for name, *words in (["dash"], ["busybox", "sh"], ["bash", "--posix"])
    if (path := shutil.which(name))
]


@pytest.fixture(params=SHELLS, ids=lambda shell: os.path.basename(shell[0]))
def shell(request):
    return request.param


@pytest.fixture
def gate(tmp_path):
    folder = tmp_path / "a gate"
    folder.mkdir()
    os.mkfifo(folder / "said")
    os.mkfifo(folder / "word")
    return folder


def start(shell, script, gate):
    # No PATH: the scripts may use nothing but what the shell itself knows.
    env = {"PATH": "/nonexistent"} | ({"KOPIWATCH_GATE": str(gate)} if gate else {})
    pipe = subprocess.PIPE
    return subprocess.Popen([*shell, "-c", script], env=env, stdout=pipe, stderr=pipe, text=True)


def end(process):
    _, stderr = process.communicate(timeout=10)
    return process.returncode, stderr


@pytest.mark.parametrize(
    ("word", "open_"), [("go\n", True), ("stop\n", False), ("\n", False), ("go on\n", False)]
)
def test_gate_opens_for_go_alone(shell, gate, word, open_):
    """Any other word refuses."""
    process = start(shell, GATE_BEFORE, gate)
    assert (gate / "said").read_text() == "before\n"
    (gate / "word").write_text(word)
    code, stderr = end(process)
    assert (code == 0) is open_
    assert stderr == ""


def test_gate_passes_the_place_of_a_stage_on(shell, gate):
    """What Kopia is to read in the source's place; without one it says nothing."""
    for word, said in (("go /mnt/.stage/0/a b", "/mnt/.stage/0/a b"), ("go", "")):
        process = start(shell, GATE_BEFORE, gate)
        assert (gate / "said").read_text() == "before\n"
        (gate / "word").write_text(f"{word}\n")
        stdout, _ = process.communicate(timeout=10)
        assert stdout == (f"KOPIA_SNAPSHOT_PATH={said}\n" if said else "")
        assert process.returncode == 0


def test_gate_refuses_when_the_word_never_comes(shell, gate):
    """The end of the FIFO, because its writer died, is a refusal."""
    process = start(shell, GATE_BEFORE, gate)
    assert (gate / "said").read_text() == "before\n"
    (gate / "word").open("w").close()
    assert end(process)[0] != 0


@pytest.mark.parametrize(("word", "open_"), [("flush\n", True), ("go\n", False)])
def test_gate_after_waits_for_flush(shell, gate, word, open_):
    """Nothing is written before the containers are up again."""
    process = start(shell, GATE_AFTER, gate)
    assert (gate / "said").read_text() == "after\n"
    (gate / "word").write_text(word)
    assert (end(process)[0] == 0) is open_


@pytest.mark.parametrize("script", [GATE_BEFORE, GATE_AFTER], ids=["before", "after"])
def test_gate_without_its_folder_refuses_and_says_why(shell, tmp_path, script):
    """Somebody runs Kopia by hand: no hang, no snapshot, one sentence."""
    for folder in (None, tmp_path / "nowhere"):
        code, stderr = end(start(shell, script, folder))
        assert code == 1
        assert stderr.startswith("kopiwatch: ")
        assert stderr.count("\n") == 1
