"""The loop that works, on Docker and Kopia in memory: what it does, in which order, and never."""

from __future__ import annotations

import anyio
import pytest
from support.desk_world import FINAL_SECONDS, DeskWorld, desk_world

from kopiwatch.daemon.job import Complete, Ended, Said
from kopiwatch.errors import (
    EngineDenied,
    EngineError,
    EngineUnreachable,
    ImageMissing,
    RepositoryUnreachable,
)
from kopiwatch.kopia.lock import FileLock
from kopiwatch.testing.engine import ANY
from kopiwatch.wiring.attempt import Order

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]
UP = ["running", "running"]
SUCCESS = ("shop", "success", "")


@pytest.fixture
async def world(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as made:
        yield made


def started(world: DeskWorld) -> list[str]:
    return world.engine.order("start")


# -- an earlier life ---------------------------------------------------------------------------


async def test_start_brings_back_before_anything_else(world):
    """Who was left down runs before the history is corrected and before the first run."""
    await world.desk.ledger.begin("r0", Order("shop"), world.time.now())
    await world.crash(world.db, world.web)
    seen = []
    ledger, desk = world.desk.ledger, world.desk
    world.engine.hook(
        "start", "db", lambda: seen.append((desk.settled, ledger.records["shop"].running))
    )
    world.ask()
    async with world.working():
        assert world.engine.order("start", "worker")[:2] == ["start db", "start web"]
        assert seen[0] == (False, "r0")
        assert world.desk.settled
        assert world.desk.recoveries == 2
        assert world.verdicts == [SUCCESS]


async def test_start_closes_runs_that_were_interrupted(world):
    """Nothing runs when nothing runs: the history says so, too."""
    await world.desk.ledger.begin("r0", Order("shop"), world.time.now())
    async with world.working():
        shop = world.desk.ledger.records["shop"]
        assert (shop.running, shop.last_run.verdict) == ("", "failed")


async def test_start_waits_for_docker_and_begins_nothing_before(world):
    """It tries every five seconds and leaves the word about Docker to the watcher."""
    await world.crash(world.db)
    world.docker_away = EngineUnreachable("Docker does not answer")
    world.ask()
    async with world.working():
        for _ in range(3):
            assert world.time.slept[-1] == 5.0
            await world.later(5)
        assert not world.desk.settled
        assert world.desk.left_stopped == {"shop": ("db",)}
        assert (world.said.events, world.waiting) == ([], [("shop", "schedule")])
        world.docker_away = None
        await world.later(5)
        assert world.states == UP
        assert world.desk.left_stopped == {}
        assert world.verdicts == [SUCCESS]


async def test_start_that_docker_refuses_is_said_once(world):
    """A socket proxy that denies the list is no silence, and no line every five seconds."""
    world.docker_away = EngineDenied("the proxy refuses the list")
    async with world.working():
        await world.later(5)
        await world.later(5)
        assert world.said.of("replay") == ["the proxy refuses the list"]


# -- the order of work -------------------------------------------------------------------------


async def test_runs_come_one_at_a_time_by_priority(world):
    """The lower number first; a worker never meets another one."""
    workers = []
    for name, priority in (("low", 200), ("high", 1), ("usual", 100)):
        world.stand_alone(name)
        world.ask(name, priority=priority)
    world.engine.hook("worker", ANY, lambda: workers.append(len(world.engine.running_workers)))
    async with world.working():
        assert [unit for unit, _, _ in world.verdicts] == ["high", "usual", "low"]
        assert workers == [0, 0, 0]


async def test_follower_of_a_job_hears_the_run_and_its_end(world):
    """Phases as they come, then the result, then that it was all."""
    job = world.desk.jobs.add(["shop"])
    async with world.working(), job.follow() as news:
        await world.back_up(trigger="command")
        with anyio.fail_after(FINAL_SECONDS):
            heard = [each async for each in news]
    phases = [each.message for each in heard if isinstance(each, Said) and each.action == "phase"]
    assert phases[:3] == ["check", "ready", "stop"]
    assert [each.result.verdict for each in heard if isinstance(each, Ended)] == ["success"]
    assert heard[-1] == Complete()
    assert not world.desk.jobs


async def test_unit_that_is_asked_for_while_it_runs_runs_once_more(world):
    """Whoever asked meanwhile wants data of that moment; twice is not asked for."""
    world.hangs("go")
    early = world.desk.jobs.add(["shop"])
    async with world.working():
        world.ask(trigger="command")
        world.desk.work.ring()
        await world.until(lambda: "go" in world.program.steps)
        late = world.desk.jobs.add(["shop"])
        world.ask(trigger="command")
        world.ask()
        world.goes_on("go")
        await world.rest()
        assert world.verdicts == [SUCCESS, SUCCESS]
        assert early.results[0].run != late.results[0].run


async def test_nothing_begins_while_docker_is_away(world):
    """What is due waits; it is run when the events flow again."""
    world.desk.connected = False
    async with world.working():
        await world.back_up()
        assert (world.verdicts, world.waiting) == ([], [("shop", "schedule")])
        world.desk.connected = True
        await world.rest()
        assert world.verdicts == [SUCCESS]


async def test_leaving_ends_the_loop(world):
    """It returns by itself, and there is nothing left to be cut short."""
    with anyio.fail_after(FINAL_SECONDS):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(world.executor.run)
            await world.rest()
            world.desk.stopping = True
            world.desk.work.ring()
    assert world.executor.scope is None


# -- failures ----------------------------------------------------------------------------------


async def test_failure_before_the_window_is_tried_once_more(world):
    """After five minutes; a second failure waits for the schedule."""
    world.engine.fail("image_id", ANY, ImageMissing("there is no image"), times=2)
    async with world.working():
        await world.back_up()
        assert world.verdicts == [("shop", "failed", "image-missing")]
        assert world.waiting == [("shop", "retry")]
        await world.later(299)
        assert len(world.verdicts) == 1
        await world.later(1)
        assert world.verdicts[1:] == [("shop", "failed", "image-missing")]
        assert world.waiting == []
        assert world.desk.failures == {"check": 2}


async def test_failure_of_a_command_is_not_tried_again(world):
    """Somebody saw it fail."""
    world.engine.fail("image_id", ANY, ImageMissing("there is no image"))
    async with world.working():
        await world.back_up(trigger="command")
        assert (len(world.verdicts), world.waiting) == (1, [])


@pytest.mark.parametrize("step", ["go", "flush"])
async def test_failure_in_or_after_the_window_is_not_tried_again(world, step):
    """Another try would be another downtime."""
    world.program.exits(step, errors="ERROR no such thing")
    async with world.working():
        await world.back_up()
        assert [verdict for _, verdict, _ in world.verdicts] == ["failed"]
        assert world.waiting == []
        assert world.states == UP


async def test_three_failures_for_the_repository_hold_the_next_run(world):
    """It waits, and is run once the repository answers."""
    error = RepositoryUnreachable("the disk does not answer")
    world.repository.fail("check_policy", error, times=3)
    for number in range(4):
        world.stand_alone(f"u{number}")
        world.ask(f"u{number}", "command")
    async with world.working():
        assert [reason for _, _, reason in world.verdicts] == ["repository-unreachable"] * 3
        assert world.waiting == [("u3", "command")]
        assert world.desk.held == "the repository does not answer"
        await world.later(60)
        assert world.verdicts[3:] == [("u3", "success", "")]
        assert world.desk.held == ""


async def test_repository_that_can_only_be_read_holds_runs_all_the_same(world):
    """Each probe between the failures is answered; the fourth run is one on trial."""
    error = RepositoryUnreachable("the disk takes nothing")
    world.repository.fail("check_policy", error, times=4)
    async with world.working():
        for _ in range(3):
            assert world.desk.held == ""
            await world.back_up(trigger="command")
        assert world.desk.held
        await world.back_up(trigger="command")
        assert len(world.verdicts) == 3
        await world.later(60)
        assert len(world.verdicts) == 4
        assert world.desk.held
        await world.back_up(trigger="command")
        await world.later(600)
        assert world.verdicts[4:] == [SUCCESS]
        assert world.desk.held == ""


async def test_probe_that_fails_keeps_the_breaker_open(world):
    """Only a probe goes to a repository that does not answer."""
    async with world.working():
        world.repository.place.there = False
        for number in range(4):
            world.stand_alone(f"u{number}")
            world.ask(f"u{number}", "command")
        await world.rest()
        await world.later(3600)
        assert len(world.verdicts) == 3
        assert world.waiting == [("u3", "command")]
        world.repository.place.there = True
        await world.later(3600)
        assert world.verdicts[3:] == [("u3", "success", "")]


async def test_command_hastens_the_probe_of_an_open_breaker(world):
    """Whoever asks by hand does not wait for a pause that was made for the night."""
    error = RepositoryUnreachable("the disk does not answer")
    world.repository.fail("check_policy", error, times=3)
    async with world.working():
        for _ in range(3):
            await world.back_up(trigger="command")
        assert world.desk.held
        world.ask("shop", "command")
        world.executor.hasten()
        await world.later(1)
        assert world.verdicts[3:] == [SUCCESS]


async def test_failure_before_the_repository_was_asked_proves_nothing_of_it(world):
    """Two failures of the repository, one of a sick unit; the next of the former opens it."""
    error = RepositoryUnreachable("the disk does not answer")
    async with world.working():
        for sick in (False, False, True, False):
            if sick:
                world.engine.fail("image_id", ANY, ImageMissing("there is no image"))
            else:
                world.repository.fail("check_policy", error)
            assert world.desk.held == ""
            await world.back_up(trigger="command")
        assert world.desk.held


async def test_failures_for_other_reasons_never_hold_runs(world):
    """What is wrong with a unit is no fault of the repository."""
    world.engine.fail("image_id", ANY, ImageMissing("there is no image"), times=4)
    async with world.working():
        for _ in range(4):
            await world.back_up(trigger="command")
        assert len(world.verdicts) == 4
        assert world.desk.held == ""


# -- skipped -----------------------------------------------------------------------------------


async def test_run_without_docker_is_asked_again_and_counts_for_nobody(world):
    """After a minute, and the unit has no failure of it."""
    async with world.working():
        world.docker_away = EngineUnreachable("Docker does not answer")
        await world.back_up()
        assert world.verdicts == [("shop", "skipped", "engine-unreachable")]
        assert world.desk.skipped == {"engine-unreachable": 1}
        assert world.desk.failures == {}
        assert world.desk.ledger.records["shop"].consecutive_failures == 0
        world.docker_away = None
        await world.later(59)
        assert len(world.verdicts) == 1
        await world.later(1)
        assert world.verdicts[1:] == [SUCCESS]


async def test_command_without_docker_ends(world):
    """Whoever followed it has seen it end; nobody is stopped for it later."""
    job = world.desk.jobs.add(["shop"])
    async with world.working():
        world.docker_away = EngineUnreachable("Docker does not answer")
        await world.back_up(trigger="command")
        assert [result.reason for result in job.results] == ["engine-unreachable"]
        world.docker_away = None
        await world.later(3600)
        assert len(world.verdicts) == 1


@pytest.mark.parametrize("unit", ["shop", "late"])
async def test_skipped_command_leaves_the_due_time_that_it_served_as_well(world, unit):
    """The command ends; what the schedule wanted is asked again."""
    async with world.working():
        if unit == "shop":
            world.docker_away = EngineUnreachable("Docker does not answer")
        world.ask(unit, "schedule")
        await world.back_up(unit, "command")
        assert world.waiting == [(unit, "schedule")]


async def test_run_without_docker_is_still_owed_by_the_next_life(world):
    """A due time that was skipped is not served, neither here nor on the disk."""
    async with world.working():
        world.docker_away = EngineUnreachable("Docker does not answer")
        await world.back_up()
        ledger = world.desk.ledger
        assert ledger.records["shop"].served is None
        await ledger.reload()
        assert "shop" not in ledger.records or ledger.records["shop"].served is None


async def test_unit_with_broken_labels_is_skipped_and_not_asked_again(world):
    """Only a person can mend it; the follower has the exit code of bad labels."""
    world.engine.all[world.db].row.labels["kopi.mode"] = "stopp"
    job = world.desk.jobs.add(["shop"])
    async with world.working():
        await world.back_up(trigger="command")
        (result,) = job.results
        assert (result.verdict, result.reason, result.exit_code) == ("skipped", "labels", 3)
        assert "kopi.mode" in result.message
        assert (world.waiting, world.engine.order("stop")) == ([], [])


async def test_unit_that_is_gone_is_asked_again_soon(world):
    """Perhaps it is being recreated; the planner is told to look."""
    async with world.working():
        await world.desk.plan.wait(0)
        await world.back_up("late")
        assert world.verdicts == [("late", "skipped", "gone")]
        assert await world.desk.plan.wait(0)
        world.stand_alone("late")
        await world.later(14)
        assert len(world.verdicts) == 1
        await world.later(1)
        assert world.verdicts[1:] == [("late", "success", "")]
        assert world.desk.failures == {}


async def test_command_for_a_unit_that_is_gone_ends(world):
    """Whoever follows hears it; nothing is queued for a unit that nobody has."""
    job = world.desk.jobs.add(["late"])
    async with world.working():
        await world.back_up("late", "command")
        assert [result.reason for result in job.results] == ["gone"]
        assert world.waiting == []


# -- what goes wrong around a run --------------------------------------------------------------


async def test_replay_that_fails_fails_the_run_and_not_the_loop(world):
    """Nobody is stopped while an earlier run's workers may be alive."""
    async with world.working():
        world.engine.fail("workers", ANY, EngineError("the list of workers cannot be read"))
        await world.back_up(trigger="command")
        assert world.verdicts == [("shop", "failed", "engine-error")]
        assert world.engine.order("stop") == []
        await world.back_up(trigger="command")
        assert world.verdicts[1:] == [SUCCESS]


async def test_history_that_takes_nothing_does_not_touch_the_run(world):
    """Its phases cannot be written; it is a success all the same, and the next one, too."""
    async with world.working():
        world.engine.hook("stop", "web", anyio.Path(world.state.path / "history.db").unlink)
        await world.back_up()
        assert world.verdicts == [SUCCESS]
        assert world.said.of("history")
        world.engine.hook("stop", "web", lambda: None)
        await world.back_up()
        assert world.verdicts == [SUCCESS, SUCCESS]
        assert world.desk.ledger.records["shop"].totals.runs == 2


async def test_journals_that_cannot_be_read_do_not_end_the_loop(world):
    """The run fails before anybody is stopped; it is said once, and what is down stays shown."""
    folder = anyio.Path(world.state.journals.folder)
    async with world.working():
        world.desk.left_stopped = {"shop": ("db",)}
        await folder.rmdir()
        await folder.write_text("")
        await world.back_up(trigger="command")
        await world.later(30)
        assert world.verdicts == [("shop", "failed", "config-error")]
        assert world.engine.order("stop") == []
        assert len(world.said.of("journal")) == 1
        assert world.desk.left_stopped == {"shop": ("db",)}
        await folder.unlink()
        await world.later(60)
        assert world.said.of("journal")[1:] == ["the journals can be read again"]
        assert world.desk.left_stopped == {}
        await world.back_up(trigger="command")
        assert world.verdicts[1:] == [SUCCESS]


async def test_run_that_is_cut_short_brings_its_members_back(world):
    """It is recorded as cancelled, its follower hears it, and the loop goes on."""
    world.hangs("go")
    job = world.desk.jobs.add(["shop"])
    async with world.working():
        world.ask(trigger="command")
        world.desk.work.ring()
        await world.until(lambda: "go" in world.program.steps)
        assert world.executor.attempt.in_window
        assert world.states == ["exited", "exited"]
        world.executor.scope.cancel()
        await world.rest()
        assert world.states == UP
        assert [(r.verdict, r.reason) for r in job.results] == [("failed", "cancelled")]
        assert world.desk.ledger.records["shop"].last_run.verdict == "failed"
        assert (world.waiting, world.desk.running) == ([], None)
        world.goes_on("go")
        await world.back_up()
        assert world.verdicts[-1] == SUCCESS


async def test_cancelled_run_of_the_schedule_is_not_tried_again(world):
    """Whoever cut it short wants to leave."""
    world.hangs("launch")
    async with world.working():
        world.ask()
        world.desk.work.ring()
        await world.until(lambda: "launch" in world.program.steps)
        world.executor.scope.cancel()
        await world.rest()
        assert world.verdicts == [("shop", "failed", "cancelled")]
        assert world.waiting == []


# -- what is owed ------------------------------------------------------------------------------


async def test_member_that_stays_down_is_shown_and_tried_with_growing_pauses(world):
    """Half a minute, a minute, two, four, eight, and then every ten minutes."""
    world.engine.fail("start", "db", EngineError("port is in use"), times=10**6)
    async with world.working():
        await world.back_up(trigger="command")
        assert world.desk.left_stopped == {"shop": ("db",)}
        for pause in (30, 60, 120, 240, 480, 600, 600):
            before = len(started(world))
            await world.later(pause - 1)
            assert len(started(world)) == before, f"tried before {pause} s"
            await world.later(1)
            assert len(started(world)) > before, f"not tried after {pause} s"


async def test_member_that_can_be_started_at_last_is_off_the_list(world):
    """And counted as brought back; the next debt begins with the short pause again."""
    world.engine.fail("start", "db", EngineError("port is in use"), times=10**6)
    async with world.working():
        await world.back_up(trigger="command")
        world.engine._failures.clear()
        await world.later(30)
        assert world.states == UP
        assert (world.desk.left_stopped, world.desk.recoveries) == ({}, 1)
        starts = len(started(world))
        await world.later(3600)
        assert len(started(world)) == starts


async def test_docker_that_is_back_gets_members_up_at_once(world):
    """A pause that grew while Docker was away keeps nobody down afterwards."""
    world.engine.fail("start", "db", EngineError("no"), times=10**6)
    async with world.working():
        await world.back_up(trigger="command")
        await world.later(3600)
        world.engine._failures.clear()
        world.executor.docker_is_back()
        await world.later(15)
        assert world.states == UP


# -- the run lock ------------------------------------------------------------------------------


async def test_run_waits_for_another_process_and_says_for_whom(world):
    """Nothing is touched meanwhile; how long it took is observed."""
    other = FileLock(world.state.run_lock, command="kopiwatch backup by hand")
    async with world.working():
        await other.acquire()
        world.ask()
        world.desk.work.ring()
        await world.until(lambda: world.said.of("wait"))
        (line,) = world.said.of("wait")
        assert "kopiwatch backup by hand" in line
        assert world.desk.running.unit == "shop"
        assert world.engine.order("stop", "worker") == []
        world.time.passed += 7
        other.release()
        await world.until(lambda: world.verdicts)
        assert world.verdicts == [SUCCESS]
        assert world.desk.lock_wait.total == 7
        assert not world.desk.lock_held


# -- the repository ----------------------------------------------------------------------------


async def test_probe_that_fails_and_then_answers_is_said_twice(world):
    """Shown as down meanwhile; asked again soon; its end is told, too."""
    world.repository.fail("status", RepositoryUnreachable("the disk is not there"), times=2)
    async with world.working():
        shown = world.desk.repository
        assert (shown.up, shown.trouble) == (False, "the disk is not there")
        await world.later(30)
        await world.later(60)
        assert world.desk.repository.up
        assert world.said.of("repository") == [
            "the disk is not there",
            "the repository answers again",
        ]
        assert world.desk.repository_failures == {"probe": 2}


async def test_probe_counts_the_restore_points(world):
    """Those that are complete, and a success is one more at once."""
    async with world.working():
        assert world.desk.holdings == {}
        await world.back_up()
        assert world.desk.holdings["shop"].count == 1
        await world.later(3600)
        assert world.desk.holdings["shop"].count == 1
        assert world.desk.kopia_version == "0.23.1"


async def test_lost_history_is_ready_only_when_the_repository_was_read(tmp_path, monkeypatch):
    """Before that nobody may alarm for backups that are there."""
    async with desk_world(tmp_path, monkeypatch, fresh=True) as world:
        await world.run(run="20260101T000000Z-aaaa")
        world.repository.fail("snapshots", RepositoryUnreachable("the disk is not there"))
        async with world.working():
            assert "the disk is not there" in world.desk.unready
            await world.later(60)
            assert world.desk.seeded
            assert world.desk.ledger.records["shop"].last_success is not None
            assert world.said.of("rebuilt") == ["the history learned of 1 run from the repository"]
