"""Each way to fail has its own reason code, the same wherever it is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import anyio
import pytest
from support.run_world import FakeClock, RunWorld

from kopiwatch.backup.plausible import FLOOR_BYTES
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.run import Run
from kopiwatch.errors import EngineError, KopiaTimeout, RepositoryFull, RepositoryUnreachable
from kopiwatch.report.board import UnitBoard
from kopiwatch.report.history import History
from kopiwatch.report.metrics_unit import UNIT
from kopiwatch.report.summary import summary
from kopiwatch.restore.point import points
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio

FULL = "ERROR error: write /repository/kopia/p1: no space left on device"
LOST = "ERROR error: top-level directory not found"
UNREADABLE = "ERROR Found 1 fatal error(s) while snapshotting"


class Fault(NamedTuple):
    """What is done to a world, and what must come of it; ``point`` if a manifest is left."""

    reason: str
    exit_code: int
    act: Callable[[RunWorld], object]
    verdict: str = "failed"
    point: bool = False


def kopia(step: str, errors: str, code: int = 1) -> Callable[[RunWorld], object]:
    return lambda world: world.program.exits(step, code=code, errors=errors)


def worker(step: str) -> Callable[[RunWorld], object]:
    return lambda world: world.program.at(step, lambda it: it.end() or True)


def silent(operation: str, target: str) -> Callable[[RunWorld], object]:
    """The worker is killed while nobody listens to it: when a call reaches Docker."""

    def act(world: RunWorld) -> None:
        launched = []
        world.program.at("launch", launched.append)
        world.engine.hook(operation, target, lambda: [it.end() for it in launched] and None)

    return act


def late(step: str, label: str = "") -> Callable[[RunWorld], object]:
    def act(world: RunWorld) -> None:
        world.program.hangs(step)
        if label:
            world.engine.all[world.db].row.labels[label] = "1s"

    return act


def repository(method: str, error: Exception) -> Callable[[RunWorld], object]:
    return lambda world: world.repository.fail(method, error)


def program(**values: object) -> Callable[[RunWorld], object]:
    def act(world: RunWorld) -> None:
        for name, value in values.items():
            setattr(world.program, name, value)

    return act


def emptied(world: RunWorld) -> None:
    world.program.trees["volumes/data"] = {}


def shrunk(world: RunWorld) -> None:
    world.program.trees["volumes/data"] = {"file": b"x"}


def interfered(world: RunWorld) -> None:
    world.program.at("go", lambda _: world.engine.set_state(world.db, "running") and False)


def start_fails(world: RunWorld) -> None:
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)


FAULTS = {
    "full before the gate": Fault("repository-full", 4, kopia("launch", FULL)),
    "full while reading": Fault("repository-full", 4, kopia("go", FULL)),
    "full while writing": Fault("repository-full", 4, kopia("flush", FULL)),
    "full in check": Fault(
        "repository-full", 4, repository("check_policy", RepositoryFull("no space"))
    ),
    "lost in check": Fault(
        "repository-unreachable", 4, repository("check_policy", RepositoryUnreachable("gone"))
    ),
    "lost while reading": Fault("repository-unreachable", 4, kopia("go", LOST)),
    "lost while writing": Fault("repository-unreachable", 4, kopia("flush", LOST)),
    "lost in verify": Fault(
        "repository-unreachable",
        4,
        repository("outline", RepositoryUnreachable("gone")),
        point=True,
    ),
    "no answer in verify": Fault(
        "kopia-timeout", 4, repository("outline", KopiaTimeout("no answer")), point=True
    ),
    "files unreadable": Fault("entries-unreadable", 1, kopia("flush", UNREADABLE)),
    "Kopia fails": Fault("kopia-failed", 1, kopia("flush", "ERROR something else")),
    "Kopia killed": Fault("kopia-killed", 1, kopia("go", "", code=-9)),
    "window too long": Fault("deadline", 1, late("go", "kopi.window-timeout")),
    "worker killed before the gate": Fault("worker-lost", 1, worker("launch")),
    "worker killed at the gate": Fault("worker-lost", 1, silent("inspect", "db")),
    "worker killed in the stop": Fault("worker-lost", 1, silent("stop", "db")),
    "worker killed in the start": Fault("worker-lost", 1, silent("start", "db")),
    "worker killed while reading": Fault("worker-lost", 1, worker("go")),
    "worker killed while writing": Fault("worker-lost", 1, worker("flush")),
    "gate removed": Fault("gate", 1, kopia("go", "", code=0)),
    "source missing": Fault(
        "source-missing", 1, program(missing={"volumes/data"}), "partial", point=True
    ),
    "entries failed": Fault("unreadable", 1, program(failed=2), point=True),
    "member does not start": Fault("start", 1, start_fails, point=True),
    "interference": Fault("interference", 1, interfered, "partial", point=True),
    "source empty": Fault("source-empty", 1, emptied, "partial", point=True),
    "source collapsed": Fault("source-collapsed", 1, shrunk, "partial", point=True),
}


async def begin(world: RunWorld) -> None:
    """A good point of some size, and no time passed."""
    world.program.trees["volumes/data"] = {"file": b"x" * 2 * FLOOR_BYTES}
    assert (await world.run(run="good")).verdict == "success"


async def tell(result: RunResult, folder: Path) -> None:
    """The log line, the history and the metric say what the result says."""
    assert f"({result.reason})" in summary(result)
    opened = await History.open(folder, clock=FakeClock().clock)
    async with opened.history as history:
        await history.finish(result, trigger="schedule", due=None, data_at=result.data_at)
        row = (await history.runs())[0]
        assert (row.verdict, row.reason) == (result.verdict, result.reason)
        last = (await history.units())["shop"].last_run
    (series,) = (family for family in UNIT if family.name == "unit_last_run_info")
    board = UnitBoard("shop", "scheduled", last_run=last)
    assert list(series.values(board)) == [((result.verdict, result.reason), 1)]


@pytest.mark.parametrize("name", FAULTS)
async def test_fault_has_one_code_everywhere(world, name, tmp_path):
    """Result, exit code, log line, history, metric, and the pin of what was stored."""
    fault = FAULTS[name]
    await begin(world)
    fault.act(world)
    result = await world.run(run="bad")
    assert (result.verdict, result.reason, result.exit_code) == (
        *(fault.verdict, fault.reason),
        fault.exit_code,
    )
    assert result.message
    await tell(result, tmp_path)
    left = [p for p in points(world.repository.contents.snapshots) if p.run == "bad"]
    assert [(p.state, p.reason) for p in left] == [("bad", fault.reason)] * fault.point
    assert world.engine.running_workers == ()


async def test_cancelled_run_has_its_code_everywhere(world, tmp_path):
    """It is no failure of anything, and no success either."""
    rows = await world.engine.containers()
    (shop,) = discover(rows).units
    run = Run(await world.house(), shop, rows, "bad")
    with anyio.CancelScope() as scope:
        world.program.at("go", lambda _: scope.cancel() or True)
        await run.execute()
    assert scope.cancelled_caught
    assert (run.result.verdict, run.result.reason) == ("failed", "cancelled")
    await tell(run.result, tmp_path)


def test_codes_tell_the_faults_apart():
    """A code that stood for two of them would tell of neither."""
    by_code = {}
    for name, fault in FAULTS.items():
        kind = name.split(" ")[0] if fault.reason.startswith(("repository", "worker")) else name
        by_code.setdefault(fault.reason, set()).add(kind)
    assert all(len(kinds) == 1 for kinds in by_code.values()), by_code
