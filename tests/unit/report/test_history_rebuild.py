"""Merging the repository's restore points into the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.backup.result import RunResult
from kopiwatch.clock import Clock
from kopiwatch.report import history as module
from kopiwatch.report.board import Totals
from kopiwatch.report.history import History
from kopiwatch.report.history_record import RebuildResult, RebuiltRun, UnitSeen

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
async def history(tmp_path):
    opened = await History.open(tmp_path, clock=Clock(now=lambda: NOON))
    async with opened.history as history:
        yield history


def point(hour: int, verdict: str = "success", unit: str = "shop", **more: object) -> RebuiltRun:
    given = {"run": f"{unit}{hour}", "snapshot": f"k{hour}", "size": 100, "files": 3} | more
    reason = "" if verdict == "success" else "start"
    return RebuiltRun(unit=unit, at=NOON + hour * HOUR, verdict=verdict, reason=reason, **given)


def result(hour: int, verdict: str = "success") -> RunResult:
    at = NOON + hour * HOUR
    return RunResult(f"shop{hour}", "shop", verdict, at, at + HOUR / 2, window=1.0)


async def finish(history: History, done: RunResult) -> None:
    await history.finish(done, trigger="schedule", due=None, data_at=done.began)


async def test_lost_history_is_known_again_from_restore_points(history):
    """Successes, failures since, when a unit was first heard of."""
    done = await history.rebuild([point(3, "failed"), point(1), point(2), point(5, unit="zoo")])
    assert done == RebuildResult(added=4, units=("shop", "zoo"))
    known = (await history.units())["shop"]
    assert (known.first_seen, known.last_seen) == (NOON + HOUR, None)
    assert (known.last_success, known.consecutive_failures) == (NOON + 2 * HOUR, 1)
    assert known.totals == Totals(runs=3, failures=1)
    assert known.last_run is not None
    assert (known.last_run.run, known.last_run.reason) == ("shop3", "start")
    assert known.last_run.seconds is None
    detail = await history.run("shop2")
    assert detail is not None
    assert (detail.row.rebuilt, detail.row.seconds, detail.row.trigger) == (True, None, "")
    assert (detail.row.snapshot, detail.row.size, detail.row.files) == ("k2", 100, 3)
    assert (detail.result, detail.phases) == (None, ())


async def test_rebuilding_again_changes_nothing(history):
    """But what the repository thinks of a run today."""
    await history.rebuild([point(1), point(2)])
    before = (await history.units(), await history.runs())
    assert await history.rebuild([point(1), point(2)]) == RebuildResult(known=2)
    assert (await history.units(), await history.runs()) == before
    await history.rebuild([point(1), point(2, "failed", snapshot="pinned")])
    known = (await history.units())["shop"]
    assert (known.last_success, known.consecutive_failures) == (NOON + HOUR, 1)
    detail = await history.run("shop2")
    assert detail is not None
    assert detail.row.snapshot == "pinned"


async def test_what_was_recorded_here_stands(history):
    """The repository knows less; where it judges otherwise, that is said."""
    await finish(history, result(1))
    await finish(history, result(2, "failed"))
    before = await history.runs()
    done = await history.rebuild([point(1, "failed"), point(2, "failed")])
    assert done == RebuildResult(known=2, differing=("shop1",))
    assert await history.runs() == before


async def test_older_points_come_before_what_was_recorded(history):
    """The newest success stays the newest, and the unit is older than it seemed."""
    await finish(history, result(4))
    await finish(history, result(6, "failed"))
    await history.rebuild([point(1), point(2, "failed"), point(5, "failed")])
    known = (await history.units())["shop"]
    assert (known.first_seen, known.last_success) == (NOON + HOUR, NOON + 4 * HOUR)
    assert known.consecutive_failures == 2
    assert known.last_run is not None
    assert known.last_run.run == "shop6"
    assert known.totals == Totals(runs=5, failures=3, downtime=2.0)


async def test_newer_points_come_after_what_was_recorded(history):
    """A restored copy of an old state folder learns what happened since."""
    await finish(history, result(1, "failed"))
    await history.rebuild([point(2), point(3)])
    known = (await history.units())["shop"]
    assert (known.last_success, known.consecutive_failures) == (NOON + 3 * HOUR, 0)


async def test_interrupted_run_is_completed_from_its_point(history):
    """It was a success after all: its process died between verdict and record."""
    await history.begin("shop1", "shop", "schedule", NOON, NOON)
    await history.phase("shop1", "read", NOON)
    await history.interrupted(())
    assert await history.rebuild([point(1)]) == RebuildResult(completed=1)
    known = (await history.units())["shop"]
    assert (known.last_success, known.consecutive_failures) == (NOON + HOUR, 0)
    detail = await history.run("shop1")
    assert detail is not None
    assert (detail.row.trigger, detail.row.reason, detail.row.message) == ("schedule", "", "")
    assert [phase.phase for phase in detail.phases] == ["read"]


async def test_open_run_is_left_alone(history):
    """It may be alive, and then it will say itself how it ended."""
    await history.begin("shop1", "shop", "schedule", NOON, NOON)
    assert await history.rebuild([point(1)]) == RebuildResult(known=1)
    assert (await history.units())["shop"].running == "shop1"
    await finish(history, result(1))
    (row,) = await history.runs()
    assert (row.verdict, row.rebuilt) == ("success", False)


async def test_result_replaces_what_was_rebuilt(history):
    """Who was there knows more."""
    await history.rebuild([point(1, "failed"), point(2)])
    await finish(history, result(1))
    rows = await history.runs()
    assert [(row.run, row.verdict, row.rebuilt) for row in rows] == [
        ("shop1", "success", False),
        ("shop2", "success", True),
    ]
    assert (await history.units())["shop"].totals.runs == 2


async def test_forgotten_unit_stays_forgotten(history):
    """Its points are on record; nobody is alarmed."""
    await history.seen((UnitSeen("shop"),), NOON)
    await history.forget("shop", NOON + 2 * HOUR)
    assert (await history.rebuild([point(1)])).added == 1
    assert await history.units() == {}
    assert [row.run for row in await history.runs()] == ["shop1"]


async def test_points_of_a_former_life_do_not_count_for_the_new_one(history):
    """Forgotten is forgotten, also for what comes to light later."""
    await history.seen((UnitSeen("shop"),), NOON)
    await history.forget("shop", NOON + 2 * HOUR)
    await history.seen((UnitSeen("shop"),), NOON + 3 * HOUR)
    await history.rebuild([point(1), point(4)])
    known = (await history.units())["shop"]
    assert (known.first_seen, known.last_success) == (NOON + 3 * HOUR, NOON + 4 * HOUR)
    assert known.totals.runs == 1
    await history.rebuild([point(1), point(2)])
    assert (await history.units())["shop"].totals.runs == 1


async def test_rebuilding_from_nothing_is_nothing(history):
    """An empty repository."""
    assert await history.rebuild([]) == RebuildResult()


async def test_history_is_fresh_until_the_repository_was_read(history, tmp_path):
    """Whoever made the file, and however often it was opened since."""

    async def fresh() -> bool:
        opened = await History.open(tmp_path, clock=Clock(now=lambda: NOON))
        await opened.history.close()
        return opened.fresh

    await finish(history, result(1))
    assert await fresh()
    await history.rebuild([])
    assert not await fresh()


async def test_rebuilding_in_several_transactions_is_one_rebuild(history, monkeypatch):
    """Others get their turn in between."""
    monkeypatch.setattr(module, "REBUILD_BATCH", 3)
    everything = [point(hour, unit=unit) for hour in range(2) for unit in ("a", "b", "c", "d", "e")]
    done = await history.rebuild(everything)
    assert done == RebuildResult(added=10, units=("a", "b", "c", "d", "e"))
    assert len(await history.runs()) == 10


@settings(max_examples=40, deadline=None)
@given(
    recorded=st.lists(st.booleans(), max_size=8),
    kept=st.lists(st.booleans(), min_size=8, max_size=8),
)
async def test_lost_rows_are_found_again_in_their_order(tmp_path_factory, recorded, kept):
    """A history with holes and the repository make the same record as one without."""
    folders = [tmp_path_factory.mktemp(name) for name in ("whole", "holes")]
    records = []
    for folder in folders:
        opened = await History.open(folder, clock=Clock(now=lambda: NOON))
        async with opened.history as history:
            for hour, good in enumerate(recorded):
                if kept[hour] or folder == folders[0]:
                    await finish(history, result(hour, "success" if good else "failed"))
            if folder == folders[1]:
                verdicts = ["success" if good else "failed" for good in recorded]
                await history.rebuild([point(h, v) for h, v in enumerate(verdicts)])
            records.append(await history.units())
    whole, holes = records
    assert set(whole) == set(holes)
    for unit, known in whole.items():
        assert holes[unit].last_success == known.last_success
        assert holes[unit].consecutive_failures == known.consecutive_failures
        assert holes[unit].totals.runs == known.totals.runs
        assert holes[unit].last_run is not None
        assert known.last_run is not None
        assert holes[unit].last_run.run == known.last_run.run
