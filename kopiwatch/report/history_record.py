"""What the history takes and gives: values without a trace of SQLite. Times are UTC."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Literal

import msgspec

from kopiwatch.backup.result import Phase, RunResult, Verdict
from kopiwatch.report.board import LastRun, Totals, Trigger

RowVerdict = Literal["running", "success", "partial", "failed", "skipped"]
INTERRUPTED = "interrupted"
"""The reason of a run whose process ended without a verdict."""


class UnitSeen(msgspec.Struct, frozen=True):
    """A unit as the watcher sees it: what must be known of it when its containers are gone.

    ``schedule``, ``timezone``, ``mode`` and ``max_age`` are the labels' texts; ``max_age`` is empty
    where the schedule decides.
    """

    unit: str
    kind: str = ""
    schedule: str = ""
    timezone: str = "UTC"
    mode: str = "stop"
    max_age: str = ""


class UnitRecord(msgspec.Struct, frozen=True):
    """Everything that is known of one unit that is not forgotten.

    ``last_seen`` is None for a unit that only runs or restore points tell of. ``gone_since`` is
    when its containers vanished, None while they are there. ``served`` is the newest due time that
    a run began for or that was decided away. ``last_success`` is the data time of the success that
    was recorded last, or of a run that was accepted since. ``running`` names a run without a
    verdict; whether it lives, the run lock tells. Runs with the verdict ``skipped`` count nowhere
    here.
    """

    unit: str
    first_seen: datetime
    last_seen: datetime | None = None
    gone_since: datetime | None = None
    kind: str = ""
    schedule: str = ""
    timezone: str = "UTC"
    mode: str = "stop"
    max_age: str = ""
    served: datetime | None = None
    last_success: datetime | None = None
    last_run: LastRun | None = None
    consecutive_failures: int = 0
    totals: Totals = Totals()
    running: str = ""
    running_since: datetime | None = None
    running_phase: str = ""


class RunRow(msgspec.Struct, frozen=True):
    """One line of the history: a run, or (``run`` empty) a due time that was decided away.

    ``trigger`` is empty where nobody knows it. ``phase`` is where it is, or where it ended.
    ``window`` is downtime in seconds, ``size`` bytes. ``data_at`` is the data's time of a success.
    ``rebuilt`` says that the repository told it: trigger, window and length are unknown then.
    ``accepted`` says that what its verdict refused was taken as good, ``accepted_at`` and
    ``accepted_by`` when and by whom, as far as that is known here.
    """

    run: str
    unit: str
    verdict: RowVerdict
    began: datetime
    ended: datetime | None = None
    trigger: str = ""
    due: datetime | None = None
    data_at: datetime | None = None
    phase: str = ""
    reason: str = ""
    message: str = ""
    snapshot: str = ""
    window: float = 0.0
    size: int = 0
    files: int = 0
    rebuilt: bool = False
    accepted: bool = False
    accepted_at: datetime | None = None
    accepted_by: str = ""

    @property
    def seconds(self) -> float | None:
        """How long it took; None where that is unknown."""
        if self.ended is None or self.rebuilt:
            return None
        return (self.ended - self.began).total_seconds()


class PhaseRow(msgspec.Struct, frozen=True):
    """A phase of a run; ``seconds`` is None while it lasts, or if nobody saw its end."""

    phase: str
    began: datetime
    seconds: float | None = None


class RunDetail(msgspec.Struct, frozen=True):
    """One run: its line, its phases as far as it came, and its result as it was reported.

    ``result`` is None while it runs, when its process died, and when the repository told it.
    """

    row: RunRow
    phases: tuple[PhaseRow, ...] = ()
    result: RunResult | None = None


class UnitStats(msgspec.Struct, frozen=True):
    """What the runs of a unit come to. Lengths are seconds, sizes bytes.

    ``success_rate`` is between 0 and 1. Windows are of runs that stopped somebody, lengths of runs
    that this history saw to their end; None where there is none. ``size`` is that of the newest
    success.
    """

    unit: str
    runs: int
    failures: int
    success_rate: float
    window_mean: float | None = None
    window_max: float | None = None
    seconds_mean: float | None = None
    seconds_max: float | None = None
    size: int = 0


class RebuiltRun(msgspec.Struct, frozen=True):
    """What a restore point tells of its run. ``at`` is the data's time, ``size`` bytes.

    ``accepted``: it is good although its verdict was not.
    """

    run: str
    unit: str
    at: datetime
    verdict: Verdict
    reason: str = ""
    snapshot: str = ""
    size: int = 0
    files: int = 0
    mode: str = ""
    instance: str = "default"
    accepted: bool = False

    @property
    def good(self) -> bool:
        """Fit to be restored, so its unit is as fresh as its data."""
        return self.verdict == "success" or self.accepted


class RebuildResult(msgspec.Struct, frozen=True):
    """What a rebuild did: runs by what became of them, and units that were not known before.

    ``completed`` had no result of their own (their process died). ``differing`` names runs whose
    own record says success while the repository says otherwise, or the reverse; they are kept.
    """

    added: int = 0
    completed: int = 0
    known: int = 0
    units: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()


def last_run(result: RunResult, trigger: Trigger) -> LastRun:
    """A result as the newest run of its unit."""
    return LastRun(
        run=result.run,
        verdict=result.verdict,
        began=result.began,
        ended=result.ended,
        reason=result.reason,
        message=result.message,
        trigger=trigger,
        window=result.window,
        phases=phase_lengths((time.phase, time.seconds) for time in result.phases),
        size=result.size,
        files=result.files,
        fatal=sum(source.failed for source in result.sources),
        ignored=sum(source.ignored for source in result.sources),
        expected=len(result.sources),
        stored=sum(not source.reason for source in result.sources),
    )


def phase_lengths(phases: Iterable[tuple[Phase, float | None]]) -> dict[Phase, float]:
    """Seconds by phase; one that was gone through twice counts with both."""
    lengths: dict[Phase, float] = {}
    for phase, seconds in phases:
        if seconds is not None:
            lengths[phase] = lengths.get(phase, 0.0) + seconds
    return lengths
