"""Stray workers: what earlier processes of this state folder left running, ended and confirmed.

Worker containers carry our uuid as a label, worker processes and their Kopia as a variable of their
environment. Another instance's are not ours.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import anyio
import anyio.to_thread

from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineError

RUN_VARIABLE = "KOPIWATCH_WORKER_RUN"
STATE_VARIABLE = "KOPIWATCH_WORKER_STATE"
GONE_SECONDS = 10.0


async def end_strays(engine: Engine, state: str) -> tuple[str, ...]:
    """End the workers of the state folder with this uuid; on return they are gone.

    Only whoever holds the run lock may call it. Returns what was ended, for people. Raises
    EngineError when Docker cannot be asked, or a process does not die.
    """
    ended = [f"process {pid}" for pid in sorted(await end_marked((STATE_VARIABLE, state)))]
    for container in await engine.workers(state):
        await engine.remove_worker(container)
        ended.append(f"container {container[:12]}")
    return tuple(ended)


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
