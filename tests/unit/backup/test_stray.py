"""Stray workers: ended, or left to the kernel without keeping anybody else waiting."""

from __future__ import annotations

import pytest

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
    return made


async def test_strays_of_ours_are_ended(engine):
    strays = await end_strays(engine, "ours")
    assert (len(strays.ended), strays.left) == (2, ())
    assert [worker.spec.name for worker in engine.running_workers] == ["three"]


async def test_stray_that_cannot_be_ended_is_left_and_said(engine):
    """It hangs in the kernel: the others are ended, and nobody waits for it."""
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
