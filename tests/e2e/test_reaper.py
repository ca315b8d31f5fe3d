"""Process 1 of a process namespace: it passes signals on, buries orphans, and ends as its child."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

BEGIN = """
import os, signal, subprocess, sys, time
from kopiwatch.cli.reaper import become_init
assert os.getpid() == 1
"""
SENT = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),
)
UNSHARE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@contextmanager
def namespace(program: str) -> Iterator[subprocess.Popen[str]]:
    """Run a program as process 1; everything in its namespace dies with it."""
    process = subprocess.Popen(
        [*UNSHARE, sys.executable, "-u", "-c", BEGIN + textwrap.dedent(program)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(program: str) -> tuple[int, str]:
    """Run a program as process 1 to its end; exit code and output."""
    with namespace(program) as process:
        output, errors = process.communicate(timeout=15)
        assert errors == ""
        return process.returncode, output


def init_of(process: subprocess.Popen[str]) -> int:
    """Process 1, as this namespace numbers it."""
    (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return int(child)


@pytest.mark.parametrize("code", [0, 7, 75])
def test_exit_code_is_that_of_the_child(code):
    """The child is process 2 and has a normal life."""
    program = f"""
    become_init()
    assert os.getppid() == 1
    print(os.getpid())
    sys.exit({code})
    """
    assert ended(program) == (code, "2\n")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_child_that_dies_by_a_signal_is_told_as_a_shell_tells_it(number):
    """128 and the signal's number."""
    program = f"""
    become_init()
    os.kill(os.getpid(), {int(number)})
    """
    assert ended(program) == (128 + number, "")


def test_signals_reach_the_child():
    """Each one that a person or Docker may send, as itself and once."""
    program = f"""
    become_init()
    sent = {[int(number) for number in SENT]}
    signal.pthread_sigmask(signal.SIG_BLOCK, sent)
    print("ready")
    for _ in sent:
        print(int(signal.sigwait(sent)))
    """
    with namespace(program) as process:
        assert process.stdout.readline() == "ready\n"
        init = init_of(process)
        for number in SENT:
            os.kill(init, number)
            assert process.stdout.readline() == f"{int(number)}\n"
        assert process.wait(15) == 0


def test_signal_before_the_child_stands_is_not_lost():
    """One that comes while process 1 forks is passed on as soon as it can be."""
    program = """
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
    os.kill(1, signal.SIGTERM)
    become_init()
    time.sleep(15)
    """
    assert ended(program) == (128 + signal.SIGTERM, "")


def test_orphans_are_buried_and_the_childs_own_children_are_not_touched():
    """An orphan leaves no zombie; the child waits for its own children and gets their codes."""
    program = """
    become_init()
    told, tell = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            while os.getppid() != 1:
                time.sleep(0.01)
            os.write(tell, str(os.getpid()).encode())
            os._exit(3)
        os._exit(0)
    os.waitpid(parent, 0)
    orphan = int(os.read(told, 10))
    own = subprocess.Popen(["sh", "-c", "exit 5"])
    while os.path.exists(f"/proc/{orphan}"):
        time.sleep(0.01)
    print(own.wait())
    """
    assert ended(program) == (0, "5\n")


def test_end_of_the_child_ends_what_it_left_behind():
    """Nothing outlives process 1, and it does not wait for orphans."""
    program = """
    become_init()
    subprocess.Popen(["sleep", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    """
    assert ended(program) == (0, "")
