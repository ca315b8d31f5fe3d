"""What people and programs see: data on stdout, everything else on stderr."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TextIO

import msgspec

from kopiwatch.errors import KopiwatchError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

TABLE_WIDTH = 400
"""Wider than any terminal: a run or a path that is folded into a cell cannot be copied."""


_lost: list[str] = []


def _write(stream: TextIO | None, text: str) -> bool:
    """Write and flush; False if nobody takes it. Never raises: output must not break a run."""
    try:
        if stream is None:
            return False
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
    except (OSError, ValueError):
        return False
    return True


def output_was_lost() -> bool:
    """Whether data for stdout could not be written: the command has failed then.

    Call it last. What nobody takes is dropped here, because Python would complain at its exit.
    """
    for stream in (sys.stdout, sys.stderr):
        if not _write(stream, "") and stream is not None:
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return bool(_lost)


def print_json(value: object) -> None:
    """One JSON document on stdout, indented, with a newline."""
    document = msgspec.json.encode(value, enc_hook=str)
    print_text(msgspec.json.format(document, indent=2).decode())


def print_text(text: str = "") -> None:
    """One line of data on stdout."""
    if not _write(sys.stdout, text + "\n"):
        _lost.append(text)


def note(text: str) -> None:
    """One line for people on stderr."""
    _write(sys.stderr, text + "\n")


def print_error(error: KopiwatchError) -> None:
    """An error in its three parts: what, how to go on, what the program said last."""
    note(f"error: {error.message}")
    if error.hint:
        note(f"hint: {error.hint}")
    for line in error.tail.splitlines()[-12:]:
        note(f"  | {line}")


def error_record(error: KopiwatchError) -> dict[str, object]:
    """An error as ``--json`` shows it."""
    return {
        "error": error.code,
        "message": error.message,
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def print_table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A table on stdout: with lines on a terminal, plain columns elsewhere."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    terminal = sys.stdout is not None and sys.stdout.isatty()
    text = io.StringIO()
    console = _console(text, terminal=terminal)
    table = Table(box=SIMPLE_HEAD if terminal else None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    print_text("\n".join(line.rstrip() for line in text.getvalue().splitlines()))


def _console(file: TextIO, *, terminal: bool) -> Console:
    from rich.console import Console

    return Console(
        file=file, highlight=False, markup=False, width=TABLE_WIDTH, force_terminal=terminal
    )


class Notes:
    """Hears what is said and passes it on to people, a line each."""

    def say(self, action: str, message: str, **_facts: object) -> None:
        """Show one event; phases are for those who watch a run."""
        if action != "phase":
            note(message)


NOTES = Notes()


class Follower:
    """Follows a run: one live line on a terminal, one plain line per event elsewhere."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Follower:
        if sys.stderr is not None and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True, highlight=False),
                transient=True,
                redirect_stdout=False,  # data: it must not end up on stderr
            )
            self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()

    def say(self, action: str, message: str, **facts: object) -> None:
        """Show an event; phases only on a terminal, where they replace each other."""
        if action != "phase":
            note(message)
        elif self._progress is not None:
            self.rest()
            words = PHASES.get(message, message)
            self._task = self._progress.add_task(f"{facts.get('unit', '')}: {words}", total=None)

    def rest(self) -> None:
        """Clear the live line, so that a result can be printed."""
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._progress.refresh()
            self._task = None


PHASES = {
    "check": "checking repository and containers",
    "dumps": "dumping databases",
    "hot": "reading ahead while everything runs",
    "ready": "opening the repository; Kopia goes to the gate",
    "hooks-pre": "running hooks",
    "stop": "stopping containers",
    "read": "reading data",
    "start": "starting containers",
    "health": "waiting for health",
    "hooks-post": "running hooks",
    "flush": "Kopia writes what it read",
    "verify": "reading the stored tree back, watching the members",
    "keep": "deleting what retention lets go",
    "report": "recording the verdict",
}
