"""How a run's result is shown, and what exit code a set of results has."""

from __future__ import annotations

from collections.abc import Sequence

from kopiwatch.backup.result import RunResult
from kopiwatch.cli.output import note, print_text
from kopiwatch.report.summary import summary


def print_result(result: RunResult) -> None:
    """One summary line on stdout; what went wrong, and what to do, on stderr."""
    print_text(summary(result))
    if result.verdict != "success":
        if result.hint:
            note(f"hint: {result.hint}")
        for line in result.tail.splitlines()[-8:]:
            note(f"  | {line}")
    for warning in result.warnings:
        note(f"{result.unit}: warning: {warning}")


def exit_code(results: Sequence[RunResult]) -> int:
    """0 if all are a success; the code they share, if every failure has the same; else 1."""
    codes = {result.exit_code for result in results if result.verdict != "success"}
    if not codes:
        return 0
    return codes.pop() if len(codes) == 1 else 1
