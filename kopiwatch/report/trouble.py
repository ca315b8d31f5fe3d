"""What is wrong just now, in sentences: what ``kopiwatch status`` exits 1 for."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from kopiwatch.report.board import Board, UnitBoard
from kopiwatch.words import age

TroubleKind = Literal[
    "daemon",
    "watcher",
    "repository",
    "history",
    "configuration",
    "left-down",
    "overdue",
    "failing",
    "labels",
    "missing",
]


class Trouble(msgspec.Struct, frozen=True):
    """One thing that is wrong. ``subject`` is a unit, or the part of kopiwatch."""

    kind: TroubleKind
    subject: str
    message: str


def troubles(board: Board, *, daemon: bool) -> tuple[Trouble, ...]:
    """All that is wrong, the worst first. ``daemon`` says that one lives and made this board."""
    found = list(_house(board, daemon=daemon))
    for unit in board.units:
        found += _unit(unit, board.at)
    return tuple(sorted(found, key=lambda trouble: _ORDER.index(trouble.kind)))


_ORDER: tuple[TroubleKind, ...] = (
    "left-down",
    "overdue",
    "failing",
    "labels",
    "missing",
    "daemon",
    "watcher",
    "repository",
    "history",
    "configuration",
)


def _house(board: Board, *, daemon: bool) -> Iterable[Trouble]:
    if not daemon:
        yield Trouble(
            "daemon", "kopiwatch", "no daemon runs: nothing is backed up until `kopiwatch run` does"
        )
    elif not board.watcher.connected:
        why = board.watcher.trouble or "not yet"
        yield Trouble("watcher", "Docker", f"not connected to its events: {why}")
    if board.repository.trouble:
        yield Trouble("repository", "repository", board.repository.trouble)
    elif board.repository.breaker:
        why = "the last runs failed for its sake; runs wait until it answers"
        yield Trouble("repository", "repository", why)
    if board.history_error:
        yield Trouble("history", "history", board.history_error)
    if board.config_error:
        yield Trouble("configuration", "configuration", f"the old one counts: {board.config_error}")


def _unit(unit: UnitBoard, now: datetime) -> Iterable[Trouble]:
    if unit.left_stopped:
        names = ", ".join(unit.left_stopped)
        yield Trouble("left-down", unit.unit, f"LEFT DOWN by a backup: {names}")
    if unit.overdue(now) and unit.deadline is not None:
        newest = f"is {age(now - unit.last_success)} old" if unit.last_success else "does not exist"
        since = age(now - unit.deadline)
        yield Trouble("overdue", unit.unit, f"overdue for {since}: its newest backup {newest}")
    if unit.consecutive_failures and unit.last_run is not None:
        times = f"{unit.consecutive_failures} times" if unit.consecutive_failures > 1 else "once"
        last = unit.last_run
        yield Trouble(
            "failing", unit.unit, f"failed {times}; {last.verdict} ({last.reason}): {last.message}"
        )
    for problem in unit.problems:
        yield Trouble("labels", unit.unit, problem)
    if unit.state == "missing":
        yield Trouble(
            "missing", unit.unit, f"its containers are gone; `kopiwatch forget {unit.unit}` if so"
        )
