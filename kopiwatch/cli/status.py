"""``kopiwatch status``."""

from __future__ import annotations

from datetime import datetime
from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli import daemon_client
from kopiwatch.cli.output import note, print_json, print_table, print_text
from kopiwatch.cli.running import run
from kopiwatch.clock import SYSTEM
from kopiwatch.daemon.offline import offline_board
from kopiwatch.report.board import Board, UnitBoard
from kopiwatch.report.trouble import Trouble, troubles
from kopiwatch.words import age, counted, moment, seconds, until

EXAMPLE = """\b
Examples:
  kopiwatch status                   what is fresh, overdue, failing, running, due next
  kopiwatch status || send-alarm     exits 1 when anything is wrong
"""


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def status(*, as_json: bool) -> None:
    """Show what is fresh, overdue, failing, running and due next. Exits 1 if anything is wrong."""
    run(partial(show_status, as_json=as_json), json=as_json)


async def show_status(*, as_json: bool) -> int:
    """Ask the daemon; without one, the state folder and Docker, and say that it is missing."""
    config = wiring.configuration()
    board = await daemon_client.board(config.state_dir)
    alive = board is not None
    if board is None:
        board = await offline_board(config, SYSTEM)
    wrong = troubles(board, daemon=alive)
    if as_json:
        print_json({"daemon": alive, "ok": not wrong, "troubles": wrong, "board": board})
        return 1 if wrong else 0
    _show(board, wrong, alive=alive)
    return 1 if wrong else 0


def _show(board: Board, wrong: tuple[Trouble, ...], *, alive: bool) -> None:
    now = board.at
    if alive:
        _show_daemon(board)
    if board.units:
        print_table(
            ("UNIT", "STATE", "LAST SUCCESS", "OVERDUE FROM", "NEXT RUN", "LAST RUN"),
            [_row(unit, now) for unit in board.units],
        )
    else:
        print_text("no units: no container carries kopi.enable=true")
    for waiting in board.queue:
        print_text(f"queued: {waiting.unit} ({waiting.trigger}), since {moment(waiting.since)}")
    for trouble in wrong:
        note(f"{trouble.subject}: {trouble.message}")
    if not wrong:
        print_text("all is well")


def _show_daemon(board: Board) -> None:
    """The line about what is not a unit."""
    watching = "watching Docker" if board.watcher.connected else "NOT connected to Docker"
    repository = board.repository
    if repository.up is None:
        state = "not asked yet"
    else:
        state = "reachable" if repository.up else "UNREACHABLE"
        if repository.last_check is not None:
            state += f" ({age(board.at - repository.last_check)} ago)"
    print_text(f"{watching}; repository {state}; {counted(len(board.units), 'unit')}")
    print_text("")


def _row(unit: UnitBoard, now: datetime) -> tuple[str, ...]:
    last = unit.last_run
    outcome = "never ran"
    if unit.running:
        outcome = f"running since {moment(unit.running_since)}" if unit.running_since else "running"
    elif last is not None:
        window = f", down {seconds(last.window)}" if last.window else ""
        why = f" ({last.reason})" if last.reason else ""
        why += ", accepted" if last.accepted else ""
        took = f" in {seconds(last.seconds)}" if last.seconds is not None else ""
        outcome = f"{last.verdict}{why}{took}{window}"
    success = f"{age(now - unit.last_success)} ago" if unit.last_success else "never"
    overdue = "-"
    if unit.deadline is not None:
        overdue = "OVERDUE" if unit.overdue(now) else moment(unit.deadline)
    following = until(unit.next_run - now) if unit.next_run else "-"
    return (unit.unit, _state(unit, now), success, overdue, following, outcome)


def _state(unit: UnitBoard, now: datetime) -> str:
    if unit.left_stopped:
        return "LEFT DOWN"
    if unit.running:
        return "running"
    if unit.state in ("invalid", "missing"):
        return unit.state.upper()
    if unit.overdue(now):
        return "OVERDUE"
    if unit.consecutive_failures:
        return "FAILING"
    return "fresh" if unit.last_success else "waiting"
