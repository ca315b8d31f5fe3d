"""The history in tables for people."""

from __future__ import annotations

from collections.abc import Iterable

from kopiwatch.backup.result import IN_WINDOW, RunResult
from kopiwatch.cli.output import print_table, print_text
from kopiwatch.report.history_record import RunDetail, RunRow, UnitStats
from kopiwatch.words import counted, moment, seconds, size

UNKNOWN = "-"
DOWN = (*IN_WINDOW, "health")
"""The phases that the window is made of."""
REST_SECONDS = 0.001


def print_runs(found: Iterable[RunRow]) -> None:
    """A line for each run, the newest last."""
    print_table(
        ("TIME", "UNIT", "RUN", "VERDICT", "TRIGGER", "WINDOW", "TOOK", "FILES", "SIZE", "WHY"),
        [
            (
                moment(row.began),
                row.unit,
                row.run or UNKNOWN,
                f"{row.verdict} (accepted)" if row.accepted else row.verdict,
                row.trigger or ("rebuilt" if row.rebuilt else UNKNOWN),
                seconds(row.window) if row.window else UNKNOWN,
                _length(row.seconds),
                str(row.files) if row.snapshot else UNKNOWN,
                size(row.size) if row.snapshot else UNKNOWN,
                _why(row).partition("\n")[0],
            )
            for row in found
        ],
    )


def _why(row: RunRow) -> str:
    if row.verdict == "running":
        return f"in phase {row.phase}" if row.phase else ""
    if row.reason and row.message:
        return f"{row.reason}: {row.message}"
    return row.reason or row.message


def _accepted(row: RunRow) -> str:
    if not row.accepted:
        return ""
    if row.accepted_at is None:
        return "yes, as the repository says"
    return f"{moment(row.accepted_at)}" + (f" by {row.accepted_by}" if row.accepted_by else "")


def _length(value: float | None) -> str:
    return UNKNOWN if value is None else seconds(value)


def _window(detail: RunDetail) -> str:
    """The downtime, and where it went: what no phase tells are journals and questions to Docker."""
    whole = detail.row.window
    if not whole:
        return ""
    told = [phase for phase in detail.phases if phase.seconds and phase.phase in DOWN]
    parts = [f"{phase.phase} {_length(phase.seconds)}" for phase in told]
    rest = whole - sum(phase.seconds or 0.0 for phase in told)
    parts += [f"between them {seconds(rest)}"] if told and rest >= REST_SECONDS else []
    return f"{seconds(whole)}" + (f" ({', '.join(parts)})" if parts else "")


def print_detail(detail: RunDetail) -> None:
    """Everything about one run."""
    row, result = detail.row, detail.result
    print_text(f"run {row.run} of unit {row.unit}: {row.verdict}")
    facts = {
        "why": _why(row),
        "accepted": _accepted(row),
        "hint": result.hint if result and not row.accepted else "",
        "trigger": row.trigger,
        "due": moment(row.due) if row.due else "",
        "began": moment(row.began),
        "ended": f"{moment(row.ended)}, after {_length(row.seconds)}"
        if row.ended and row.seconds is not None
        else "",
        "window": _window(detail),
        "strategy": f"{result.strategy}: {result.strategy_reason}"
        if result and result.strategy
        else "",
        "data as of": moment(row.data_at) if row.data_at else "",
        "snapshot": row.snapshot,
        "stored": f"{row.files} files, {size(row.size)}" if row.snapshot else "",
        "retention": f"deleted {counted(result.deleted, 'manifest')}"
        if result and result.deleted
        else "",
        "known": "from its restore point only" if row.rebuilt else "",
    }
    for name, value in facts.items():
        if value:
            print_text(f"{name}: {value}")
    if detail.phases:
        print_text()
        print_table(
            ("PHASE", "BEGAN", "TOOK"),
            [(phase.phase, moment(phase.began), _length(phase.seconds)) for phase in detail.phases],
        )
    if result:
        _print_result(result)


def _print_result(result: RunResult) -> None:
    if result.sources:
        print_text()
        print_table(
            ("SOURCE", "FILES", "SIZE", "UNREADABLE", "IGNORED", "WHY"),
            [
                (s.path, str(s.files), size(s.size), str(s.failed), str(s.ignored), s.reason)
                for s in result.sources
            ],
        )
    if result.members:
        print_text()
        healthy = {True: "healthy", False: "NOT HEALTHY", None: ""}
        print_table(
            ("MEMBER", "STATE", "HEALTH", "DETAIL"),
            [(m.name, m.state, healthy[m.healthy], m.detail) for m in result.members],
        )
    if result.hooks:
        print_text()
        print_table(
            ("HOOK", "IN", "TOOK", "EXIT", "WHY"),
            [
                (
                    hook.hook,
                    hook.target,
                    seconds(hook.seconds),
                    UNKNOWN if hook.exit_code is None else str(hook.exit_code),
                    hook.detail,
                )
                for hook in result.hooks
            ],
        )
        for hook in result.hooks:
            for line in hook.output.splitlines():
                print_text(f"{hook.hook} {hook.target} | {line}")
    for warning in result.warnings:
        print_text(f"warning: {warning}")
    for line in result.tail.splitlines():
        print_text(f"  | {line}")


def print_stats(figures: Iterable[UnitStats]) -> None:
    """A line for each unit."""
    titles = ("UNIT", "RUNS", "FAILURES", "SUCCESS", "WINDOW", "LONGEST", "TOOK", "LONGEST", "SIZE")
    print_table(
        titles,
        [
            (
                unit.unit,
                str(unit.runs),
                str(unit.failures),
                # Never rounded up to 100 %.
                f"{int(unit.success_rate * 1000) / 10:.1f} %",
                _length(unit.window_mean),
                _length(unit.window_max),
                _length(unit.seconds_mean),
                _length(unit.seconds_max),
                size(unit.size),
            )
            for unit in figures
        ],
    )
