"""The metrics of the whole instance: runs, repository, queue, watcher, the exporter itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import get_args

from kopiwatch.backup.result import Phase
from kopiwatch.report.board import Board, Histogram, UnitState
from kopiwatch.report.family import (
    Family,
    HouseFamily,
    HouseHistogram,
    Kind,
    Labels,
    OwnFamily,
    Sample,
    moment,
)

STATES: tuple[UnitState, ...] = get_args(UnitState)
PHASES: tuple[Phase, ...] = get_args(Phase)
SKIP_REASONS = ("engine-refused", "engine-unreachable", "gone", "labels", "missed")
EVENT_ACTIONS = ("create", "start", "die", "destroy", "remove", "rename", "update")
RESYNC_REASONS = ("connect", "event", "idle", "interval")
DOCKER_OPERATIONS = ("list",)
REPOSITORY_OPERATIONS = ("probe", "keep")
# A counter that is first seen at 1 has no increase for Prometheus, and no alert fires: what may be
# counted one day stands there from the start. Other values appear when they come.


def _one(
    name: str, text: str, value: Callable[[Board], float | None], kind: Kind = "gauge"
) -> HouseFamily:
    def values(board: Board) -> Iterator[Sample]:
        figure = value(board)
        if figure is not None:
            yield (), figure

    return HouseFamily(name, kind, text, values=values)


def _counts(
    name: str,
    text: str,
    label: str,
    known: Iterable[str],
    counts: Callable[[Board], Mapping[str, int]],
) -> HouseFamily:
    zeros = dict.fromkeys(known, 0)

    def values(board: Board) -> Iterator[Sample]:
        return (((value,), count) for value, count in (zeros | dict(counts(board))).items())

    return HouseFamily(name, "counter", text, (label,), values=values)


def _units(board: Board) -> Iterator[Sample]:
    counted = Counter(unit.state for unit in board.units)
    return (((state,), counted[state]) for state in STATES)


def _build(board: Board) -> Iterator[Sample]:
    yield (board.version, board.kopia_version, board.revision), 1


def _backend(board: Board) -> Iterator[Sample]:
    if board.repository.backend:
        yield (board.repository.backend,), 1


def _invalid_labels(board: Board) -> Iterator[Sample]:
    pairs = {pair for unit in board.units for pair in unit.invalid_labels}
    return ((pair, 1) for pair in sorted(pairs))


def _up(board: Board) -> float | None:
    return None if board.repository.up is None else int(board.repository.up)


def _phase_seconds(board: Board) -> Mapping[Labels, Histogram]:
    known = {phase: Histogram() for phase in PHASES} | board.phase_seconds
    return {(phase,): histogram for phase, histogram in known.items()}


def _lock_wait(board: Board) -> Mapping[Labels, Histogram]:
    return {} if board.lock_wait is None else {(): board.lock_wait}


HOUSE: tuple[HouseFamily | HouseHistogram, ...] = (
    HouseFamily(
        "build_info",
        "info",
        "The versions of kopiwatch and Kopia that run here.",
        ("version", "kopia_version", "revision"),
        values=_build,
    ),
    _one(
        "ready",
        "1 when the state was read and the containers were listed once.",
        lambda board: int(board.ready),
    ),
    _one(
        "config_last_reload_success",
        "0 while the configuration on disk cannot be used and an older one is in force.",
        lambda board: int(not board.config_error),
    ),
    HouseFamily("units", "gauge", "Units by what becomes of them.", ("state",), values=_units),
    HouseFamily(
        "invalid_labels",
        "gauge",
        "1 for each label that cannot be used; its unit is not backed up until it is mended.",
        ("container", "label"),
        values=_invalid_labels,
    ),
    _counts(
        "failures_total",
        "Runs that were no full success, by the phase in which they failed.",
        "phase",
        PHASES,
        lambda board: board.failures,
    ),
    _counts(
        "runs_skipped_total",
        "Runs that were due and did not happen, by reason.",
        "reason",
        SKIP_REASONS,
        lambda board: board.skipped,
    ),
    HouseHistogram(
        "phase_duration_seconds",
        "histogram",
        "How long the phases of runs took, since kopiwatch was started.",
        ("phase",),
        values=_phase_seconds,
    ),
    HouseFamily(
        "repository_info", "info", "Which kind of storage is used.", ("backend",), values=_backend
    ),
    _one(
        "repository_up",
        "1 if the repository answered the last time it was tried; no series before that.",
        _up,
    ),
    _one(
        "repository_last_check_timestamp_seconds",
        "When the repository was last tried; 0 if it was not yet.",
        lambda board: moment(board.repository.last_check),
    ),
    _one(
        "repository_check_duration_seconds",
        "How long the repository took to answer.",
        lambda board: board.repository.check_seconds,
    ),
    _counts(
        "repository_failures_total",
        "Failed operations on the repository, by operation.",
        "operation",
        REPOSITORY_OPERATIONS,
        lambda board: board.repository.failures,
    ),
    _one(
        "repository_breaker_open",
        "1 while runs wait because the repository failed several in a row.",
        lambda board: int(board.repository.breaker),
    ),
    _one(
        "lock_held",
        "1 while a run or a restore is in progress, by this process or another one.",
        lambda board: int(board.lock_held),
    ),
    HouseHistogram(
        "lock_wait_seconds",
        "histogram",
        "How long runs waited for the run lock, since kopiwatch was started.",
        values=_lock_wait,
    ),
    _one("queue_depth", "Runs that wait for their turn.", lambda board: len(board.queue)),
    _one(
        "queue_oldest_enqueued_timestamp_seconds",
        "Since when the run that has waited longest waits; 0 if none does.",
        lambda board: min((queued.since.timestamp() for queued in board.queue), default=0),
    ),
    _one(
        "scheduler_last_tick_timestamp_seconds",
        "When the scheduler last looked at the clock.",
        lambda board: moment(board.last_tick),
    ),
    _one(
        "watcher_connected",
        "1 while Docker tells its events.",
        lambda board: int(board.watcher.connected),
    ),
    _one(
        "watcher_last_event_timestamp_seconds",
        "When Docker last told an event that matters; 0 if it told none.",
        lambda board: moment(board.watcher.last_event),
    ),
    _one(
        "watcher_last_resync_timestamp_seconds",
        "When the containers were last listed; 0 if they never were.",
        lambda board: moment(board.watcher.last_resync),
    ),
    _counts(
        "watcher_events_total",
        "Docker's events about containers with our label, by action.",
        "action",
        EVENT_ACTIONS,
        lambda board: board.watcher.events,
    ),
    _one(
        "watcher_oversized_events_total",
        "Events that were too long to read; the list that followed made up for them.",
        lambda board: board.watcher.oversized,
        "counter",
    ),
    _one(
        "watcher_reconnects_total",
        "How often the connection to Docker's events was made again.",
        lambda board: board.watcher.reconnects,
        "counter",
    ),
    _counts(
        "watcher_resyncs_total",
        "Lists of all containers, by what they were made for.",
        "reason",
        RESYNC_REASONS,
        lambda board: board.watcher.resyncs,
    ),
    _one(
        "watcher_resync_drift_total",
        "Regular lists that found what no event had told.",
        lambda board: board.watcher.drift,
        "counter",
    ),
    _counts(
        "docker_request_failures_total",
        "Failed requests to Docker, by operation.",
        "operation",
        DOCKER_OPERATIONS,
        lambda board: board.docker_failures,
    ),
    _one(
        "journal_recoveries_total",
        "Containers that were started again after kopiwatch had been interrupted.",
        lambda board: board.recoveries,
        "counter",
    ),
    _one(
        "history_failures_total",
        "Entries that could not be written to the history.",
        lambda board: board.history_failures,
        "counter",
    ),
)

LAG = OwnFamily(
    "event_loop_lag_seconds",
    "gauge",
    "The longest delay of kopiwatch's event loop within the last minute.",
)
COLLECT = OwnFamily(
    "collect_duration_seconds", "gauge", "How long this answer took to make, up to this line."
)
OWN: tuple[Family, ...] = (LAG, COLLECT)
"""What the exporter says of itself."""
