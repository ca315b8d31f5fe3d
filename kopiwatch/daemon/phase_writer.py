"""Writes down which phase a run is in, and keeps the disk free while containers are down."""

from __future__ import annotations

import math
from datetime import datetime
from types import TracebackType
from typing import Self

import anyio
import anyio.abc

from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import IN_WINDOW, Phase
from kopiwatch.daemon.desk import Desk

_Begun = tuple[str, Phase, datetime]


class PhaseWriter:
    """A listener in front of another one; use it as a context around one run.

    What begins between the first stop and the last start is written after that: a commit there
    would compete with what Kopia reads.
    """

    def __init__(self, desk: Desk, unit: str, listener: Listener) -> None:
        self._desk = desk
        self._unit = unit
        self._listener = listener
        self._send, self._receive = anyio.create_memory_object_stream[_Begun](math.inf)
        self._tasks: anyio.abc.TaskGroup = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._write)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._send.close()
        await self._tasks.__aexit__(kind, error, trace)

    def say(self, action: str, message: str, **facts: object) -> None:
        """Pass it on; a phase is written down, too."""
        self._listener.say(action, message, **facts)
        if action == "phase" and "run" in facts:
            phase: Phase = message  # type: ignore[assignment]  # Run says phases by their name
            self._desk.phase = phase
            self._send.send_nowait((str(facts["run"]), phase, self._desk.clock.now()))

    async def _write(self) -> None:
        held: list[_Begun] = []
        async with self._receive:
            async for begun in self._receive:
                held.append(begun)
                if begun[1] in IN_WINDOW:
                    continue
                for run, phase, at in held:
                    await self._desk.ledger.phase(run, self._unit, phase, at)
                held.clear()
