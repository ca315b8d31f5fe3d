"""The lock: who holds it, who waits, who dies."""

from __future__ import annotations

import fcntl
import json
import os
import stat
import subprocess
import sys
from datetime import UTC, datetime

import anyio
import pytest
from anyio.to_thread import run_sync as in_thread

from kopiwatch.errors import BusyError, KopiwatchError
from kopiwatch.kopia.lock import FileLock, Owner, holder

SINCE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "locks" / "run.lock"


def lock(path, **fields):
    return FileLock(path, now=lambda: SINCE, **fields)


def sleeper(fd):
    return subprocess.Popen(["/bin/sleep", "60"], pass_fds=[fd])


def run(program, *arguments):
    subprocess.run([sys.executable, "-I", "-c", program, *arguments], check=False)


@pytest.mark.anyio
async def test_second_is_told_who_holds_it_and_since_when(path):
    """PID, command, place and time stand in the error."""
    async with lock(path, command="kopiwatch backup shop", container="abc123").hold():
        with pytest.raises(BusyError) as caught:
            await lock(path).acquire()
    message = caught.value.message
    for part in ("run.lock", str(os.getpid()), "backup shop", "abc123", "2026-03-04 05:06:07 UTC"):
        assert part in message
    assert caught.value.exit_code == 75


@pytest.mark.anyio
async def test_released_lock_is_free_again_and_its_file_stays(path):
    """A deleted lock file would let two in at once."""
    async with lock(path).hold() as first:
        assert first.held
        inode = path.stat().st_ino
    async with lock(path).hold():
        assert path.stat().st_ino == inode
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.anyio
async def test_waiting_ends_when_the_lock_is_given_back(path):
    """The event loop goes on while somebody waits."""
    first, second = lock(path), lock(path)
    await first.acquire()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second.acquire, 10)
        await anyio.sleep(0.05)
        assert not second.held
        first.release()
    assert second.held
    second.release()


@pytest.mark.anyio
async def test_waiting_has_an_end(path):
    """After the given time it is busy; the clock is a test's."""
    time = [0.0]

    async def sleep(seconds: float) -> None:
        time[0] += seconds

    async with lock(path).hold():
        waiting = lock(path, clock=lambda: time[0], sleep=sleep)
        with pytest.raises(BusyError):
            await waiting.acquire(30)
        assert not waiting.held
    assert 30 <= time[0] < 31


@pytest.mark.anyio
async def test_cancelled_waiting_leaves_nothing_locked(path):
    """Whoever gives up does not get it by surprise."""
    first, second = lock(path), lock(path)
    await first.acquire()
    with anyio.move_on_after(0.05):
        await second.acquire(10)
    first.release()
    assert not second.held
    assert await in_thread(holder, path) is None


@pytest.mark.anyio
async def test_child_that_inherits_keeps_the_lock(path):
    """The lock lives as long as anybody who has the descriptor."""
    first = lock(path)
    await first.acquire()
    child = sleeper(first.fileno())
    first.release()
    try:
        assert await in_thread(holder, path) is not None
        with pytest.raises(BusyError):
            await lock(path).acquire()
    finally:
        child.kill()
        child.wait()
    assert await in_thread(holder, path) is None


@pytest.mark.anyio
async def test_lock_of_a_killed_process_is_free_whatever_its_text_says(path):
    """The lock decides who lives, never the text."""
    program = (
        "import fcntl,os,signal,sys\n"
        "fd = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(fd, fcntl.LOCK_EX)\n"
        'os.write(fd, b\'{"pid": 1, "command": "dead"}\')\n'
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    path.parent.mkdir()
    run(program, str(path))
    assert "dead" in path.read_text()
    assert await in_thread(holder, path) is None
    async with lock(path).hold():
        assert json.loads(path.read_text())["pid"] == os.getpid()


@pytest.mark.anyio
@pytest.mark.parametrize("text", [b"", b"{", b"\xff\x00", b'{"pid": "one"}', b"[]"])
async def test_unreadable_owner_breaks_nothing(path, text):
    """Text is for people; rubbish is a holder without a name."""
    path.parent.mkdir()
    path.write_bytes(text)
    fd = os.open(path, os.O_RDWR)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        assert await in_thread(holder, path) == "somebody who left no name"
        with pytest.raises(BusyError):
            await lock(path).acquire()
    finally:
        os.close(fd)
    async with lock(path).hold():
        pass


@pytest.mark.anyio
async def test_looking_does_not_disturb_whoever_does_not_want_to_wait(path):
    """A probe takes the lock for an instant; an acquirer without patience survives that."""
    path.parent.mkdir()
    path.touch()
    probe = os.open(path, os.O_RDONLY)
    fcntl.flock(probe, fcntl.LOCK_SH)

    async def sleep(_: float) -> None:
        os.close(probe)

    async with lock(path, sleep=sleep).hold():
        pass


def test_holder_of_a_missing_file_is_nobody_and_creates_nothing(path):
    """Read-only commands leave no trace."""
    assert holder(path) is None
    assert not path.parent.exists()


@pytest.mark.anyio
async def test_lock_in_an_impossible_place_is_an_error_of_ours(tmp_path):
    """Never a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(KopiwatchError, match="lock file"):
        await lock(tmp_path / "file" / "run.lock").acquire()


@pytest.mark.anyio
async def test_descriptor_of_a_free_lock_does_not_exist(path):
    """Handing on a lock that is not held is a bug."""
    free = lock(path)
    with pytest.raises(ValueError, match="not locked"):
        free.fileno()
    async with free.hold():
        with pytest.raises(ValueError, match="this very object"):
            await free.acquire()


def test_owner_reads_well():
    """One clause for people, complete or not."""
    assert str(Owner(pid=7)) == "PID 7 on host ?"
    assert (
        str(Owner(7, "h", "", "x", SINCE)) == "PID 7 (x) on host h, since 2026-03-04 05:06:07 UTC"
    )
