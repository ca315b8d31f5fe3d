"""The families: what each board becomes, and that no series comes twice."""

from __future__ import annotations

import math
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from support.boards import LENGTHS, NOW, full, last_run, unit

from kopiwatch.engine.events import ACTIONS
from kopiwatch.report.board import BUCKETS, Board, Histogram, LastRun, UnitBoard, WatcherBoard
from kopiwatch.report.family import HouseFamily, HouseHistogram, UnitFamily, UnitSeries
from kopiwatch.report.metrics import TABLE
from kopiwatch.report.metrics_page import render
from kopiwatch.report.sample_text import head, house_block, labelled_units, unit_samples
from kopiwatch.watch.facts import Reason
from kopiwatch.wiring.attempt import DOCKER_AWAY

ROOT = Path(__file__).resolve().parents[3]


def exposed(board: Board, *, openmetrics: bool = False) -> str:
    """All that a board alone decides."""
    units = labelled_units(board.units)
    blocks = [
        head(family, openmetrics=openmetrics) + unit_samples(family, units.items())
        if isinstance(family, (UnitFamily, UnitSeries))
        else house_block(family, board, openmetrics=openmetrics)
        for family in TABLE
        if isinstance(family, (UnitFamily, UnitSeries, HouseFamily, HouseHistogram))
    ]
    return "".join(blocks) + ("# EOF\n" if openmetrics else "")


def series(board: Board) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    """Each series of the board, as Prometheus' own client reads it."""
    found = {}
    for family in read_text(exposed(board)):
        for sample in family.samples:
            key = (sample.name.removeprefix("kopiwatch_"), frozenset(sample.labels.items()))
            assert key not in found, f"{key} comes twice"
            found[key] = sample.value
    return found


def value(board: Board, name: str, **labels: str) -> float | None:
    return series(board).get((name, frozenset(labels.items())))


def test_page_is_what_the_table_renders_to():
    """Mend docs/metrics.md with python -m kopiwatch.report.metrics_page."""
    assert (ROOT / "docs" / "metrics.md").read_text("utf-8") == render()


def test_names_follow_prometheus_rules():
    """Names are unique, counters end in _total, and only they do."""
    names = [family.name for family in TABLE]
    assert len(names) == len(set(names))
    for family in TABLE:
        assert re.fullmatch(r"[a-z][a-z_]*[a-z]", family.name)
        assert (family.kind == "counter") == family.name.endswith("_total")
        assert (family.kind == "info") == family.name.endswith("_info")
        assert not re.search(r'[\\"\n|]', family.text)
        assert family.text.endswith(".")


def test_only_the_unit_is_a_label_of_most_unit_metrics():
    """What describes a unit stands in unit_info, so that its series do not change with it."""
    more = {family.name: family.labels[1:] for family in TABLE if family.labels[:1] == ("unit",)}
    assert {name: labels for name, labels in more.items() if labels} == {
        "unit_info": ("kind", "schedule", "mode"),
        "unit_last_run_info": ("verdict", "reason"),
        "unit_last_phase_duration_seconds": ("phase",),
        "unit_last_entry_errors": ("severity",),
    }


def test_times_are_timestamps():
    """A run's times and the deadline are seconds since 1970."""
    one = unit(1, unit="shop")
    board = full((one,))
    for name, at in {
        "unit_last_success_timestamp_seconds": one.last_success,
        "unit_deadline_timestamp_seconds": one.deadline,
        "unit_first_seen_timestamp_seconds": one.first_seen,
        "unit_next_run_timestamp_seconds": one.next_run,
        "unit_last_start_timestamp_seconds": one.last_run.began,
        "unit_last_end_timestamp_seconds": one.last_run.ended,
    }.items():
        assert value(board, name, unit="shop") == at.timestamp()


def test_unit_that_was_never_backed_up_has_zero_and_a_deadline():
    """Zero is never; the deadline alarms all the same."""
    deadline = NOW + timedelta(hours=1)
    fresh = UnitBoard(unit="new", state="scheduled", first_seen=NOW, deadline=deadline)
    board = full((fresh,))
    assert value(board, "unit_last_success_timestamp_seconds", unit="new") == 0
    assert value(board, "unit_deadline_timestamp_seconds", unit="new") == deadline.timestamp()
    assert value(board, "unit_runs_total", unit="new") == 0
    assert value(board, "unit_run_failures_total", unit="new") == 0
    assert value(board, "unit_last_run_success", unit="new") is None
    assert value(board, "unit_last_size_bytes", unit="new") is None


def test_unit_without_deadline_has_no_deadline_series():
    """A deadline of zero would be overdue for ever."""
    board = full((unit(unit="off", state="unscheduled", deadline=None, max_age=None),))
    assert value(board, "unit_deadline_timestamp_seconds", unit="off") is None
    assert value(board, "unit_max_age_seconds", unit="off") is None
    assert value(board, "unit_present", unit="off") == 1


def test_missing_unit_keeps_its_series():
    """Whoever vanished is not present, and nothing else of it goes."""
    here, gone = unit(unit="a"), unit(unit="a", state="missing", present=False)
    assert series(full((gone,))).keys() == series(full((here,))).keys()
    assert value(full((gone,)), "unit_present", unit="a") == 0


def test_run_in_progress_moves_the_start_only():
    """An alert on a stuck run needs the start of the one that runs."""
    since = NOW - timedelta(hours=7)
    one = unit(unit="a", running="r9", running_since=since)
    board = full((one,))
    assert value(board, "unit_in_progress", unit="a") == 1
    assert value(board, "unit_last_start_timestamp_seconds", unit="a") == since.timestamp()
    ended = one.last_run.ended.timestamp()
    assert value(board, "unit_last_end_timestamp_seconds", unit="a") == ended


def test_partial_run_counts_as_a_failure():
    """Success is earned."""
    board = full((unit(unit="a", last_run=last_run(NOW, verdict="partial", stored=3)),))
    assert value(board, "unit_last_run_success", unit="a") == 0
    assert value(board, "unit_sources_expected", unit="a") == 4
    assert value(board, "unit_sources_stored", unit="a") == 3


def test_run_that_stored_nothing_has_no_size():
    """A size of zero would read as a collapse; the failure is told by its own metric."""
    failed = last_run(NOW, verdict="failed", stored=0, size=0, files=0)
    board = full((unit(unit="a", last_run=failed),))
    assert value(board, "unit_last_size_bytes", unit="a") is None
    assert value(board, "unit_last_files", unit="a") is None
    assert value(board, "unit_last_run_success", unit="a") == 0


def test_empty_success_has_its_size():
    """A unit whose sources are all empty has zero bytes, and that is a fact."""
    empty = last_run(NOW, size=0, files=0, expected=0, stored=0)
    assert value(full((unit(unit="a", last_run=empty),)), "unit_last_size_bytes", unit="a") == 0


def test_phases_of_the_last_run_are_told():
    """One series per phase that it reached."""
    board = full((unit(unit="a"),))
    for phase, seconds in LENGTHS.items():
        got = value(board, "unit_last_phase_duration_seconds", unit="a", phase=phase)
        assert got == seconds
    assert value(board, "unit_last_downtime_seconds", unit="a") == 8.861


def test_figures_of_a_unit_read_as_they_stand_on_the_board():
    """Each of those that are plain figures."""
    one = unit(7, unit="a", consecutive_failures=2, left_stopped=("x", "y"), queued=True)
    board = full((one,))
    for name, figure in {
        "unit_runs_total": one.totals.runs,
        "unit_run_failures_total": one.totals.failures,
        "unit_downtime_seconds_total": one.totals.downtime,
        "unit_consecutive_failures": 2,
        "unit_containers_left_stopped": 2,
        "unit_queued": 1,
        "unit_restore_points": 14,
        "unit_max_age_seconds": 129600,
        "unit_last_size_bytes": one.last_run.size,
        "unit_last_files": 20311,
    }.items():
        assert value(board, name, unit="a") == figure, name
    assert value(board, "unit_last_entry_errors", unit="a", severity="ignored") == 2
    assert value(board, "unit_last_entry_errors", unit="a", severity="fatal") == 0


def test_states_of_units_are_all_there():
    """The four states, with zeros."""
    board = full((unit(unit="a"), unit(unit="b", state="missing")))
    counted = {
        state: value(board, "units", state=state)
        for state in ("scheduled", "unscheduled", "invalid", "missing")
    }
    assert counted == {"scheduled": 1, "unscheduled": 0, "invalid": 0, "missing": 1}


@pytest.mark.parametrize(
    ("name", "label", "known"),
    [
        ("failures_total", "phase", tuple(LENGTHS)),
        ("runs_skipped_total", "reason", ("gone", "labels", "missed", *DOCKER_AWAY)),
        ("watcher_events_total", "action", ACTIONS),
        ("watcher_resyncs_total", "reason", get_args(Reason)),
        ("repository_failures_total", "operation", ("probe",)),
        ("docker_request_failures_total", "operation", ("list",)),
        ("phase_duration_seconds_count", "phase", tuple(LENGTHS)),
    ],
)
def test_counters_begin_at_zero(name, label, known):
    """Prometheus sees no increase in a counter that begins at one."""
    board = Board(at=NOW, ready=True)
    for word in known:
        assert value(board, name, **{label: word}) == 0


def test_counts_of_unknown_words_are_shown_beside_the_known():
    """A new reason is not lost."""
    board = full(skipped={"labels": 2, "new-reason": 1})
    assert value(board, "runs_skipped_total", reason="labels") == 2
    assert value(board, "runs_skipped_total", reason="new-reason") == 1
    assert value(board, "runs_skipped_total", reason="gone") == 0


def test_what_is_unknown_of_the_repository_has_no_series():
    """Before the first probe it is neither up nor down."""
    board = Board(at=NOW, ready=True)
    assert value(board, "repository_up") is None
    assert value(board, "repository_check_duration_seconds") is None
    assert value(board, "repository_last_check_timestamp_seconds") == 0
    down = msgspec.structs.replace(board.repository, up=False)
    assert value(msgspec.structs.replace(board, repository=down), "repository_up") == 0


def test_queue_tells_its_oldest():
    """Zero when it is empty."""
    since = (NOW - timedelta(seconds=9)).timestamp()
    assert value(full(), "queue_oldest_enqueued_timestamp_seconds") == since
    assert value(full(queue=()), "queue_oldest_enqueued_timestamp_seconds") == 0
    assert value(full(queue=()), "queue_depth") == 0


def test_house_figures_read_as_they_stand_on_the_board():
    """Each of those that are plain figures."""
    board = full(
        (), history_failures=4, config_error="x", watcher=WatcherBoard(drift=3, oversized=2)
    )
    assert value(board, "history_failures_total") == 4
    assert value(board, "config_last_reload_success") == 0
    assert value(board, "watcher_resync_drift_total") == 3
    assert value(board, "watcher_oversized_events_total") == 2
    assert value(board, "watcher_connected") == 0
    assert value(board, "watcher_last_event_timestamp_seconds") == 0
    assert value(board, "lock_held") == 1
    assert value(board, "journal_recoveries_total") == 1
    assert value(board, "repository_info", backend="filesystem") == 1
    assert value(board, "build_info", version="0.4.0", kopia_version="0.23.1", revision="0a1b2c3")


def test_histogram_is_cumulative_and_ends_with_everything():
    """A length on a bound belongs below it; what is beyond all bounds counts as infinite."""
    board = full(phase_seconds={"read": Histogram().observed(0.1).observed(3.0).observed(1e9)})
    below = [
        value(board, "phase_duration_seconds_bucket", phase="read", le=str(bound))
        for bound in (*BUCKETS, "+Inf")
    ]
    assert below == [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3]
    assert value(board, "phase_duration_seconds_count", phase="read") == 3
    assert value(board, "phase_duration_seconds_sum", phase="read") == 1e9 + 3.1


def test_label_that_is_wrong_twice_is_one_series():
    """Two problems may be about the same label."""
    pair = ("db", "kopi.mode")
    board = full((unit(unit="a", state="invalid", invalid_labels=(pair, pair)),))
    assert value(board, "invalid_labels", container="db", label="kopi.mode") == 1


def test_names_that_are_written_alike_are_one_series():
    """A NUL is spelt out, and somebody may have spelt it out before."""
    units = (unit(unit="a\0"), unit(unit="a\\x00", invalid_labels=(("a\0", "x"), ("a\\x00", "x"))))
    board = full(units)
    assert value(board, "unit_present", unit="a\\x00") == 1
    assert value(board, "invalid_labels", container="a\\x00", label="x") == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ('a"b\\c\nd', 'a"b\\c\nd'),
        ("größe ☃", "größe ☃"),
        ("a\x00b\rc", "a\\x00b\\x0dc"),
        ("a\udc80b", "a\\udc80b"),
        ("", ""),
    ],
)
@pytest.mark.parametrize("openmetrics", [False, True])
def test_odd_names_survive(name, shown, openmetrics):
    """Quotes, backslashes and line ends come back; what no parser takes is spelt out."""
    text = exposed(full((unit(unit=name),)), openmetrics=openmetrics)
    text.encode()
    read = read_openmetrics if openmetrics else read_text
    found = {
        sample.labels["unit"]
        for family in read(text)
        for sample in family.samples
        if sample.name == "kopiwatch_unit_present"
    }
    assert found == {shown}


_TIMES = st.none() | st.datetimes(
    datetime(1990, 1, 1),  # noqa: DTZ001 - hypothesis wants it bare
    datetime(2090, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC),
)
_FIGURES = st.integers(0, 2**63)
_SECONDS = st.floats(0, 1e12)
_COUNTS = st.dictionaries(st.text(max_size=8), _FIGURES, max_size=3)
_RUNS = st.builds(
    LastRun,
    began=_TIMES.filter(bool),
    ended=_TIMES.filter(bool),
    window=_SECONDS,
    size=_FIGURES,
    files=_FIGURES,
    fatal=_FIGURES,
    ignored=_FIGURES,
    expected=_FIGURES,
    stored=_FIGURES,
    phases=st.dictionaries(st.sampled_from(list(LENGTHS)), _SECONDS, max_size=4),
)
_NAMES = st.text(max_size=12)
_UNITS = st.builds(
    UnitBoard,
    unit=_NAMES,
    kind=_NAMES,
    schedule=_NAMES,
    mode=_NAMES,
    first_seen=_TIMES,
    last_success=_TIMES,
    deadline=_TIMES,
    next_run=_TIMES,
    running_since=_TIMES,
    oldest_point=_TIMES,
    max_age=st.none() | _SECONDS,
    last_run=st.none() | _RUNS,
    consecutive_failures=_FIGURES,
    points=st.none() | _FIGURES,
    invalid_labels=st.lists(st.tuples(_NAMES, _NAMES), max_size=3).map(tuple),
)
_BOARDS = st.builds(
    Board,
    at=st.just(NOW),
    version=_NAMES,
    units=st.lists(_UNITS, max_size=4).map(tuple),
    watcher=st.builds(WatcherBoard, events=_COUNTS, resyncs=_COUNTS, last_event=_TIMES),
    failures=_COUNTS,
    skipped=_COUNTS,
    docker_failures=_COUNTS,
    history_failures=_FIGURES,
)


@settings(deadline=None, max_examples=150)
@given(_BOARDS)
def test_no_series_comes_twice_and_every_parser_reads_them(board):
    """Prometheus keeps the first of two equal series without a word, so we must never make two."""
    lines = [line for line in exposed(board).split("\n") if line and not line.startswith("#")]
    keys = Counter(line.rpartition(" ")[0] for line in lines)
    assert [key for key, times in keys.items() if times > 1] == []
    parsed = [
        sorted((s.name, sorted(s.labels.items()), s.value) for f in families for s in f.samples)
        for families in (
            read_text(exposed(board)),
            read_openmetrics(exposed(board, openmetrics=True)),
        )
    ]
    assert parsed[0] == parsed[1]
    assert len(parsed[0]) == len(lines)
    assert not any(math.isnan(sample[2]) for sample in parsed[0])
