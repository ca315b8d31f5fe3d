"""Writes down which phase a run is in, and keeps the disk free while containers are down."""

from __future__ import annotations

from datetime import datetime

from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import IN_WINDOW, Phase
from kopiwatch.daemon.desk import Desk

_Begun = tuple[str, str, Phase, datetime]


class PhaseWriter:
    """The loop that writes phases. What it is told of is only noted: nothing in a run waits for it.

    What begins between the first stop and the last start is written after that: a commit there
    would compete with what Kopia reads.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._begun: list[_Begun] = []

    def note(self, unit: str, run: str, phase: Phase) -> None:
        """A phase begins. Never raises: it is called with containers down."""
        self._begun.append((unit, run, phase, self._desk.clock.now()))
        if phase not in IN_WINDOW:
            self._desk.write.ring()

    async def run(self) -> None:
        """Write until cancelled; the end of a run writes all its phases anew, with lengths."""
        while True:
            await self._desk.write.wait()
            begun, self._begun = self._begun, []
            for unit, run, phase, at in begun:
                await self._desk.ledger.phase(run, unit, phase, at)


class Heard:
    """A listener in front of another one that notes the phases of one unit's run."""

    def __init__(self, writer: PhaseWriter, unit: str, listener: Listener) -> None:
        self._writer = writer
        self._unit = unit
        self._listener = listener

    def say(self, action: str, message: str, **facts: object) -> None:
        """Pass it on; note a phase."""
        if action == "phase" and "run" in facts:
            phase: Phase = message  # type: ignore[assignment]  # Run says phases by their name
            self._writer.note(self._unit, str(facts["run"]), phase)
        self._listener.say(action, message, **facts)
