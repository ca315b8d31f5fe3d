"""What is known of units, with a disk that works and one that does not."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
from support.run_world import FakeClock, Said

from kopiwatch.backup.result import RunResult
from kopiwatch.daemon.ledger import Ledger
from kopiwatch.errors import HistoryError
from kopiwatch.report.history import History
from kopiwatch.report.history_record import UnitSeen
from kopiwatch.wiring.attempt import Order

pytestmark = pytest.mark.anyio
DUE = datetime(2026, 1, 2, 2, tzinfo=UTC)


def ended(verdict: str, run: str = "r1", *, window: float = 1.5) -> RunResult:
    return RunResult(
        run=run,
        unit="shop",
        verdict=verdict,
        began=DUE,
        ended=DUE + timedelta(seconds=9),
        reason="" if verdict == "success" else "read",
        window=window,
        data_at=DUE,
    )


class Disk:
    """A history whose disk can be full."""

    def __init__(self, history: History) -> None:
        self._history = history
        self.full = False

    def __getattr__(self, name: str):
        found = getattr(self._history, name)

        async def guarded(*args: object, **more: object):
            if self.full:
                raise HistoryError("no space left")
            return await found(*args, **more)

        return guarded


@pytest.fixture
async def disk(tmp_path):
    opened = await History.open(tmp_path, clock=FakeClock().clock)
    yield Disk(opened.history)
    await opened.history.close()


def ledger_on(disk: Disk) -> Ledger:
    return Ledger(disk, Path(), Said(), FakeClock().clock, lambda: None)


async def both(ledger: Ledger, disk: Disk):
    """What memory says and what a new life would read."""
    stored = await disk._history.units()
    return ledger.records, stored


async def test_memory_and_history_tell_the_same_of_a_success(disk):
    """A life after this one knows what this one knew."""
    ledger = ledger_on(disk)
    await ledger.seen([UnitSeen("shop", "project", "0 2 * * *", "UTC")])
    order = Order("shop", "schedule", DUE)
    await ledger.begin("r1", order, DUE)
    assert ledger.records["shop"].running == "r1"
    await ledger.finish(ended("success"), order)
    memory, stored = await both(ledger, disk)
    assert memory == stored
    shop = memory["shop"]
    assert (shop.served, shop.last_success, shop.consecutive_failures) == (DUE, DUE, 0)
    assert (shop.totals.runs, shop.totals.failures, shop.totals.downtime) == (1, 0, 1.5)


async def test_memory_and_history_tell_the_same_of_failures(disk):
    """Failures in a row are counted, and the last success stays what it was."""
    ledger = ledger_on(disk)
    for number, verdict in enumerate(["success", "failed", "partial", "skipped"]):
        order = Order("shop", "schedule", DUE + timedelta(days=number))
        if verdict != "skipped":
            await ledger.begin(f"r{number}", order, DUE)
        await ledger.finish(ended(verdict, f"r{number}"), order)
    memory, stored = await both(ledger, disk)
    assert memory == stored
    shop = memory["shop"]
    assert (shop.consecutive_failures, shop.last_success, shop.totals.failures) == (2, DUE, 2)
    assert shop.served == DUE + timedelta(days=2), "what was skipped is not served"


async def test_full_disk_stops_nothing_and_is_made_good_in_order(disk):
    """The due time counts as served at once; the disk hears of it when it takes it."""
    ledger = ledger_on(disk)
    await ledger.seen([UnitSeen("shop")])
    disk.full = True
    order = Order("shop", "schedule", DUE)
    await ledger.begin("r1", order, DUE)
    await ledger.finish(ended("failed"), order)
    await ledger.skip("shop", DUE + timedelta(days=1), "missed")
    assert ledger.records["shop"].served == DUE + timedelta(days=1)
    assert (ledger.trouble, ledger.failures) == ("no space left", 3)
    assert not await ledger.refresh(), "memory knows better than the disk"
    disk.full = False
    await ledger.refresh()
    assert ledger.trouble == ""
    memory, stored = await both(ledger, disk)
    assert memory == stored


async def test_full_disk_is_said_once_and_its_end_too(disk):
    """One line when it begins, one when it ends."""
    said = Said()
    ledger = Ledger(disk, Path(), said, FakeClock().clock, lambda: None)
    disk.full = True
    await ledger.seen([UnitSeen("shop")])
    await ledger.gone(["shop"])
    disk.full = False
    await ledger.refresh()
    assert [action for action, _ in said.events] == ["history", "history"]


async def test_what_another_process_wrote_is_seen(disk, tmp_path):
    """A one-off backup of another process counts."""
    ledger = ledger_on(disk)
    await ledger.refresh()
    other = await History.open(tmp_path, clock=FakeClock().clock)
    await other.history.finish(ended("success"), trigger="command", due=None, data_at=DUE)
    await other.history.close()
    assert await ledger.refresh()
    assert ledger.records["shop"].last_success == DUE
    assert not await ledger.refresh()


async def test_forgotten_unit_is_gone_at_once(disk):
    """From memory and from what a new life reads."""
    ledger = ledger_on(disk)
    await ledger.seen([UnitSeen("shop")])
    await ledger.forget("shop")
    assert await both(ledger, disk) == ({}, {})


async def test_replaced_file_is_opened_again_and_nothing_is_lost(tmp_path):
    """What was written while it was gone is in the new file, and the repository is asked."""
    opened = await History.open(tmp_path, clock=FakeClock().clock)
    ledger = Ledger(opened.history, tmp_path, Said(), FakeClock().clock, lambda: None)
    (tmp_path / "history.db").unlink()
    await ledger.seen([UnitSeen("shop", "project")])
    assert ledger.trouble
    await ledger.refresh()
    assert (ledger.trouble, ledger.poor) == ("", True)
    await ledger.close()
    again = await History.read_only(tmp_path)
    assert list(await again.units()) == ["shop"]
    await again.close()


async def test_read_never_overwrites_what_changed_meanwhile(disk):
    """A list that arrives while the history is read is newer than what is read."""
    ledger = ledger_on(disk)
    units = [UnitSeen(f"u{number}") for number in range(30)]
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(ledger.interrupted)
        tasks.start_soon(ledger.seen, units)
        tasks.start_soon(ledger.reload)
    assert len(ledger.records) == 30


async def test_ledger_learns_of_what_another_process_accepted_or_adopted(disk, tmp_path):
    """Freshness follows the operator's word without a restart."""
    ledger = ledger_on(disk)
    order = Order("shop", "schedule", DUE)
    await ledger.finish(ended("partial"), order)
    await ledger.refresh()
    assert ledger.records["shop"].last_success is None
    other = (await History.open(tmp_path, clock=FakeClock().clock)).history
    try:
        await other.accept("r1", snapshot="k", data_at=DUE, at=DUE, who="root")
        assert await ledger.refresh()
        known = ledger.records["shop"]
        assert (known.last_success, known.consecutive_failures) == (DUE, 0)
        assert known.last_run.good
        await other.adopt("shop", "store", snapshots={}, now=DUE)
        assert await ledger.refresh()
        assert set(ledger.records) == {"store"}
        assert ledger.records["store"].last_success == DUE
    finally:
        await other.close()
