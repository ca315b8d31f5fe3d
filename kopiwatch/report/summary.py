"""A run in one sentence."""

from __future__ import annotations

from kopiwatch.backup.result import RunResult
from kopiwatch.words import counted, seconds, size


def summary(result: RunResult) -> str:
    """How a run ended, with the figures that people ask for first."""
    took = seconds((result.ended - result.began).total_seconds())
    head = f"{result.unit}: {result.verdict}"
    if result.verdict != "success":
        window = f"; down for {seconds(result.window)}" if result.window else ""
        return f"{head} ({result.reason}): {result.message}{window}"
    count = len(result.sources) - 1
    stored = counted(count, "source") if count else "its recipe only"
    window = f"down for {seconds(result.window)}" if result.window else "nobody stopped"
    return (
        f"{head}: {stored}, {counted(result.files, 'file')}, {size(result.size)}, {window}, "
        f"run {result.run} took {took}"
    )


def level_of(result: RunResult) -> str:
    """How loud the log says it."""
    return {"success": "info", "skipped": "warning"}.get(result.verdict, "error")
