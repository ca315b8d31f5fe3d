"""Promises 1 and 2 of the design, over histories that hypothesis draws."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from support.machine.history import Machine
from support.machine.oracle import MemberSpec
from support.machine.trouble import Death, Fault, Happening, Moment, Trouble
from support.machine.world import world_of

HISTORIES = 500
"""Always the same, in half a minute; ``benchmarks/machine`` draws any number of others."""

TestMachine = pytest.mark.timeout(900)(Machine.TestCase)
TestMachine.settings = settings(
    max_examples=HISTORIES,
    stateful_step_count=6,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)

DB = MemberSpec("db", policy="always")
APP = MemberSpec("app", needs="db:service_started:false", stop_seconds=3.0)

# What the machine found, as histories of their own.


@pytest.mark.parametrize("turn", range(30))
def test_member_that_restarted_by_itself_before_its_stop_is_ours_after_a_death(turn):
    """Its StartedAt is another than the journal's, and yet nobody took it over."""
    crash = Happening(Moment("stop", 3), "crash", 0)
    with world_of(DB, APP) as world:
        world.process("shop", Trouble(happenings=(crash,), death=Death(Moment("stop", turn), 0.0)))


@pytest.mark.parametrize(("how", "nth", "times"), [("unlink", 1, 1), ("folder", 9, 4)])
def test_success_that_the_disk_does_not_take_is_none(how, nth, times):
    """Whoever settles the run would call it interrupted, so the run says so at once."""
    with world_of(DB, APP) as world:
        world.process("shop", Trouble(faults=(Fault("disk", how, nth, how, times),)))
        result = world.oracle.results["r1"]
        assert (result.verdict, result.reason) == ("failed", "report")
        assert world.fired.keys() == {f"disk {how}"}


def test_member_that_somebody_started_and_stopped_in_the_window_stays_stopped():
    """That is how they want it, whether the read came to its end or not."""
    doings = (
        Happening(Moment("read", 2), "start", 0),
        Happening(Moment("read", 8), "stop", 0),
    )
    with world_of(DB, APP) as world:
        world.process("shop", Trouble(happenings=doings))
        assert world.oracle.results["r1"].reason == "interference"
        assert world.down("db")
    with world_of(DB, APP) as world:
        world.process(
            "shop", Trouble(happenings=doings, faults=(Fault("worker", "go", 1, "dies"),))
        )
        assert world.oracle.results["r1"].reason == "worker-lost"
        assert world.down("db")


@pytest.mark.parametrize("turn", range(4))
def test_kopia_that_nobody_could_end_leaves_no_good_point_behind(turn):
    """Cancelled after the window, its worker not removed: what it stores later does not count."""
    stuck = Fault("docker", "remove_worker", 1, "refused", 9)
    silent = Fault("worker", "kill", 1, "hangs")
    with world_of(DB, APP) as world:
        world.process("shop", Trouble(faults=(stuck, silent), signal=Moment("flush", turn)))
        assert world.oracle.results["r1"].verdict == "failed"


@pytest.mark.parametrize("turn", range(12))
def test_member_that_somebody_starts_right_after_its_stop_was_not_stopped_then(turn):
    """It ran while it was read, although its StartedAt was read only after that."""
    doing = Happening(Moment("stop", turn), "start-and-stop", 0)
    with world_of(MemberSpec("db")) as world:
        world.process("shop", Trouble(happenings=(doing,)))


@pytest.mark.parametrize("end", ["stop", "remove"])
@pytest.mark.parametrize("turn", range(9))
def test_member_that_the_list_missed_and_that_ends_during_the_read_makes_it_partial(turn, end):
    """It was down in the list, ran when it was looked at, wrote, and is down again at the end."""
    doings = (
        Happening(Moment("settle", turn), "stop-and-start", 0),
        Happening(Moment("read", 1), end, 0),
    )
    with world_of(MemberSpec("db")) as world:
        world.process("shop", Trouble(happenings=doings))


def test_successor_that_somebody_ran_and_stopped_is_left_alone():
    """Recreated, started and stopped while its predecessor was held: it is as they want it."""
    doings = (
        Happening(Moment("read", 0), "recreate-unstarted", 0),
        Happening(Moment("read", 1), "start-and-stop", 0),
    )
    with world_of(MemberSpec("db")) as world:
        death = Death(Moment("flush", 0), 0.0)
        world.process("shop", Trouble(happenings=doings, death=death))
        assert world.down("db")


def test_member_that_was_down_and_is_removed_during_the_read_makes_it_partial():
    """Somebody may have started it before."""
    doings = (Happening(Moment("ready", 0), "start", 0), Happening(Moment("read", 1), "remove", 0))
    with world_of(MemberSpec("db", state="exited")) as world:
        world.process("shop", Trouble(happenings=doings))
        assert world.oracle.results["r1"].reason == "interference"


def test_member_that_was_down_and_ran_during_the_read_makes_it_partial():
    """It is down again at the end of the read, and yet it wrote meanwhile."""
    idle = MemberSpec("db", state="exited")
    with world_of(idle) as world:
        doing = Happening(Moment("read", 1), "start-and-stop", 0)
        world.process("shop", Trouble(happenings=(doing,)))
        assert world.oracle.results["r1"].reason == "interference"


HOOKED = (
    MemberSpec("db", hooks=True, health="good"),
    MemberSpec("app", needs="db:service_started:false", stop_seconds=3.0, hooks=True),
)
AROUND_HOOKS = ("ready", "hooks-pre", "stop", "read", "start", "health", "hooks-post", "flush")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("phase", AROUND_HOOKS)
def test_post_hook_follows_wherever_the_run_dies_or_is_told_to_leave(phase):
    """At any await of any phase around them: once the pre hook began, the post hook runs."""
    for turn in range(0, 60, 2):
        for end in (
            {"death": Death(Moment(phase, turn), 0.0)},
            {"signal": Moment(phase, turn + 1)},
        ):
            with world_of(*HOOKED) as world:
                world.process("shop", Trouble(**end))
                if not world.fired:
                    assert world.oracle.results["r1"].verdict == "success"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("turn", range(0, 40, 2))
def test_post_hook_follows_although_the_replay_dies_too(turn):
    """What it has not done by then is done by the next one."""
    with world_of(*HOOKED) as world:
        world.process("shop", Trouble(death=Death(Moment("read", 2), 0.0)))
        world.process("replay", Trouble(death=Death(Moment("replay", turn), 0.0)))
