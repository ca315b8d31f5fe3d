"""What people and programs see."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kopiwatch.backup.result import RunResult
from kopiwatch.cli import output
from kopiwatch.cli.report import exit_code


def test_json_takes_paths_and_times(capsys):
    """One document with a newline."""
    output.print_json({"at": datetime(2026, 1, 1, tzinfo=UTC), "path": Path("/x")})
    out = capsys.readouterr().out
    assert json.loads(out) == {"at": "2026-01-01T00:00:00Z", "path": "/x"}
    assert out.endswith("}\n")


def test_table_never_folds_what_somebody_wants_to_copy(capsys):
    """A run's name stays in one piece, however narrow the terminal."""
    name = "20261124T020000Z-3f9a1c" * 5
    output.print_table(("RUN", "STATE"), [(name, "complete")])
    assert name in capsys.readouterr().out


def result(verdict: str, code: int) -> RunResult:
    now = datetime(2026, 1, 1, tzinfo=UTC)
    return RunResult("r", "u", verdict, now, now, exit_code=code)


@pytest.mark.parametrize(
    ("codes", "expected"), [([], 0), ([0, 0], 0), ([0, 4], 4), ([4, 4], 4), ([3, 4], 1), ([1], 1)]
)
def test_exit_code_is_the_one_that_all_failures_share(codes, expected):
    """Or 1, when they failed for different reasons."""
    results = [result("failed" if code else "success", code) for code in codes]
    assert exit_code(results) == expected
