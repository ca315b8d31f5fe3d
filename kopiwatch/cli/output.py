"""What people and programs see: data on stdout, everything else on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import msgspec

from kopiwatch.errors import KopiwatchError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.status import Status

PLAIN_WIDTH = 240


def print_json(value: object) -> None:
    """One JSON document on stdout, indented, with a newline."""
    document = msgspec.json.format(msgspec.json.encode(value), indent=2)
    sys.stdout.buffer.write(document + b"\n")
    sys.stdout.flush()


def print_text(text: str = "") -> None:
    """One line of data for people on stdout."""
    sys.stdout.write(text + "\n")


def note(text: str) -> None:
    """One line for people on stderr."""
    sys.stderr.write(text + "\n")
    sys.stderr.flush()


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

    console = _console()
    table = Table(box=SIMPLE_HEAD if console.is_terminal else None, pad_edge=False)
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)


def _console() -> Console:
    from rich.console import Console

    width = None if sys.stdout.isatty() else PLAIN_WIDTH
    return Console(highlight=False, markup=False, soft_wrap=not sys.stdout.isatty(), width=width)


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def seconds(value: float) -> str:
    """A length of time for people."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(value: datetime) -> str:
    """A time for people, in UTC and said so."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


class Follower:
    """Follows a run: one live line on a terminal, one plain line per event elsewhere."""

    def __init__(self) -> None:
        self._status: Status | None = None

    def __enter__(self) -> Follower:
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True, highlight=False).status("starting")
            self._status.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._status is not None:
            self._status.stop()

    def say(self, action: str, message: str, **facts: object) -> None:
        """Show an event; phases only on a terminal, where they replace each other."""
        if action != "phase":
            note(message)
        elif self._status is not None:
            self._status.update(f"{facts.get('unit', '')}: {PHASES.get(message, message)}")


PHASES = {
    "check": "checking repository and containers",
    "ready": "opening the repository; Kopia goes to the gate",
    "stop": "stopping containers",
    "read": "reading data",
    "start": "starting containers",
    "health": "waiting for health",
    "flush": "Kopia writes what it read",
    "verify": "reading the stored tree back",
    "report": "recording the verdict",
}
