"""Boards to look at: one that has something of everything, and large ones."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from kopiwatch.backup.result import Phase
from kopiwatch.report.board import (
    Board,
    Histogram,
    LastRun,
    Queued,
    RepositoryBoard,
    Totals,
    UnitBoard,
    WatcherBoard,
)

NOW = datetime(2026, 11, 24, 12, 30, 15, 250000, tzinfo=UTC)
LENGTHS: dict[Phase, float] = {
    "wait": 0.012,
    "check": 1.841,
    "ready": 2.303,
    "stop": 0.714,
    "read": 3.482,
    "start": 0.655,
    "health": 4.01,
    "flush": 1.204,
    "verify": 0.371,
    "keep": 0.533,
    "report": 0.022,
}


def last_run(began: datetime, **changes: object) -> LastRun:
    """A success of 14 seconds."""
    given = {
        "run": "20261124T020000Z-4f3a",
        "verdict": "success",
        "began": began,
        "ended": began + timedelta(seconds=14.6),
        "trigger": "schedule",
        "window": 8.861,
        "phases": LENGTHS,
        "size": 1_234_567_890,
        "files": 20_311,
        "ignored": 2,
        "expected": 4,
        "stored": 4,
    }
    return LastRun(**(given | changes))


def unit(number: int = 0, **changes: object) -> UnitBoard:
    """A unit that was backed up at two in the morning and is due again tomorrow."""
    began = NOW.replace(hour=2, minute=0) + timedelta(seconds=number % 3600)
    given = {
        "unit": f"project-{number:04d}",
        "state": "scheduled",
        "kind": "project",
        "schedule": "0 2 * * *",
        "first_seen": NOW - timedelta(days=90),
        "last_success": began + timedelta(seconds=5),
        "deadline": began + timedelta(hours=36),
        "max_age": 36 * 3600.0,
        "next_run": began + timedelta(days=1),
        "last_run": last_run(began, size=1_000_003 * (number + 1)),
        "totals": Totals(runs=91 + number, failures=number % 5, downtime=812.25 + number),
        "points": 14,
        "oldest_point": NOW - timedelta(days=90),
    }
    return UnitBoard(**(given | changes))


def large(units: int) -> Board:
    """As many units, all well."""
    return full(tuple(unit(number) for number in range(units)))


def full(units: tuple[UnitBoard, ...] | None = None, **changes: object) -> Board:
    """Something of everything."""
    given = {
        "at": NOW,
        "ready": True,
        "version": "0.4.0",
        "kopia_version": "0.23.1",
        "revision": "0a1b2c3",
        "units": ODD if units is None else units,
        "watcher": WatcherBoard(
            connected=True,
            last_event=NOW - timedelta(seconds=30),
            last_resync=NOW - timedelta(seconds=90),
            events={"start": 7, "die": 6, "pause": 1},
            resyncs={"connect": 2},
            reconnects=1,
        ),
        "repository": RepositoryBoard(
            backend="filesystem",
            up=True,
            last_check=NOW - timedelta(minutes=3),
            check_seconds=0.42,
            failures={"probe": 1},
        ),
        "queue": (Queued("shop", NOW, NOW - timedelta(seconds=9), "schedule"),),
        "failures": {"read": 2},
        "skipped": {"busy-error": 1},
        "docker_failures": {"list": 3},
        "recoveries": 1,
        "lock_held": True,
        "last_tick": NOW,
        "phase_seconds": {"read": Histogram().observed(3.4).observed(0.1).observed(99999.0)},
        "lock_wait": Histogram().observed(0.2),
    }
    return Board(**(given | changes))


ODD: tuple[UnitBoard, ...] = (
    unit(1, unit="shop", running="20261124T123000Z-aa", running_since=NOW - timedelta(seconds=15)),
    unit(2, unit="never", last_success=None, last_run=None, deadline=NOW + timedelta(hours=1)),
    unit(3, unit="late", deadline=NOW - timedelta(seconds=1), queued=True),
    unit(4, unit="off", state="unscheduled", schedule="off", deadline=None, next_run=None),
    unit(5, unit="gone", state="missing", present=False, left_stopped=("gone-db",)),
    unit(
        6,
        unit="broken",
        state="invalid",
        last_run=last_run(NOW, verdict="failed", stored=0, size=0, files=0, phases={"check": 0.5}),
        consecutive_failures=3,
        invalid_labels=(("broken-db", "kopi.mode"), ("broken-db", "kopi.mode")),
        points=None,
        oldest_point=None,
    ),
)
"""A unit for each case that reads differently."""
