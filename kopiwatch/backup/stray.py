"""Stray workers: what earlier processes of this state folder left running, ended and confirmed.

Worker containers carry our uuid as a label, worker processes and their Kopia as a variable of their
environment. Another instance's are not ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineDenied, EngineError, EngineUnreachable, KopiwatchError
from kopiwatch.task import deadline, outcomes

RUN_VARIABLE = "KOPIWATCH_WORKER_RUN"
STATE_VARIABLE = "KOPIWATCH_WORKER_STATE"
GONE_SECONDS = 10.0


class Strays(msgspec.Struct, frozen=True):
    """What was ended, and what could not be (with why), for people."""

    ended: tuple[str, ...] = ()
    left: tuple[str, ...] = ()


async def end_strays(engine: Engine, state: str) -> Strays:
    """End the workers of the state folder with this uuid; takes 30 s at most.

    Only whoever holds the run lock may call it. What was killed and is not gone hangs in the kernel
    on a dead disk: it never runs again and holds no lock (the worker gives that back), so it must
    keep nobody down and no other unit waiting. Raises EngineError when Docker cannot be asked.
    """
    ended: list[str] = []
    left: list[str] = []
    try:
        ended += (f"process {pid}" for pid in sorted(await end_marked((STATE_VARIABLE, state))))
    except EngineError as error:
        left.append(error.message)

    async def remove(container: str) -> str:
        with deadline(GONE_SECONDS * 2, lambda: EngineError("it does not end on SIGKILL")):
            await engine.remove_worker(container)
        return f"container {container[:12]}"

    workers = await engine.workers(state)
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
    """SIGKILL for every process whose environment carries the mark; the mark is on workers alone.

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
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(folder.name), signal.SIGKILL)
            found.append(int(folder.name))
    return found
