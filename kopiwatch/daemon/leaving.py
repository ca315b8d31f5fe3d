"""Leaving in order: nothing new, nothing down, no one-off run left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.settle import readable
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.executor import Executor
from kopiwatch.engine.own import Inside
from kopiwatch.errors import BusyError, KopiwatchError
from kopiwatch.kopia.lock import FileLock, Owner, holder

HOST_GRACE_SECONDS = 60.0
"""On a host, service managers wait for 90 s by default."""
MARGIN_SECONDS = 4.0
"""What the last steps take: closing, the journal, the exit itself."""
LOOK_SECONDS = 10.0


async def grace_of(desk: Desk) -> float:
    """How long leaving may take, in seconds: what Docker grants our own container, less a margin.

    Compose writes ``stop_grace_period`` there. On a host, or if Docker cannot be asked, a minute.
    """
    with anyio.move_on_after(LOOK_SECONDS), contextlib.suppress(KopiwatchError):
        async with wiring.docker(desk.config) as where:
            own = where.own
            if isinstance(own, Inside):
                granted = own.container.stop_timeout
                if granted is None:
                    return 3600.0
                return max(1.0, granted.total_seconds() - MARGIN_SECONDS)
    return HOST_GRACE_SECONDS


async def leave(
    desk: Desk, executor: Executor, ended: anyio.Event, hurry: anyio.Event, grace: float
) -> None:
    """End the run of just now, then those of others in this container, then replay.

    A run before its window is dropped, one in its window is cut short (its members come back), one
    past it may finish while time allows or until ``hurry``.
    """
    start = desk.clock.seconds()

    def left() -> float:
        return max(0.0, grace - (desk.clock.seconds() - start))

    attempt = executor.attempt
    if attempt is not None and attempt.past_window:
        desk.listener.say("stop", f"the run of {attempt.order.unit} is past its window; it may end")
        await _either(ended, hurry, left())
    # Bringing back is shielded in there: it takes as long as the containers take to start.
    while not ended.is_set():
        if executor.scope is not None:
            executor.scope.cancel()
        desk.work.ring()
        with anyio.move_on_after(1):
            await ended.wait()
    await _end_others(desk, left)
    await _replay(desk)


async def _either(one: anyio.Event, other: anyio.Event, seconds: float) -> None:
    with anyio.move_on_after(seconds):
        async with anyio.create_task_group() as tasks:

            async def until(event: anyio.Event) -> None:
                await event.wait()
                tasks.cancel_scope.cancel()

            tasks.start_soon(until, one)
            tasks.start_soon(until, other)


async def _end_others(desk: Desk, left: Callable[[], float]) -> None:
    """Ask a one-off run in our own process namespace to leave: it goes down with us otherwise."""
    owner = await anyio.to_thread.run_sync(_owner_here, desk)
    if owner is None:
        return
    desk.listener.say("stop", f"asking {owner} to leave, too")
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(owner.pid, signal.SIGTERM)
    lock = FileLock(desk.state.run_lock, command="run: stop")
    try:
        await lock.acquire(wait=max(1.0, left()))
    except KopiwatchError as error:
        desk.listener.say("stop", error.message, level="error")
        return
    lock.release()


def _owner_here(desk: Desk) -> Owner | None:
    """Who holds the run lock, if it is a process that we can see and that is not us."""
    try:
        owner = msgspec.json.decode(desk.state.run_lock.read_bytes(), type=Owner)
    except (OSError, msgspec.DecodeError):
        return None
    if owner.host != socket.gethostname() or owner.pid == os.getpid():
        return None
    try:
        words = Path(f"/proc/{owner.pid}/cmdline").read_bytes()
    except OSError:
        return None
    return owner if b"kopiwatch" in words and holder(desk.state.run_lock) is not None else None


async def _replay(desk: Desk) -> None:
    """Start what is still owed, if anything is and nobody else works on it."""
    lock = FileLock(desk.state.run_lock, command="run: stop")
    try:
        journals = await readable(desk.state.journals)
        if not any(journal.members for journal in journals.values()):
            return
        async with lock.hold(), wiring.docker(desk.config) as where:
            await wiring.replay(where.engine, desk.state, desk.identity, desk.listener)
    except BusyError as error:
        desk.listener.say("stop", f"{error.message}; it brings back what it stopped")
    except KopiwatchError as error:
        desk.listener.say("owed", f"not everything is back: {error.message}", level="error")
