"""The board: everything as it is now, with a living daemon and without one."""

from __future__ import annotations

from datetime import timedelta

import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync as in_thread
from support.desk_world import DeskWorld, desk_world
from support.manual_clock import NOON
from unit.units.build import container, volume

from kopiwatch.backup.result import RunResult
from kopiwatch.daemon.boards import make_board
from kopiwatch.daemon.offline import offline_board
from kopiwatch.daemon.planner import Planner
from kopiwatch.daemon.probe import Holdings
from kopiwatch.daemon.sight import seen_of
from kopiwatch.errors import EngineUnreachable
from kopiwatch.kopia.lock import FileLock
from kopiwatch.report.board import Board, Queued, UnitBoard
from kopiwatch.units.group import Discovery, discover
from kopiwatch.watch.facts import WatchFacts
from kopiwatch.watch.queue import Ask
from kopiwatch.wiring.attempt import Order

pytestmark = pytest.mark.anyio
HOUR = timedelta(hours=1)


class Here:
    """A desk, its planner, and what they show."""

    def __init__(self, world: DeskWorld) -> None:
        self.world, self.desk = world, world.desk
        self.planner = Planner(world.desk)
        self.facts = WatchFacts()

    async def see(self, *names: str) -> None:
        """Units have containers, which run every hour."""
        labels = {"schedule": "@hourly"}
        self.desk.found = discover([container(n, volume(f"v-{n}"), labels=labels) for n in names])
        await self.desk.ledger.seen([seen_of(unit, None) for unit in self.desk.found.units])

    @property
    def board(self) -> Board:
        return make_board(self.desk, self.facts, self.planner)

    def unit(self, name: str = "shop") -> UnitBoard:
        (found,) = [unit for unit in self.board.units if unit.unit == name]
        return found

    async def offline(self) -> Board:
        return await offline_board(self.world.config, self.world.time.clock)


@pytest.fixture
async def here(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as world:
        yield Here(world)


def ended(verdict: str = "success") -> RunResult:
    return RunResult(
        run="r1", unit="shop", verdict=verdict, began=NOON, ended=NOON + HOUR, data_at=NOON
    )


# -- with a daemon -----------------------------------------------------------------------------


async def test_no_unit_is_shown_before_the_first_list(here):
    """Nobody knows yet who is gone: all of them would alarm."""
    await here.see("shop")
    here.desk.found = None
    assert (here.board.units, here.board.ready) == ((), False)


async def test_units_are_those_that_are_there_and_those_that_are_remembered(here):
    """By name; who is gone is missing, with the deadline that it had."""
    await here.see("shop", "alone")
    await here.planner.tick()
    deadline = here.unit("alone").deadline
    await here.see("shop")
    assert [unit.unit for unit in here.board.units] == ["alone", "shop"]
    gone = here.unit("alone")
    assert (gone.state, gone.present, gone.next_run) == ("missing", False, None)
    assert gone.deadline == deadline is not None


async def test_next_run_is_what_the_planner_waits_for(here):
    """Until it is due; then it is the due time, as long as it waits."""
    await here.see("shop")
    await here.planner.tick()
    assert (here.unit().next_run, here.unit().queued) == (NOON + HOUR, False)
    here.world.time.passed = 3600
    await here.planner.tick()
    assert (here.unit().next_run, here.unit().queued) == (NOON + HOUR, True)
    (queued,) = here.board.queue
    assert (queued.unit, queued.due, queued.trigger) == ("shop", NOON + HOUR, "schedule")


async def test_queue_is_shown_in_the_order_in_which_it_is_taken(here):
    """By priority, then by due time."""
    for name, priority in (("b", 100), ("a", 100), ("c", 1)):
        here.desk.queue.add(Ask(name, NOON, NOON, "schedule", priority))
    assert [queued.unit for queued in here.board.queue] == ["c", "a", "b"]


async def test_run_that_waits_for_the_run_lock_is_still_queued(here):
    """It was taken and has not begun: whoever holds the lock for hours must not hide it."""
    await here.see("shop", "alone")
    here.desk.running = Queued("shop", NOON, NOON - HOUR, "schedule")
    here.desk.queue.add(Ask("alone", NOON, NOON))
    assert [queued.unit for queued in here.board.queue] == ["shop", "alone"]
    assert (here.unit().queued, here.board.queue[0].since) == (True, NOON - HOUR)
    await here.desk.ledger.begin("r1", Order("shop"), NOON)
    assert [queued.unit for queued in here.board.queue] == ["alone"]
    assert not here.unit().queued


async def test_run_is_shown_as_running_only_while_somebody_holds_the_lock(here):
    """A record of a run that died is no run."""
    await here.see("shop")
    await here.desk.ledger.begin("r1", Order("shop"), NOON)
    assert here.unit().running == ""
    here.desk.lock_held = True
    assert (here.unit().running, here.unit().running_since) == ("r1", NOON)


async def test_points_are_unknown_until_the_repository_was_asked(here):
    """None is not zero."""
    await here.see("shop", "alone")
    assert here.unit().points is None
    here.desk.holdings = {"shop": Holdings(3, NOON)}
    assert (here.unit().points, here.unit().oldest_point) == (3, NOON)
    assert (here.unit("alone").points, here.unit("alone").oldest_point) == (0, None)


async def test_first_success_is_the_oldest_point_at_once(here):
    """Before the next probe counts anew; one that is not first leaves the oldest alone."""
    await here.see("shop")
    here.desk.holdings = {}
    here.desk.more_points(ended())
    assert (here.unit().points, here.unit().oldest_point) == (1, NOON)
    here.desk.more_points(msgspec.structs.replace(ended(), data_at=NOON + HOUR))
    assert (here.unit().points, here.unit().oldest_point) == (2, NOON)


async def test_what_is_down_because_of_us_is_shown_with_its_unit(here):
    """As the executor counted it."""
    await here.see("shop")
    here.desk.left_stopped = {"shop": ("db", "web")}
    assert here.unit().left_stopped == ("db", "web")


async def test_troubles_and_counts_are_on_the_board(here):
    """Each as the desk knows it at this moment."""
    here.desk.config_error = "a key is wrong"
    here.desk.recoveries = 2
    here.desk.observe(msgspec.structs.replace(ended("skipped"), reason="gone"))
    here.desk.observe(ended("failed"))
    for _ in range(3):
        here.desk.breaker.failed()
    here.facts = WatchFacts(trouble="Docker does not answer")
    board = here.board
    assert (board.config_error, board.recoveries) == ("a key is wrong", 2)
    assert (board.skipped, board.failures) == ({"gone": 1}, {"check": 1})
    assert board.repository.breaker
    assert (board.watcher.connected, board.watcher.trouble) == (False, "Docker does not answer")


# -- without one -------------------------------------------------------------------------------


async def test_board_without_a_daemon_shows_history_journal_and_list(here):
    """What is there, how its last run went, and who is down."""
    await here.desk.ledger.finish(ended(), Order("shop"))
    await here.world.crash(here.world.db)
    board = await here.offline()
    (shop,) = board.units
    assert (board.ready, board.lock_held, board.history_error) == (True, False, "")
    assert (shop.state, shop.last_success, shop.left_stopped) == ("scheduled", NOON, ("db",))
    assert shop.last_run.verdict == "success"


async def test_board_without_a_daemon_shows_a_living_run_and_calls_nobody_down(here):
    """Whoever holds the lock brings back what it stopped."""
    await here.desk.ledger.begin("r1", Order("shop"), NOON)
    await here.world.crash(here.world.db)
    (shop,) = (await here.offline()).units
    assert (shop.running, shop.left_stopped) == ("", ("db",))
    async with FileLock(here.world.state.run_lock).hold():
        board = await here.offline()
    (shop,) = board.units
    assert board.lock_held
    assert (shop.running, shop.running_since, shop.left_stopped) == ("r1", NOON, ())


async def test_board_without_docker_calls_nobody_missing(here):
    """A failed list is not an empty one; why it failed is said."""
    await here.see("shop")
    here.world.docker_away = EngineUnreachable("Docker does not answer")
    board = await here.offline()
    (shop,) = board.units
    assert (board.ready, board.watcher.trouble) == (False, "Docker does not answer")
    assert (shop.state, shop.present) == ("scheduled", True)


async def test_board_without_a_history_shows_the_list_and_says_so(here):
    """A damaged file hides no unit."""
    await here.desk.ledger.close()
    await anyio.Path(here.world.state.path / "history.db").write_bytes(b"no database" * 100)
    board = await here.offline()
    assert [unit.unit for unit in board.units] == ["shop"]
    assert board.history_error


async def test_board_without_a_daemon_changes_nothing(here):
    """It only reads: no lock, no start, no file."""
    await here.world.crash(here.world.db)
    before = await in_thread(_files, here.world.state.path)
    await here.offline()
    assert await in_thread(_files, here.world.state.path) == before
    assert here.world.engine.order("start", "stop", "worker") == []


def _files(folder) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*")}


async def test_empty_list_without_a_daemon_is_an_empty_board(here):
    """Nothing labelled, nothing remembered."""
    here.world.engine.remove(here.world.db)
    here.world.engine.remove(here.world.web)
    board = await here.offline()
    assert (board.units, board.ready) == ((), True)
    assert here.desk.found in (None, Discovery())
