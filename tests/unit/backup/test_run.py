"""A run: the order of its phases, what it undoes, and what it calls a success."""

from __future__ import annotations

import json
from datetime import timedelta

import anyio
import msgspec
import pytest

from kopiwatch.backup import gate
from kopiwatch.backup.run import Run
from kopiwatch.engine.port import Healthcheck
from kopiwatch.errors import EngineError, RepositoryUnreachable
from kopiwatch.testing.engine import volume_mount
from kopiwatch.units.container import Mount
from kopiwatch.units.group import discover

pytestmark = pytest.mark.anyio

UP = ["running", "running"]


async def test_run_is_a_success_and_owes_nothing(world):
    """All phases in order, every source stored, everybody up, no journal, no worker."""
    result = await world.run()
    assert (result.verdict, result.reason, result.exit_code) == ("success", "", 0)
    assert [p.phase for p in result.phases] == [
        *("check", "ready", "stop", "read", "start", "health", "flush", "verify", "keep", "report")
    ]
    assert [(s.path, s.reason) for s in result.sources] == [
        ("recipe", ""),
        ("volumes/data", ""),
        ("volumes/files", ""),
    ]
    assert world.states == UP
    assert await world.journal() is None
    assert world.engine.running_workers == ()


async def test_run_stops_and_starts_in_dependency_order(world):
    """Dependents stop first and start last."""
    await world.run()
    assert world.engine.order("stop", "start") == ["stop web", "stop db", "start db", "start web"]


async def test_run_has_kopia_at_the_gate_before_the_first_stop(world):
    """Nothing is stopped until Kopia waits, and nothing is read until all are down."""
    seen = {}
    world.engine.hook("stop", "web", lambda: seen.update(stop=list(world.program.steps)))
    world.program.at("go", lambda _: seen.update(go=world.states) and False)
    await world.run()
    assert seen["stop"][-1] == "launch"
    assert seen["go"] == ["exited", "exited"]


async def test_run_writes_only_when_members_run_again(world):
    """Kopia is told to flush after the last start."""
    seen = {}
    world.program.at("flush", lambda _: seen.update(states=world.states) and False)
    await world.run()
    assert seen["states"] == UP


async def test_run_has_its_journal_on_disk_before_the_first_stop(world):
    """It names who will be held down, with their Compose identity and order."""
    seen = {}

    async def look():
        seen["journal"] = await world.journal()

    world.engine.hook("stop", "web", look)
    await world.run()
    held = {member.name: member for member in seen["journal"].members}
    assert set(held) == {"db", "web"}
    assert (held["db"].level, held["web"].level) == (0, 1)
    assert (held["web"].project, held["web"].service, held["web"].number) == ("shop", "web", "1")
    assert seen["journal"].run == "r1"


async def test_journal_knows_that_a_stop_takes_no_time(world):
    """A stop timeout of zero is not the default one: a replay would wait for nothing."""
    seen = {}

    async def look():
        seen.update({m.name: m.stop_timeout for m in (await world.journal()).members})

    world.member("quick", "v", details={"stop_timeout": timedelta(0)})
    world.engine.hook("stop", "quick", look)
    await world.run()
    assert seen == {"db": 10.0, "web": 10.0, "quick": 0.0}


async def test_manifest_of_another_run_is_no_success(world):
    """Kopia's word alone is not enough, also where the tree that it names is there."""
    await world.run()
    (earlier,) = world.repository.contents.snapshots

    def lie(worker):
        line = msgspec.json.encode(earlier).decode()
        worker.say(msgspec.json.encode({"say": "exit", "code": 0, "out": line}))
        return True

    world.program.at("flush", lie)
    result = await world.run(run="r2")
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "no-manifest", "verify")
    assert not world.repository.contents.snapshots[0].quarantine


@pytest.mark.parametrize("days", [-1, 1])
async def test_clock_that_is_set_in_the_window_changes_nothing(world, days):
    """Deadlines and downtime are of another clock, which nobody can set."""

    def jump(_):
        world.time.jumped = timedelta(days=days)
        return False

    world.program.at("go", jump)
    result = await world.run()
    assert (result.verdict, world.states) == ("success", UP)
    assert 0 <= result.window < 60
    assert await world.journal() is None


async def test_run_without_space_kept_for_its_journal_stops_nobody(world, monkeypatch):
    """Later, with members down, would be too late."""

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", no_room)
    result = await world.run()
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "journal", "check")
    assert world.engine.order("stop") == []


async def test_run_without_a_journal_stops_nobody(world):
    """A disk that does not take the journal fails the run before anything is touched."""
    world.state.journals.folder.rmdir()
    world.state.journals.folder.write_text("not a folder")
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "journal")
    assert world.engine.order("stop", "start") == []


async def test_run_leaves_a_stopped_member_stopped(world):
    """Who did not run before does not run afterwards, and its volume is stored."""
    world.engine.set_state(world.web, "exited")
    result = await world.run()
    assert result.verdict == "success"
    assert world.states == ["running", "exited"]
    assert world.engine.order("stop", "start") == ["stop db", "start db"]


async def test_run_stops_nobody_when_nobody_writes(world):
    """All mounts read-only: stored without a window."""
    world.engine.remove(world.db)
    world.engine.remove(world.web)
    mounts = (volume_mount("static", "/data", writable=False),)
    world.engine.add_container("reader", labels={"kopi.enable": "true"}, mounts=mounts)
    result = await world.run("reader")
    assert (result.verdict, result.window) == ("success", 0.0)
    assert world.engine.order("stop", "start") == []
    assert await world.journal("reader") is None


async def test_stop_that_is_refused_starts_whoever_was_stopped(world):
    """The run fails; the first member comes back; Kopia is killed and leaves no manifest."""
    world.engine.fail("stop", "db", EngineError("cannot stop db"))
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "engine-error")
    assert world.states == UP
    assert world.time.passed >= 12, "Docker may still be at that stop: it is watched"
    assert world.program.killed
    assert world.repository.contents.snapshots == []
    assert await world.journal() is None


@pytest.mark.parametrize("step", ["launch", "go"])
async def test_kopia_that_ends_early_fails_the_run_and_members_run(world, step):
    """Before the window nobody is touched; in it they are started; the error is Kopia's."""
    world.program.exits(step, errors="ERROR error: no space left on device")
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "repository-full")
    assert world.states == UP
    assert ("stop db" in world.engine.order("stop")) == (step == "go")
    assert await world.journal() is None


async def test_kopia_is_dead_before_the_first_start(world):
    """After a failed read the kill is confirmed before anybody starts."""
    order = []
    world.program.hangs("go")
    world.engine.hook("start", "db", lambda: order.append(("start", world.program.killed)))
    world.engine.all[world.db].row.labels["kopi.window-timeout"] = "1s"
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "deadline")
    assert order == [("start", True)]
    assert world.states == UP


async def test_worker_that_dies_in_the_window_fails_the_run(world):
    """Its silence is an end, not a wait."""
    world.program.at("go", lambda worker: worker.end() or True)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "worker-lost")
    assert world.states == UP


async def test_kopia_that_fails_to_flush_fails_the_run(world):
    """Members were up already; nothing is called good."""
    world.program.exits("flush", errors="ERROR error: unable to write")
    result = await world.run()
    assert result.verdict == "failed"
    assert world.states == UP
    assert await world.journal() is None


async def test_start_that_fails_once_is_tried_again(world):
    """Giving up would leave it down."""
    world.engine.fail("start", "db", EngineError("port is in use"), times=2)
    result = await world.run()
    assert result.verdict == "success"
    assert world.states == UP


async def test_start_that_keeps_failing_fails_the_run_and_stays_in_the_journal(world):
    """The others start; the data is stored but quarantined; the debt is on record."""
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "start")
    assert "db" in result.message
    assert world.states == ["exited", "running"]
    assert [member.name for member in (await world.journal()).members] == ["db"]
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "start"


async def test_member_that_falls_over_after_its_start_fails_the_run(world):
    """It is looked at again after two seconds."""
    world.program.at("flush", lambda _: world.engine.set_state(world.db, "exited", 1) and False)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "start")
    assert sum(world.time.slept) == pytest.approx(2.0)


async def test_member_that_is_not_healthy_again_fails_the_run(world):
    """It was healthy before, so it must be again, within its time."""
    check = Healthcheck(("true",))
    world.member("sick", "v", healthcheck=check, healthy_after=None)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "health")
    assert "sick" in result.message


async def test_source_that_is_missing_in_the_tree_is_partial_and_quarantined(world):
    """Success means that every expected source is there."""
    world.program.missing.add("volumes/data")
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "source-missing")
    assert "volumes/data" in result.message
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "source-missing"
    assert result.snapshot == snapshot.id


async def test_entries_that_could_not_be_read_fail_the_run(world):
    """Kopia calls such a snapshot complete; we do not."""
    world.program.failed = 2
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "unreadable")


async def test_member_that_somebody_starts_during_the_read_makes_it_partial(world):
    """What was read is not what a stopped application left; it is left running."""
    world.program.at("go", lambda _: world.engine.set_state(world.db, "running") and False)
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "db" in result.message
    assert world.states == UP


async def test_member_that_somebody_removes_is_left_alone(world):
    """Gone is gone; the others run; not everybody runs again, so it is no success."""
    world.program.at("go", lambda _: world.engine.remove(world.db) and False)
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "member-gone")
    assert {m.name: m.state for m in result.members}["db"] == "gone"
    assert world.engine.state(world.web) == "running"
    assert await world.journal() is None


async def test_successor_of_a_recreated_member_is_started(world):
    """The same Compose identity under a new id, not yet running, is ours to start."""

    def recreate(_):
        world.engine.remove(world.db)
        world.new = world.member("db", "data", state="created")
        return False

    world.program.at("go", recreate)
    await world.run()
    assert world.engine.state(world.new) == "running"


async def test_repository_that_is_gone_fails_the_run_before_anything_is_touched(world):
    """No worker, no stop; the exit code is the repository's."""
    world.repository.fail("check_policy", RepositoryUnreachable("the disk is gone"))
    result = await world.run()
    assert (result.verdict, result.reason, result.exit_code) == (
        "failed",
        "repository-unreachable",
        4,
    )
    assert world.engine.order("stop", "start", "worker") == []


async def test_repository_lost_after_the_window_leaves_the_verdict_to_the_journal(world):
    """The members run; the run is not settled, and a later command does it."""
    gone = RepositoryUnreachable("the disk is gone")
    world.repository.fail("outline", gone)
    world.program.at("flush", lambda _: world.repository.fail("snapshots", gone, times=9) and False)
    result = await world.run()
    assert result.verdict == "failed"
    assert any("could not be made durable" in warning for warning in result.warnings)
    journal = await world.journal()
    assert (journal.members, journal.judged) == ((), False)
    assert journal.reason == "repository-unreachable"


async def test_missing_volume_fails_the_run_before_anything_is_touched(world):
    """Docker would create it, empty, and an empty snapshot would look good."""
    del world.engine.volumes["data"]
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "source-missing")
    assert world.engine.order("stop") == []


async def test_container_with_auto_remove_fails_the_run(world):
    """Its stop would remove it."""
    world.member("gone", "v", details={"auto_remove": True})
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "auto-remove")
    assert world.engine.order("stop") == []


@pytest.mark.parametrize("when", ["launch", "go", "flush"])
async def test_cancelled_run_brings_back_and_is_no_restore_point(world, when):
    """Whatever the phase: everybody runs, nothing counts, nothing is owed."""
    with anyio.CancelScope() as scope:

        def cancel(_):
            scope.cancel()
            return when != "flush"

        world.program.at(when, cancel)
        await world.run()
    assert scope.cancelled_caught
    assert world.states == UP
    assert await world.journal() is None
    assert all(s.quarantine == "cancelled" for s in world.repository.contents.snapshots)
    assert world.engine.running_workers == ()


async def test_cancelled_stop_that_docker_finishes_later_is_undone(world):
    """The start found it running; then it fell; it is started again."""
    calls = iter(range(9))

    async def sleep(seconds: float) -> None:
        world.time.passed += seconds
        if next(calls) == 2:
            world.engine.set_state(world.web, "exited")
        await anyio.lowlevel.checkpoint()

    world.time.sleep = sleep
    with anyio.CancelScope() as scope:

        async def slow():
            scope.cancel()
            await anyio.sleep(60)

        world.engine.hook("stop", "web", slow)
        await world.run()
    assert world.states == UP
    assert world.engine.order("stop", "start") == ["stop web", "start web", "start web"]
    assert await world.journal() is None


async def test_member_that_went_down_by_itself_is_not_started(world):
    """Down before our stop came: somebody else's doing, before or after the last look."""
    world.program.at("launch", lambda _: world.engine.set_state(world.web, "exited") and False)
    result = await world.run()
    assert result.verdict == "success"
    assert world.states == ["running", "exited"]
    world.engine.set_state(world.web, "running")
    world.engine.hook("stop", "web", lambda: world.engine.set_state(world.web, "exited"))
    result = await world.run(run="r2")
    assert world.states == ["running", "exited"]
    assert await world.journal() is None


async def test_run_never_writes_over_a_debt(world):
    """A member that an earlier run still owes stays in the journal, and the unit is refused."""
    world.engine.fail("start", "web", EngineError("no network"), times=99)
    await world.run(run="r1")
    owed = await world.journal()
    result = await world.run(run="r2")
    assert (result.verdict, result.reason) == ("failed", "owed")
    assert "web" in result.message
    assert await world.journal() == owed


async def test_dependency_that_is_sick_keeps_nobody_down(world):
    """Waiting for its health is advisory: the dependent starts all the same."""
    check = Healthcheck(("true",))
    world.engine.remove(world.db)
    world.engine.remove(world.web)
    world.db = world.member("db", "data", healthcheck=check, healthy_after=None)
    world.web = world.member("web", "files", depends="db:service_healthy:false")
    result = await world.run()
    assert result.verdict == "failed"
    assert world.states == UP


async def test_health_that_several_wait_for_is_probed_once(world):
    """Each probe takes processor time from those that start; it counts for the verdict, too."""
    world.engine.remove(world.db)
    world.engine.remove(world.web)
    world.db = world.member("db", "data", healthcheck=Healthcheck(("true",)), healthy_after=3)
    world.web = world.member("web", "files", depends="db:service_healthy:false")
    world.member("app", "more", depends="db:service_healthy:false")
    result = await world.run()
    assert result.verdict == "success"
    assert {m.name: m.healthy for m in result.members} == {"db": True, "web": None, "app": None}
    assert len(world.engine.order("exec")) == 3


async def test_member_that_was_down_and_is_started_during_the_read_makes_it_partial(world):
    """It was not held, but it could write."""
    job = world.member("job", "data", state="exited")
    world.program.at("go", lambda _: world.engine.set_state(job, "running") and False)
    result = await world.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "job" in result.message


async def test_foreign_writer_through_a_folder_above_makes_it_partial(world):
    """A bind of /srv writes to what a bind of /srv/www holds."""
    labels = {"kopi.enable": "true", "kopi.binds": "true"}
    bind = Mount("bind", "/data", "/srv/www")
    world.engine.add_container("site", labels=labels, mounts=(bind,))
    world.engine.add_container("editor", mounts=(Mount("bind", "/srv", "/srv"),))
    result = await world.run("site")
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "editor" in result.message
    assert "kopi.unit" in result.hint


async def test_gate_that_somebody_removed_leaves_no_point(world):
    """Kopia stores a complete snapshot of a live unit then: it is quarantined."""

    def ungated(worker):
        world.program._answer(worker, "flush", {"do": "flush"})
        return True

    def launch(worker):
        order = json.loads(worker.orders[-1])
        world.program.argv = order["argv"]
        return ungated(worker)

    world.program.at("launch", launch)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "gate")
    (snapshot,) = world.repository.contents.snapshots
    assert snapshot.quarantine == "gate"
    assert world.engine.order("stop") == []


async def test_kopia_that_left_its_gate_is_noticed_before_anybody_stops(world):
    """Whatever it said since ready: it waits no more."""

    def crash(worker):
        worker.say(b'{"say":"ready"}')
        worker.say(b'{"say":"exit","code":-9,"err":"killed"}')
        return True

    world.program.at("launch", crash)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "gate")
    assert world.engine.order("stop") == []


async def test_container_without_a_stop_timeout_is_refused(world):
    """Docker would wait for its end without end."""
    world.member("endless", "v", details={"stop_timeout": None})
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "endless-stop")
    assert world.engine.order("stop") == []


async def test_lost_worker_is_destroyed_before_anybody_starts(world):
    """Silence is no proof that its Kopia is dead."""
    order = []
    world.program.at("go", lambda worker: worker.end() or True)
    world.engine.hook("remove_worker", "*", lambda: order.append("worker gone"))
    world.engine.hook("start", "db", lambda: order.append("start"))
    await world.run()
    assert order[:2] == ["worker gone", "start"]


async def test_parent_that_is_not_trusted_forces_a_full_read(world):
    """After anything but a success in mode stop, every file is read again."""
    await world.run(run="r1")
    assert "--force-hash=100" not in world.program.argv
    world.program.missing.add("volumes/data")
    await world.run(run="r2")
    world.program.missing.clear()
    await world.run(run="r3")
    assert "--force-hash=100" in world.program.argv
    await world.run(run="r4")
    assert "--force-hash=100" not in world.program.argv


async def test_worker_that_misses_a_source_is_said_before_anything_stops(world):
    """The worker's own look at its tree is the last check."""
    world.program.at(
        "set-up",
        lambda w: (
            w.say(b'{"say":"error","reason":"missing","text":"/mnt/shop/volumes/data"}') or True
        ),
    )
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "worker-missing")
    assert world.engine.order("stop") == []


async def test_recipe_lists_what_the_tree_must_hold(world):
    """And it is private."""
    await world.run()
    path = world.state.recipe("shop") / "unit.json"
    assert b'"volumes/data"' in path.read_bytes()
    assert path.stat().st_mode & 0o077 == 0


async def test_busy_kopia_lock_fails_the_run_with_its_own_code(world):
    """Another Kopia at work is no fault of this unit."""
    world.program.at(
        "set-up", lambda w: w.say(b'{"say":"error","reason":"busy","text":"PID 7"}') or True
    )
    result = await world.run()
    assert (result.exit_code, result.reason) == (75, "busy-error")
    assert "PID 7" in result.message


async def test_member_that_restarts_by_itself_before_its_stop_is_still_ours(world):
    """Since when it ran is taken from its stop: no false interference, and a right journal."""
    seen = {}

    def restart():
        world.engine.set_state(world.db, "exited", 1)
        world.engine.all[world.db].row = msgspec.structs.replace(
            world.engine.all[world.db].row, state="running"
        )
        details = world.engine.all[world.db].details
        later = details.started_at + timedelta(seconds=99)
        world.engine.all[world.db].details = msgspec.structs.replace(
            details, running=True, started_at=later
        )
        seen["later"] = later

    async def look():
        seen["journal"] = await world.journal()

    world.engine.hook("stop", "web", restart)
    world.program.at("go", lambda _: False)
    world.engine.hook("start", "db", look)
    result = await world.run()
    assert (result.verdict, result.reason) == ("success", "")
    held = {member.name: member.started_at for member in seen["journal"].members}
    assert held["db"] == seen["later"]


async def test_signal_after_the_verdict_does_not_change_it(world):
    """A good point stays good."""
    with anyio.CancelScope() as scope:
        house = await world.house()
        rows = await world.engine.containers()
        (unit,) = discover(rows).units
        attempt = Run(house, unit, rows, "r1")
        report = attempt._report

        async def cancelled_report(*given):
            scope.cancel()
            return await report(*given)

        attempt._report = cancelled_report
        await attempt.execute()
    assert attempt.result.verdict == "success"
    assert world.repository.contents.snapshots[0].quarantine == ""
    assert await world.journal() is None


async def test_stop_that_was_cut_off_and_proven_over_is_not_watched(world):
    """A start that Docker carried out shows that the stop had ended."""
    world.engine.fail("stop", "web", EngineError("the answer was lost"), late=True)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "engine-error")
    assert world.states == UP
    assert world.time.slept == []


async def test_kopia_that_hangs_beyond_sigkill_is_said_and_keeps_nobody_down(world):
    """A dead disk holds it in the kernel: the first error counts, the members are back."""

    def remains(worker):
        worker.say(b'{"say":"exit","killed":true,"remains":true}')
        return True

    world.program.at("kill", remains)
    world.engine.fail("stop", "db", EngineError("no"))
    result = await world.run()
    assert (result.verdict, result.message) == ("failed", "no")
    assert world.states == UP
    assert any("left behind" in line for line in result.warnings)


async def test_worker_that_neither_confirms_nor_goes_keeps_nobody_down(world, monkeypatch):
    """Docker cannot remove it either: the first error stays, and what is left is said."""
    monkeypatch.setattr(gate, "KILL_SECONDS", 0.05)
    world.program.at("kill", lambda _: True)
    world.engine.fail("stop", "db", EngineError("no"))
    world.engine.fail("remove_worker", "*", EngineError("did not receive an exit event"))
    result = await world.run()
    assert (result.verdict, result.message) == ("failed", "no")
    assert world.states == UP
    assert any("exit event" in line for line in result.warnings)


async def test_successor_that_falls_over_after_its_start_fails_the_run(world):
    """It has another id than the member that was stopped."""

    def recreate(_):
        row = world.engine.all[world.web].row
        world.engine.remove(world.web)
        again = world.engine.add_container(
            "web", labels=dict(row.labels), mounts=row.mounts, state="created"
        )
        world.program.at("flush", lambda _: world.engine.set_state(again, "exited", 1))
        return False

    world.program.at("go", recreate)
    result = await world.run()
    assert (result.verdict, result.reason) == ("failed", "start")


async def test_member_that_is_restarted_while_another_stops_is_still_ours(world):
    """Its StartedAt is that of now as its own stop begins, though that is cut off."""

    def restart():
        world.time.passed += 60
        found = world.engine.all[world.db]
        found.details = msgspec.structs.replace(found.details, started_at=world.time.now())

    world.engine.hook("stop", "web", restart)
    world.engine.fail("stop", "db", EngineError("cut off"), late=True)
    result = await world.run()
    assert result.verdict == "failed"
    assert world.states == UP


async def test_member_that_ends_before_its_stop_is_told_of(world):
    """Somebody else's doing, so it stays down; a success must not hide it."""
    world.engine.hook("stop", "web", lambda: world.engine.set_state(world.db, "exited", 1))
    result = await world.run()
    assert world.states == ["exited", "running"]
    assert any("db ended by itself" in line for line in result.warnings)
