"""Stray workers: what earlier processes of this state folder left running, ended and confirmed.

Worker containers carry our uuid as a label, worker processes and their Kopia as a variable of their
environment. Another instance's are not ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import EngineDenied, EngineError, EngineUnreachable, KopiwatchError
from kopiwatch.task import deadline, outcomes

RUN_VARIABLE = "KOPIWATCH_WORKER_RUN"
STATE_VARIABLE = "KOPIWATCH_WORKER_STATE"
GONE_SECONDS = 10.0
LEAVE_SECONDS = 8.0
"""A worker whose input has ended leaves at once, or after 5 s where its Kopia cannot end: by then
it has given the Kopia lock back, which it could not do if it were killed before."""


class Strays(msgspec.Struct, frozen=True):
    """What was ended, and what could not be (with why), for people."""

    ended: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


async def end_strays(engine: Engine, state: str) -> Strays:
    """End the workers of the state folder with this uuid; takes 40 s at most.

    Only whoever holds the run lock may call it. What was killed and is not gone hangs in the kernel
    on a dead disk: it never runs again and holds no lock (the worker gives that back), so it must
    keep nobody down and no other unit waiting. Raises EngineError when Docker cannot be asked.
    """
    ended: list[str] = []
    left: list[str] = []
    workers = await engine.workers(state)
    with anyio.move_on_after(LEAVE_SECONDS):
        while True:
            if not await _alive(engine, state, workers):
                break
            await anyio.sleep(0.05)
    try:
        ended += (f"process {pid}" for pid in sorted(await end_marked((STATE_VARIABLE, state))))
    except EngineError as error:
        left.append(error.message)

    async def remove(container: str) -> str:
        with deadline(GONE_SECONDS * 2, lambda: EngineError("it does not end on SIGKILL")):
            await engine.remove_worker(container)
        return f"container {container[:12]}"

    for worker, outcome in zip(
        workers, await outcomes([partial(remove, worker) for worker in workers]), strict=True
    ):
        if isinstance(outcome, EngineUnreachable | EngineDenied):
            raise outcome
        if isinstance(outcome, KopiwatchError):
            left.append(f"container {worker[:12]}: {outcome.message}")
        else:
            ended.append(outcome)
    return Strays(tuple(ended), tuple(left))


async def _alive(engine: Engine, state: str, workers: Iterable[str]) -> bool:
    """Whether one of them has not left yet. Where Docker does not say, nobody waits."""
    if await anyio.to_thread.run_sync(_marked, (STATE_VARIABLE, state)):
        return True
    seen = await outcomes([partial(engine.inspect, worker) for worker in workers])
    return any(isinstance(one, Inspected) and one.running for one in seen)


async def end_marked(mark: tuple[str, str]) -> set[int]:
    """Kill what carries the mark until nothing does; returns the process ids.

    Raises EngineError when something does not die (a process that waits for a dead disk).
    """
    found: set[int] = set()
    with anyio.move_on_after(GONE_SECONDS):
        while killed := await anyio.to_thread.run_sync(_kill_marked, mark):
            found.update(killed)
            await anyio.sleep(0.02)
        return found
    raise EngineError(
        f"worker processes {sorted(found)} do not end on SIGKILL",
        hint="a disk or network mount below them hangs; see `dmesg`",
    )


def _kill_marked(mark: tuple[str, str]) -> list[int]:
    """SIGKILL for every process that carries the mark; returns their ids."""
    found = _marked(mark)
    for process in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
    return found


def _marked(mark: tuple[str, str]) -> list[int]:
    """Every process whose environment carries the mark, which is on workers alone.

    A process that has ended but was not waited for has an empty environment: it does not count.
    """
    text = "=".join(mark).encode()
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            environment = (folder / "environ").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if text in environment:
            found.append(int(folder.name))
    return found
