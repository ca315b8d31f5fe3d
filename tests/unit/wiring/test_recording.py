"""The record of one-off runs: in the history if that can be, and never in a backup's way."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from support.run_world import Said

from kopiwatch.backup.result import RunResult
from kopiwatch.errors import EngineUnreachable
from kopiwatch.report.history import History
from kopiwatch.wiring.attempt import Order, Recorder, refuse
from kopiwatch.wiring.recording import recording

pytestmark = pytest.mark.anyio
NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
ORDER = Order("shop")


def success(run: str = "r1") -> RunResult:
    end = NOW + timedelta(seconds=9)
    return RunResult(run=run, unit="shop", verdict="success", began=NOW, ended=end, data_at=NOW)


async def run(recorder: Recorder, name: str = "r1") -> None:
    """One run from its beginning to its end."""
    await recorder.begin(name, ORDER, NOW)
    await recorder.finish(success(name), ORDER)


async def recorded(folder):
    """What a later process reads of the unit."""
    history = await History.read_only(folder)
    units = await history.units()
    await history.close()
    return units.get("shop")


async def test_run_is_on_record_for_the_next_process(tmp_path):
    """With its verdict, and as a restore point's time."""
    async with recording(tmp_path, Said()) as recorder:
        await run(recorder)
    shop = await recorded(tmp_path)
    assert (shop.last_success, shop.totals.runs, shop.running) == (NOW, 1, "")


async def test_run_that_died_is_closed_by_the_next_one(tmp_path):
    """Whoever holds the run lock knows that nothing else runs."""
    async with recording(tmp_path, Said()) as recorder:
        await recorder.begin("r1", ORDER, NOW)
    assert (await recorded(tmp_path)).running == "r1"
    async with recording(tmp_path, Said()):
        pass
    shop = await recorded(tmp_path)
    assert (shop.running, shop.last_run.reason) == ("", "interrupted")


async def test_damaged_history_is_kept_aside_and_said(tmp_path):
    """With the way to get back what the repository knows; the run is in the new one."""
    await anyio.Path(tmp_path / "history.db").write_bytes(b"no database" * 1000)
    said = Said()
    async with recording(tmp_path, said) as recorder:
        await run(recorder)
    ((action, message),) = said.events
    assert action == "history"
    assert "history.db.corrupt-" in message
    assert "--rebuild" in message
    assert (await recorded(tmp_path)).totals.runs == 1


async def test_history_that_cannot_be_opened_is_said_once_and_in_nobodys_way(tmp_path):
    """Backups go on without it."""
    await anyio.Path(tmp_path / "history.db").mkdir()
    said = Said()
    async with recording(tmp_path, said) as recorder:
        await run(recorder)
        await run(recorder, "r2")
    assert [action for action, _ in said.events] == ["history"]
    assert said.events[0][1].startswith("not on record: ")


async def test_history_that_vanishes_while_it_runs_is_said_once(tmp_path):
    """Somebody removed the file; the backup ends as it would."""
    said = Said()
    async with recording(tmp_path, said) as recorder:
        await recorder.begin("r1", ORDER, NOW)
        await anyio.Path(tmp_path / "history.db").unlink()
        await recorder.finish(success(), ORDER)
        await run(recorder, "r2")
    assert [action for action, _ in said.events] == ["history"]


async def test_refusal_is_on_record_and_only_a_failure_begins_a_run(tmp_path):
    """One that was skipped served no due time and counts for nobody."""
    error = EngineUnreachable("Docker does not answer", hint="start it")
    order = Order("shop", "schedule", NOW)
    async with recording(tmp_path, Said()) as recorder:
        skipped = await refuse(order, error, recorder, NOW, verdict="skipped")
    assert (skipped.reason, skipped.hint, skipped.exit_code) == (
        "engine-unreachable",
        "start it",
        5,
    )
    shop = await recorded(tmp_path)
    assert shop is None or (shop.served, shop.totals.runs) == (None, 0)
    async with recording(tmp_path, Said()) as recorder:
        await refuse(order, error, recorder, NOW, verdict="failed")
    shop = await recorded(tmp_path)
    assert (shop.served, shop.consecutive_failures) == (NOW, 1)
