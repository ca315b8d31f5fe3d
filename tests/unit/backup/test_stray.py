"""Stray workers: ended, or left to the kernel without keeping anybody else waiting."""

from __future__ import annotations

import pytest

from kopiwatch.backup import stray
from kopiwatch.backup.stray import Strays, end_strays
from kopiwatch.engine.port import WorkerSpec
from kopiwatch.errors import EngineError, EngineUnreachable
from kopiwatch.testing.engine import FakeEngine
from kopiwatch.units.container import STATE_LABEL, WORKER_LABEL

pytestmark = pytest.mark.anyio


@pytest.fixture
def engine() -> FakeEngine:
    """Two strays of ours and one of another state folder."""
    made = FakeEngine(images={"kopiwatch:1": "sha256:1"})
    for name, state in (("one", "ours"), ("two", "ours"), ("three", "theirs")):
        labels = {WORKER_LABEL: name, STATE_LABEL: state}
        made._create_worker(WorkerSpec(name, "kopiwatch:1", (), labels, (), "none"))
        made.set_state(name, "exited")
    return made


async def test_strays_of_ours_are_ended(engine):
    strays = await end_strays(engine, "ours")
    assert (len(strays.ended), strays.left) == (2, ())
    assert [worker.spec.name for worker in engine.running_workers] == ["three"]


async def test_stray_that_still_runs_may_leave_by_itself(engine):
    """Killed at once, it could not give the Kopia lock back."""
    engine.set_state("one", "running")
    looks = iter(range(10))

    def leave() -> None:
        if next(looks) == 2:
            engine.set_state("one", "exited")

    engine.hook("inspect", "one", leave)
    removed: list[str] = []
    engine.hook("remove_worker", "one", lambda: removed.append(engine.state("one")))
    await end_strays(engine, "ours")
    assert removed == ["exited"]


async def test_stray_that_cannot_be_ended_is_left_and_said(engine, monkeypatch):
    """It hangs in the kernel: the others are ended, and nobody waits for it for long."""
    monkeypatch.setattr(stray, "LEAVE_SECONDS", 0.1)
    engine.set_state("one", "running")
    engine.fail("remove_worker", "one", EngineError("did not receive an exit event"))
    strays = await end_strays(engine, "ours")
    assert len(strays.ended) == 1
    (left,) = strays.left
    assert "exit event" in left


async def test_no_strays_are_no_news():
    assert await end_strays(FakeEngine(), "ours") == Strays()


async def test_docker_that_does_not_answer_is_an_error(engine):
    """Then nothing is known about strays."""
    engine.fail("remove_worker", "one", EngineUnreachable("away"))
    with pytest.raises(EngineUnreachable):
        await end_strays(engine, "ours")
