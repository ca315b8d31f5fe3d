"""Phases on their way into the history: in order, and never while containers are down."""

from __future__ import annotations

import anyio
import pytest
from support.desk_world import desk_world
from support.run_world import Said

from kopiwatch.daemon.phase_writer import Heard, PhaseWriter
from kopiwatch.daemon.tee import Tee
from kopiwatch.wiring.attempt import Order

pytestmark = pytest.mark.anyio


@pytest.fixture
async def world(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as made:
        yield made


async def test_phases_of_the_window_are_written_after_it(world):
    """While somebody is down nothing is committed: it would compete with what Kopia reads."""
    written = []
    phase = world.desk.ledger.phase

    async def noted(run, unit, name, began):
        written.append((name, tuple(world.states)))
        await phase(run, unit, name, began)
        world.desk.changed()

    world.desk.ledger.phase = noted
    async with world.working():
        await world.back_up()
        assert world.verdicts == [("shop", "success", "")]
        await world.until(lambda: written and written[-1][0] == "report")
    assert [name for name, _ in written] == [
        *("check", "ready", "stop", "read", "start", "health", "flush", "verify", "keep", "report")
    ]
    assert {states for _, states in written} == {("running", "running")}


async def test_phase_of_a_run_is_known_while_it_lasts(world):
    """The daemon shows where a run is; when it began is the moment it was noted."""
    writer = PhaseWriter(world.desk)
    await world.desk.ledger.begin("r1", Order("shop"), world.time.now())
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(writer.run)
        writer.note("shop", "r1", "check")
        await world.until(lambda: world.desk.ledger.records["shop"].running_phase == "check")
        writer.note("shop", "r1", "stop")
        writer.note("shop", "r1", "read")
        writer.note("shop", "r1", "health")
        await world.until(lambda: world.desk.ledger.records["shop"].running_phase == "health")
        tasks.cancel_scope.cancel()


async def test_only_phases_of_a_run_are_noted_and_everything_is_passed_on(world):
    """What else is said has nothing to do with it."""
    writer, said = PhaseWriter(world.desk), Said()
    heard = Heard(writer, "shop", said)
    heard.say("phase", "check", run="r1")
    heard.say("phase", "a drill's, without a run")
    heard.say("warning", "something", run="r1")
    assert [(unit, run, phase) for unit, run, phase, _ in writer._begun] == [
        ("shop", "r1", "check")
    ]
    assert [action for action, _ in said.events] == ["phase", "phase", "warning"]


def test_tee_passes_on_to_everybody_in_order():
    """With the facts."""
    heard = []

    class Ear:
        def __init__(self, name: str) -> None:
            self.name = name

        def say(self, action: str, message: str, **facts: object) -> None:
            heard.append((self.name, action, message, facts))

    Tee([Ear("one"), Ear("two")]).say("phase", "stop", run="r1")
    assert heard == [
        ("one", "phase", "stop", {"run": "r1"}),
        ("two", "phase", "stop", {"run": "r1"}),
    ]
