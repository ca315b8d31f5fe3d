"""A run that was refused and accepted, and a unit under a new name, on record."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kopiwatch.backup.result import RunResult
from kopiwatch.clock import Clock
from kopiwatch.report.history import History
from kopiwatch.report.history_record import RebuiltRun, UnitSeen

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
CLOCK = Clock(now=lambda: NOON)


@pytest.fixture
async def history(tmp_path):
    opened = await History.open(tmp_path, clock=CLOCK)
    async with opened.history as history:
        yield history


async def finish(history: History, hour: int, verdict: str = "success", unit: str = "shop") -> None:
    at = NOON + hour * HOUR
    reason = "" if verdict == "success" else "source-empty"
    done = RunResult(
        f"{unit}{hour}", unit, verdict, at, at + HOUR / 2, reason, window=1.0, snapshot=f"k{hour}"
    )
    await history.finish(done, trigger="schedule", due=None, data_at=at)


async def accept(history: History, hour: int) -> bool:
    at = NOON + hour * HOUR
    return await history.accept(
        f"shop{hour}", snapshot="new", data_at=at, at=NOON + 9 * HOUR, who="root@here"
    )


async def test_accepted_run_counts_for_freshness_and_keeps_its_verdict(history):
    """The unit is fresh as of its data; what happened is not rewritten."""
    await finish(history, 0)
    await finish(history, 1, "partial")
    assert (await history.units())["shop"].consecutive_failures == 1
    assert await accept(history, 1)
    known = (await history.units())["shop"]
    assert (known.last_success, known.consecutive_failures) == (NOON + HOUR, 0)
    assert known.totals.failures == 1, "a counter never goes down"
    assert (known.last_run.verdict, known.last_run.accepted, known.last_run.good) == (
        *("partial", True),
        True,
    )
    row = (await history.runs())[-1]
    assert (row.verdict, row.accepted, row.snapshot) == ("partial", True, "new")
    assert (row.accepted_at, row.accepted_by) == (NOON + 9 * HOUR, "root@here")
    assert row.data_at == NOON + HOUR


async def test_failure_after_an_accepted_run_counts_from_there(history):
    """What came later is not accepted with it."""
    await finish(history, 0)
    await finish(history, 1, "partial")
    await finish(history, 2, "failed")
    await accept(history, 1)
    known = (await history.units())["shop"]
    assert (known.last_success, known.consecutive_failures) == (NOON + HOUR, 1)
    assert not known.last_run.good


async def test_run_that_is_not_on_record_cannot_be_accepted(history):
    """The caller rebuilds first."""
    assert not await accept(history, 1)


async def test_accepted_point_tells_a_fresh_history_the_same(history):
    """Who and when is unknown there; accepting it again adds that and changes nothing else."""
    point = RebuiltRun(
        "shop1", "shop", NOON + HOUR, "partial", "source-empty", "new", accepted=True
    )
    await history.rebuild([point])
    row = (await history.runs())[0]
    assert (row.verdict, row.reason, row.accepted, row.accepted_at, row.accepted_by) == (
        *("partial", "source-empty", True),
        *(None, ""),
    )
    assert (await history.units())["shop"].last_success == NOON + HOUR
    await accept(history, 1)
    await history.rebuild([point])
    row = (await history.runs())[0]
    assert (row.accepted_at, row.accepted_by) == (NOON + 9 * HOUR, "root@here")


async def test_own_record_learns_of_an_acceptance_from_the_repository(history):
    """Another host, or a command whose disk was full, may have given the word."""
    await finish(history, 1, "partial")
    point = RebuiltRun(
        "shop1", "shop", NOON + HOUR, "partial", "source-empty", "new", accepted=True
    )
    done = await history.rebuild([point])
    assert (done.known, done.differing) == (1, ())
    row = (await history.runs())[0]
    assert (row.accepted, row.snapshot, row.rebuilt) == (True, "new", False)


async def test_file_of_the_version_before_is_brought_up_to_date(tmp_path):
    """Nothing on record is lost, whoever opens it first."""
    for reader in (False, True):
        folder = tmp_path / str(reader)
        folder.mkdir()
        opened = await History.open(folder, clock=CLOCK)
        async with opened.history as history:
            await finish(history, 1, "partial")
        with closing(sqlite3.connect(folder / "history.db")) as connection:
            connection.execute("DROP TABLE accepted")
            connection.execute("PRAGMA user_version = 1")
        if reader:
            async with await History.read_only(folder) as history:
                assert not (await history.runs())[0].accepted
        opened = await History.open(folder, clock=CLOCK)
        assert opened.set_aside is None
        async with opened.history as history:
            assert await accept(history, 1)
            assert (await history.runs())[0].accepted


@pytest.mark.parametrize("damage", ["DROP TABLE phases", "CREATE TABLE accepted (who)"])
async def test_damaged_file_of_the_version_before_is_set_aside(tmp_path, damage):
    """It is not made to look sound."""
    opened = await History.open(tmp_path, clock=CLOCK)
    await opened.history.close()
    with closing(sqlite3.connect(tmp_path / "history.db")) as connection:
        connection.execute("DROP TABLE accepted")
        connection.execute(damage)
        connection.execute("PRAGMA user_version = 1")
    opened = await History.open(tmp_path, clock=CLOCK)
    await opened.history.close()
    assert opened.set_aside is not None


# -- a new name -------------------------------------------------------------------------------


async def adopt(history: History, **ids: str) -> int:
    return await history.adopt("old", "new", snapshots=ids, now=NOON + 20 * HOUR)


async def test_adopted_record_is_that_of_the_new_name(history):
    """Runs, freshness, age, served times, and what is skipped; the old name is forgotten."""
    await history.seen((UnitSeen("old", "project", "0 2 * * *"),), NOON)
    await finish(history, 1, unit="old")
    await finish(history, 2, "partial", unit="old")
    await history.skip("old", NOON + 3 * HOUR, "missed", NOON + 3 * HOUR)
    before = (await history.units())["old"]
    assert await adopt(history, old1="moved") == 2
    known = await history.units()
    assert set(known) == {"new"}
    for name in ("first_seen", "last_success", "consecutive_failures", "totals", "served"):
        assert getattr(known["new"], name) == getattr(before, name), name
    assert known["new"].schedule == "0 2 * * *"
    rows = await history.runs()
    assert {row.unit for row in rows} == {"new"}
    assert [row.snapshot for row in rows] == ["moved", "k2", ""]


async def test_adoption_puts_both_records_in_the_order_of_time(history):
    """The new unit had runs of its own already."""
    await finish(history, 1, unit="old")
    await history.seen((UnitSeen("new", "project", "@hourly"),), NOON + 4 * HOUR)
    await finish(history, 5, "failed", unit="new")
    await adopt(history)
    known = (await history.units())["new"]
    assert (known.first_seen, known.last_success) == (NOON + HOUR, NOON + HOUR)
    assert (known.consecutive_failures, known.schedule) == (1, "@hourly")
    assert known.last_run.run == "new5"


async def test_adopting_again_changes_nothing(history):
    """Whoever died in between does it once more."""
    await finish(history, 1, unit="old")
    await adopt(history)
    before = (await history.units(), await history.runs())
    assert await adopt(history) == 0
    assert (await history.units(), await history.runs()) == before


async def test_former_lives_of_an_adopted_unit_stay_former(history):
    """What was forgotten does not come back as freshness."""
    await finish(history, 1, unit="old")
    await history.forget("old", NOON + 2 * HOUR)
    await history.seen((UnitSeen("old"),), NOON + 3 * HOUR)
    await finish(history, 4, "failed", unit="old")
    before = (await history.units())["old"]
    await adopt(history)
    known = (await history.units())["new"]
    assert (known.last_success, known.totals) == (None, before.totals)
    assert len(await history.runs(unit="new")) == 2


async def test_old_name_that_comes_back_begins_anew(history):
    """A new project may take it."""
    await finish(history, 1, unit="old")
    await adopt(history)
    await history.seen((UnitSeen("old"),), NOON + 30 * HOUR)
    known = (await history.units())["old"]
    assert (known.first_seen, known.last_success) == (NOON + 30 * HOUR, None)


@settings(max_examples=40, deadline=None)
@given(
    olds=st.lists(st.booleans(), max_size=6), news=st.lists(st.booleans(), min_size=1, max_size=6)
)
async def test_adopted_unit_is_as_if_it_had_always_had_its_name(tmp_path_factory, olds, news):
    """Two records that follow each other become the one that a single name would have."""
    records = []
    for split in (True, False):
        folder = tmp_path_factory.mktemp("history")
        opened = await History.open(folder, clock=CLOCK)
        async with opened.history as history:
            for hour, good in enumerate([*olds, *news]):
                unit = "old" if split and hour < len(olds) else "new"
                await finish(history, hour, "success" if good else "failed", unit=unit)
            if split:
                await adopt(history)
            records.append((await history.units())["new"])
    one, other = records
    for name in ("first_seen", "last_success", "consecutive_failures", "totals"):
        assert getattr(one, name) == getattr(other, name), name
