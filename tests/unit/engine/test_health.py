"""Health by our own probe, on the fake engine and a clock that only the test moves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from kopiwatch.engine.health import probe, wait_healthy
from kopiwatch.engine.port import Healthcheck
from kopiwatch.errors import ContainerGone, EngineError, EngineUnreachable
from kopiwatch.testing.engine import FakeEngine

pytestmark = pytest.mark.anyio
CHECK = Healthcheck(("check", "--quick"), timedelta(seconds=3))


class Clock:
    """Seconds; a sleep moves them, and may do something else, too."""

    def __init__(self):
        self.now = 100.0
        self.pauses: list[float] = []
        self.after = {}

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        action = self.after.pop(len(self.pauses), None)
        if action:
            action()

    def __call__(self) -> float:
        return self.now


def healthy_after(probes: int | None) -> FakeEngine:
    engine = FakeEngine()
    engine.add_container("db", healthcheck=CHECK, healthy_after=probes)
    return engine


async def wait(engine: FakeEngine, clock: Clock, seconds: float = 10) -> bool:
    return await wait_healthy(engine, "db", CHECK, seconds=seconds, sleep=clock.sleep, clock=clock)


async def test_healthy_at_once_waits_for_nothing():
    clock = Clock()
    assert await wait(healthy_after(1), clock)
    assert clock.pauses == []


async def test_pauses_grow_with_the_time_waited():
    """Late by an eighth of what the application took at most, and never by more than a second."""
    clock = Clock()
    assert await wait(healthy_after(45), clock, seconds=60)
    assert clock.pauses[:8] == [0.05] * 8
    waited = [sum(clock.pauses[:count]) for count in range(len(clock.pauses))]
    for before, pause in zip(waited, clock.pauses, strict=True):
        assert pause == pytest.approx(min(1.0, max(0.05, before / 8)))
    assert clock.pauses[-1] == 1.0


async def test_deadline_ends_the_wait_exactly_and_with_a_last_probe():
    clock, engine = Clock(), healthy_after(None)
    assert not await wait(engine, clock, seconds=2)
    assert clock.now == pytest.approx(102)
    assert len(engine.order("exec")) == len(clock.pauses) + 1


async def test_no_time_at_all_still_probes_once():
    clock, engine = Clock(), healthy_after(1)
    assert await wait(engine, clock, seconds=0)


async def test_probe_gets_the_checks_timeout_but_not_more_than_is_left():
    clock, engine = Clock(), healthy_after(None)
    await wait(engine, clock, seconds=3.5)
    timeouts = [call.timeout.total_seconds() for call in engine.calls if call.timeout]
    assert timeouts[0] == 3
    assert timeouts[-1] == pytest.approx(0.05)


async def test_container_that_stops_meanwhile_is_gone():
    clock, engine = Clock(), healthy_after(None)
    clock.after[2] = lambda: engine.set_state("db", "exited", 137)
    with pytest.raises(ContainerGone, match="exit code 137"):
        await wait(engine, clock)


async def test_container_that_is_removed_meanwhile_is_gone():
    clock, engine = Clock(), healthy_after(None)
    clock.after[1] = lambda: engine.remove("db")
    with pytest.raises(ContainerGone):
        await wait(engine, clock)


async def test_paused_or_restarting_container_may_still_become_healthy():
    clock, engine = Clock(), healthy_after(2)
    clock.after[1] = lambda: engine.set_state("db", "paused")
    clock.after[2] = lambda: engine.set_state("db", "restarting")
    clock.after[3] = lambda: engine.set_state("db", "running")
    assert await wait(engine, clock)


async def test_probe_that_hangs_counts_as_unhealthy():
    clock, engine = Clock(), healthy_after(1)
    engine.fail("exec", "db", EngineError("it has not ended"), times=2)
    assert await wait(engine, clock)
    assert len(clock.pauses) == 2


async def test_unreachable_docker_is_not_taken_for_ill_health():
    clock, engine = Clock(), healthy_after(1)
    engine.fail("exec", "db", EngineUnreachable("no"))
    with pytest.raises(EngineUnreachable):
        await wait(engine, clock)


async def test_probe_is_the_exit_code_of_the_check():
    engine = healthy_after(2)
    inspected = await engine.inspect("db")
    assert [await probe(engine, inspected) for _ in range(2)] == [False, True]


async def test_without_a_check_running_is_healthy():
    engine = FakeEngine()
    engine.add_container("web")
    assert await probe(engine, await engine.inspect("web"))
    engine.set_state("web", "paused")
    assert not await probe(engine, await engine.inspect("web"))
