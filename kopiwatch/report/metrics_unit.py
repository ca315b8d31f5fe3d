"""The metrics of a unit: freshness first, then its last run, then what it adds up to."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from kopiwatch.report.board import LastRun, UnitBoard
from kopiwatch.report.family import Family, Sample, UnitFamily, UnitSeries, moment

_UNIT = ("unit",)


def _gauge(name: str, text: str, value: Callable[[UnitBoard], float | None]) -> UnitFamily:
    return UnitFamily(name, "gauge", text, _UNIT, value=value)


def _counter(name: str, text: str, value: Callable[[UnitBoard], float | None]) -> UnitFamily:
    return UnitFamily(name, "counter", text, _UNIT, value=value)


def _of_last(
    name: str, text: str, value: Callable[[LastRun], float | None], *, stored: bool = False
) -> UnitFamily:
    """A figure of the last run; with ``stored`` only of one that left something to measure."""

    def of_unit(unit: UnitBoard) -> float | None:
        last = unit.last_run
        if last is None or (stored and not last.stored and last.verdict != "success"):
            return None
        return value(last)

    return _gauge(name, text, of_unit)


def _last_start(unit: UnitBoard) -> float:
    if unit.running_since is not None:
        return unit.running_since.timestamp()
    return 0 if unit.last_run is None else unit.last_run.began.timestamp()


def _phases(unit: UnitBoard) -> Iterator[Sample]:
    if unit.last_run is not None:
        for phase, seconds in unit.last_run.phases.items():
            yield (phase,), seconds


def _result(unit: UnitBoard) -> Iterator[Sample]:
    if unit.last_run is not None:
        yield (unit.last_run.verdict, unit.last_run.reason), 1


def _entry_errors(unit: UnitBoard) -> Iterator[Sample]:
    if unit.last_run is not None:
        yield ("fatal",), unit.last_run.fatal
        yield ("ignored",), unit.last_run.ignored


def _oldest(unit: UnitBoard) -> float | None:
    return None if unit.oldest_point is None else unit.oldest_point.timestamp()


UNIT: tuple[UnitFamily | UnitSeries, ...] = (
    UnitSeries(
        "unit_info",
        "info",
        "What the unit is: its kind, its schedule, and how its members are held during a backup.",
        ("unit", "kind", "schedule", "mode"),
        values=lambda unit: [((unit.kind, unit.schedule, unit.mode), 1)],
    ),
    _gauge(
        "unit_present",
        "1 while the unit has containers; 0 after they vanished, until it is forgotten.",
        lambda unit: int(unit.present),
    ),
    _gauge(
        "unit_first_seen_timestamp_seconds",
        "When the unit was seen for the first time.",
        lambda unit: None if unit.first_seen is None else unit.first_seen.timestamp(),
    ),
    _gauge(
        "unit_last_success_timestamp_seconds",
        "The time of the data in the newest complete restore point; 0 if there is none.",
        lambda unit: moment(unit.last_success),
    ),
    _gauge(
        "unit_last_start_timestamp_seconds",
        "When the run in progress began, else the last one, whatever its result; 0 if none did.",
        _last_start,
    ),
    _gauge(
        "unit_last_end_timestamp_seconds",
        "When the last run ended, whatever its result; 0 if none did.",
        lambda unit: moment(None if unit.last_run is None else unit.last_run.ended),
    ),
    _gauge(
        "unit_deadline_timestamp_seconds",
        "From here on the newest complete restore point is too old; no series without a deadline.",
        lambda unit: None if unit.deadline is None else unit.deadline.timestamp(),
    ),
    _gauge(
        "unit_max_age_seconds",
        "How old the newest complete restore point may become, where a label says so.",
        lambda unit: unit.max_age,
    ),
    _gauge(
        "unit_next_run_timestamp_seconds",
        "When the schedule wants the next run; 0 if it wants none.",
        lambda unit: moment(unit.next_run),
    ),
    _gauge(
        "unit_in_progress",
        "1 while a run of the unit is in progress.",
        lambda unit: int(bool(unit.running)),
    ),
    _gauge(
        "unit_queued",
        "1 while a run of the unit waits for its turn.",
        lambda unit: int(unit.queued),
    ),
    _of_last(
        "unit_last_run_success",
        "1 if the last run was a full success, or was accepted; a partial one counts as a failure.",
        lambda last: int(last.good),
    ),
    UnitSeries(
        "unit_last_run_info",
        "info",
        "The verdict of the last run, and the reason code of one that was no full success.",
        ("unit", "verdict", "reason"),
        values=_result,
    ),
    _gauge(
        "unit_consecutive_failures",
        "How many runs in a row were no full success.",
        lambda unit: unit.consecutive_failures,
    ),
    _counter(
        "unit_runs_total", "Runs that ended, whatever their result.", lambda unit: unit.totals.runs
    ),
    _counter(
        "unit_run_failures_total",
        "Runs that were no full success.",
        lambda unit: unit.totals.failures,
    ),
    _of_last(
        "unit_last_run_duration_seconds",
        "How long the last run took, the wait for its turn included.",
        lambda last: last.seconds,
    ),
    UnitSeries(
        "unit_last_phase_duration_seconds",
        "gauge",
        "How long each phase of the last run took; no series for a phase it did not reach.",
        ("unit", "phase"),
        values=_phases,
    ),
    _of_last(
        "unit_last_downtime_seconds",
        "Downtime of the last run: from the first stop until all members ran again, healthy.",
        lambda last: last.window,
    ),
    _counter(
        "unit_downtime_seconds_total",
        "Downtime of all runs.",
        lambda unit: unit.totals.downtime,
    ),
    _gauge(
        "unit_containers_left_stopped",
        "Containers that kopiwatch stopped and that do not run again.",
        lambda unit: len(unit.left_stopped),
    ),
    _of_last(
        "unit_last_size_bytes",
        "Size of what the last run stored; no series if it stored nothing.",
        lambda last: last.size,
        stored=True,
    ),
    _of_last(
        "unit_last_files",
        "Number of files that the last run stored; no series if it stored nothing.",
        lambda last: last.files,
        stored=True,
    ),
    UnitSeries(
        "unit_last_entry_errors",
        "gauge",
        "Files and folders that Kopia could not read in the last run: fatal ones fail it.",
        ("unit", "severity"),
        values=_entry_errors,
    ),
    _of_last(
        "unit_sources_expected",
        "Volumes and other sources that the last run was to store.",
        lambda last: last.expected,
    ),
    _of_last(
        "unit_sources_stored",
        "Sources that the last run stored completely.",
        lambda last: last.stored,
    ),
    _gauge(
        "unit_restore_points",
        "Complete restore points in the repository; no series until it was asked.",
        lambda unit: unit.points,
    ),
    _gauge(
        "unit_oldest_restore_point_timestamp_seconds",
        "The time of the data in the oldest complete restore point; no series if there is none.",
        _oldest,
    ),
)
"""What changes only with the board."""

OVERDUE = Family(
    "unit_overdue",
    "gauge",
    "1 if the deadline has passed at the moment of this scrape; 0 without a deadline.",
    _UNIT,
)
"""What changes by itself: made for each scrape."""
