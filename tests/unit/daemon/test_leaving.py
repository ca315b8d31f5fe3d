"""Leaving: what runs is ended in order, others are asked to go, and nothing stays down."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import anyio
import pytest
from anyio.to_thread import run_sync as in_thread
from support.desk_world import FINAL_SECONDS, DeskWorld, desk_world

from kopiwatch.daemon.leaving import HOST_GRACE_SECONDS, grace_of, leave
from kopiwatch.engine import own
from kopiwatch.errors import EngineUnreachable
from kopiwatch.kopia.lock import FileLock

pytestmark = pytest.mark.anyio
UP = ["running", "running"]
SUCCESS = ("shop", "success", "")
CANCELLED = ("shop", "failed", "cancelled")


class Here:
    """An executor at work, and what is needed to leave it."""

    def __init__(self, world: DeskWorld) -> None:
        self.world = world
        self.ended, self.hurry = anyio.Event(), anyio.Event()

    @asynccontextmanager
    async def working(self, step: str = "") -> AsyncIterator[None]:
        """The executor works; with a ``step``, on a run whose Kopia hangs there."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.world.executor.phases.run)
            tasks.start_soon(self._work)
            await self.world.rest()
            if step:
                self.world.hangs(step)
                self.world.ask()
                self.world.desk.work.ring()
                await self.world.until(lambda: step in self.world.program.steps)
            yield
            tasks.cancel_scope.cancel()

    async def _work(self) -> None:
        try:
            await self.world.executor.run()
        finally:
            self.ended.set()

    async def leave(self, grace: float = 60) -> None:
        """What the daemon does after a signal."""
        self.world.desk.stopping = True
        with anyio.fail_after(FINAL_SECONDS):
            await leave(self.world.desk, self.world.executor, self.ended, self.hurry, grace)
        assert self.ended.is_set()

    @property
    def said(self) -> list[str]:
        """What the daemon said of its leaving; a run says in the same way whom it stops."""
        return [line for line in self.world.said.of("stop") if not line.startswith("shop: ")]


@pytest.fixture
async def here(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as world:
        yield Here(world)


async def test_idle_daemon_leaves_at_once(here):
    """Without a word and without a call to Docker."""
    async with here.working():
        calls = len(here.world.engine.calls)
        await here.leave()
        assert (here.said, len(here.world.engine.calls)) == ([], calls)


async def test_what_waits_in_the_queue_is_not_begun(here):
    """Nothing new."""
    here.world.desk.connected = False
    async with here.working():
        here.world.ask()
        here.world.desk.stopping = True
        here.world.desk.connected = True
        await here.leave()
        assert here.world.verdicts == []


async def test_run_before_its_window_is_dropped(here):
    """Nobody was stopped, nobody is."""
    async with here.working("launch"):
        await here.leave()
        assert here.world.verdicts == [CANCELLED]
        assert here.world.engine.order("stop") == []


async def test_run_in_its_window_is_cut_short_and_its_members_come_back(here):
    """Before we are gone; the debt is off the books."""
    async with here.working("go"):
        assert here.world.states == ["exited", "exited"]
        await here.leave()
        assert here.world.states == UP
        assert here.world.verdicts == [CANCELLED]
        assert await here.world.journal() is None


async def test_run_past_its_window_may_end(here):
    """Its members run; a success that is nearly done is not thrown away."""
    world = here.world
    async with here.working("flush"), anyio.create_task_group() as tasks:
        tasks.start_soon(here.leave)
        await world.until(lambda: here.said)
        assert here.said == ["the run of shop is past its window; it may end"]
        world.goes_on("flush")
    assert world.verdicts == [SUCCESS]


@pytest.mark.parametrize("why", ["hurry", "grace"])
async def test_run_past_its_window_is_cut_short_when_time_is_up(here, why):
    """By a second signal, or because Docker would kill us."""
    async with here.working("flush"):
        if why == "hurry":
            here.hurry.set()
        await here.leave(grace=60 if why == "hurry" else 0)
        assert here.world.verdicts == [CANCELLED]
        assert here.world.states == UP


async def test_run_that_waits_for_the_lock_is_dropped(here):
    """Whoever has the lock goes on; we touch nothing of theirs."""
    other = FileLock(here.world.state.run_lock, command="kopiwatch backup by hand")
    async with here.working():
        await other.acquire()
        here.world.ask()
        here.world.desk.work.ring()
        await here.world.until(lambda: here.world.said.of("wait"))
        await here.leave()
        other.release()
        assert here.world.engine.order("stop", "worker") == []


async def test_what_is_owed_is_started_before_we_go(here):
    """A run of somebody else that died while we lived, too."""
    async with here.working():
        await here.world.crash(here.world.db, here.world.web)
        await here.leave()
        assert here.world.states == UP


async def test_what_another_run_owes_is_left_to_it(here):
    """It holds the lock, so it is alive and brings back what it stopped."""
    other = FileLock(here.world.state.run_lock, command="kopiwatch backup by hand")
    async with here.working():
        await here.world.crash(here.world.db)
        await other.acquire()
        await here.leave()
        other.release()
        assert here.world.states == ["exited", "running"]
        assert "it brings back what it stopped" in here.said[-1]


async def test_what_cannot_be_started_without_docker_is_said(here):
    """As an error: somebody must know that it is down."""
    async with here.working():
        await here.world.crash(here.world.db)
        here.world.docker_away = EngineUnreachable("Docker does not answer")
        await here.leave()
        assert here.world.said.of("owed") == ["not everything is back: Docker does not answer"]


async def test_journals_that_cannot_be_read_are_said_and_we_leave(here):
    """Nobody knows what is down: that is no reason to stay, and none to be silent."""
    async with here.working():
        folder = anyio.Path(here.world.state.journals.folder)
        await folder.rmdir()
        await folder.write_text("")
        await here.leave()
        (line,) = here.world.said.of("owed")
        assert str(folder) in line


HOLDER = """
import os, signal, sys, anyio
from pathlib import Path
from kopiwatch.kopia.lock import FileLock

async def main():
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with FileLock(Path(sys.argv[1]), command="backup shop").hold():
            os.write(1, b"held")
            async for _ in signals:
                return

anyio.run(main)
"""


async def test_run_of_another_process_here_is_asked_to_leave_and_waited_for(here):
    """It would die with our container, without bringing anything back."""
    arguments = [sys.executable, "-c", HOLDER, str(here.world.state.run_lock), "kopiwatch"]
    async with (
        here.working(),
        await anyio.open_process(arguments, stdout=subprocess.PIPE, stderr=None) as process,
    ):
        try:
            assert await process.stdout.receive() == b"held"
            await here.leave()
            with anyio.fail_after(FINAL_SECONDS):
                assert await process.wait() == 0
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
    assert len(here.said) == 1
    assert here.said[0].startswith("asking PID ")
    assert "backup shop" in here.said[0]


async def test_lock_file_that_names_somebody_who_is_gone_harms_nobody(here):
    """A process that has its PID by now gets no signal of ours."""
    bystander = await in_thread(lambda: subprocess.Popen(["sleep", "60"]))
    try:
        async with here.working():
            lock = FileLock(here.world.state.run_lock)
            await lock.acquire()
            text = await anyio.Path(lock.path).read_text()
            lock.release()
            mine, theirs = f'"pid":{os.getpid()}', f'"pid":{bystander.pid}'
            assert mine in text
            await anyio.Path(lock.path).write_text(text.replace(mine, theirs))
            await here.leave()
            assert (bystander.poll(), here.said) == (None, [])
    finally:
        await in_thread(_end, bystander)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()


# -- how long it may take ----------------------------------------------------------------------


def inside(world: DeskWorld, patch: pytest.MonkeyPatch, granted: timedelta | None) -> None:
    """We are a container to which Docker grants so much time to stop."""
    me = world.engine.add_container("kopiwatch", details={"stop_timeout": granted})
    mount = f"1 2 0:1 /docker/containers/{me}/hostname /etc/hostname rw - ext4 x rw"
    patch.setattr(own, "_own_mountinfo", lambda: mount)


@pytest.mark.parametrize(
    ("granted", "seconds"),
    [(timedelta(minutes=2), 116.0), (timedelta(seconds=3), 1.0), (None, 3600.0)],
)
async def test_container_has_the_time_that_docker_grants_it(here, monkeypatch, granted, seconds):
    """Less a margin for the last steps; an hour where nothing was said."""
    inside(here.world, monkeypatch, granted)
    assert await grace_of(here.world.desk) == seconds


async def test_host_has_a_minute(here):
    """Service managers wait for 90 seconds."""
    assert await grace_of(here.world.desk) == HOST_GRACE_SECONDS


async def test_time_without_docker_is_that_of_a_host(here, monkeypatch):
    """Nobody can say more."""
    inside(here.world, monkeypatch, timedelta(minutes=2))
    here.world.docker_away = EngineUnreachable("Docker does not answer")
    assert await grace_of(here.world.desk) == HOST_GRACE_SECONDS
