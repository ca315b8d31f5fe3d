"""The state of everything where no daemon lives: the history, the journal, Docker's list."""

from __future__ import annotations

import anyio.to_thread
import msgspec

from kopiwatch import __version__, wiring
from kopiwatch.backup.settle import readable
from kopiwatch.backup.state import StateFolder
from kopiwatch.clock import Clock
from kopiwatch.config import Config
from kopiwatch.daemon.boards import known_units
from kopiwatch.errors import EngineError, HistoryError
from kopiwatch.kopia.lock import holder
from kopiwatch.report.board import Board, UnitBoard, WatcherBoard
from kopiwatch.report.history import History
from kopiwatch.report.history_record import UnitRecord
from kopiwatch.units.group import Discovery


async def offline_board(config: Config, clock: Clock) -> Board:
    """What can be told without a daemon. Reads only; what cannot be read is said in the board."""
    state = StateFolder(config.state_dir)
    trouble = history_trouble = ""
    found: Discovery | None = None
    records: dict[str, UnitRecord] = {}
    try:
        async with wiring.docker(config) as where:
            found, _ = await wiring.look(config, where)
    except EngineError as error:
        trouble = error.message
    try:
        history = await History.read_only(state.path)
        try:
            records = await history.units()
        finally:
            await history.close()
    except HistoryError as error:
        history_trouble = error.message
    lock = await anyio.to_thread.run_sync(holder, state.run_lock)
    down = {
        unit: tuple(member.name for member in journal.members)
        for unit, journal in (await readable(state.journals)).items()
        if journal.members and lock is None
    }
    units = known_units(found, records)
    if found is None:  # a failed list is not an empty list
        units = tuple(
            msgspec.structs.replace(unit, state="scheduled", present=True) for unit in units
        )
    return Board(
        at=clock.now(),
        ready=found is not None,
        version=__version__,
        units=tuple(
            _with(unit, records, down.get(unit.unit, ()), alive=lock is not None) for unit in units
        ),
        watcher=WatcherBoard(trouble=trouble),
        lock_held=lock is not None,
        history_error=history_trouble,
    )


def _with(
    board: UnitBoard, records: dict[str, UnitRecord], down: tuple[str, ...], *, alive: bool
) -> UnitBoard:
    record = records.get(board.unit)
    running = record.running if record is not None and alive else ""
    since = record.running_since if record is not None and alive else None
    return msgspec.structs.replace(board, left_stopped=down, running=running, running_since=since)
