"""Writing the runs of a one-off command into the history."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import RunResult
from kopiwatch.clock import SYSTEM
from kopiwatch.errors import HistoryError
from kopiwatch.report.history import History
from kopiwatch.wiring.attempt import Order, Recorder


@asynccontextmanager
async def recording(folder: Path, listener: Listener) -> AsyncIterator[Recorder]:
    """A recorder on the history of this state folder, for the length of a block.

    Needs the run lock: whatever stands there as running has died. A history that cannot be written
    is said and does not stop a backup.
    """
    recorder = _Recorder(listener)
    try:
        opened = await History.open(folder, clock=SYSTEM)
    except HistoryError as error:
        recorder.lost(error)
        yield recorder
        return
    if opened.set_aside is not None:
        listener.say(
            "history",
            f"the history was damaged; it is kept as {opened.set_aside}; "
            "`kopiwatch history --rebuild` reads it from the repository",
        )
    recorder.history = opened.history
    try:
        await opened.history.interrupted(())
    except HistoryError as error:
        recorder.lost(error)
    try:
        yield recorder
    finally:
        await opened.history.close()


class _Recorder:
    """Writes if it can; the first trouble is said."""

    def __init__(self, listener: Listener) -> None:
        self.history: History | None = None
        self._listener = listener
        self._said = False

    def lost(self, error: HistoryError) -> None:
        """Say that something is not on record."""
        if not self._said:
            self._said = True
            self._listener.say("history", f"not on record: {error.message}", level="error")

    async def begin(self, run: str, order: Order, began: datetime) -> None:
        """See :class:`Recorder`."""
        if self.history is not None:
            try:
                await self.history.begin(run, order.unit, order.trigger, order.due, began)
            except HistoryError as error:
                self.lost(error)

    async def finish(self, result: RunResult, order: Order) -> None:
        """See :class:`Recorder`."""
        if self.history is not None:
            try:
                await self.history.finish(
                    result, trigger=order.trigger, due=order.due, data_at=result.data_at
                )
            except HistoryError as error:
                self.lost(error)
