"""The shipped fake of Docker with time: stops last, go on when their caller is cut off, and more.

As measured on Docker 20.10: a stop is carried out by the daemon even when the call breaks; a start
of a container that runs answers 304 although a stop may be under way; after a restart of the
daemon the restart policies decide who comes up.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import anyio
from msgspec.structs import replace

from kopiwatch.errors import EngineError, EngineUnreachable
from kopiwatch.testing.engine import Call, FakeContainer, FakeEngine, FakeWorker

if TYPE_CHECKING:
    from support.machine.world import World

SLOW_SECONDS = 40.0
AWAY_SECONDS = 2.5
LAG_SECONDS = 0.004
LEAVING_SECONDS = 2.0
"""What a worker takes to leave when its input has ended."""
LOOP_SECONDS = 0.4
"""How long a container in a crash loop runs; then Docker waits, longer each time."""
LONGEST_PAUSE_SECONDS = 60.0


class TimedEngine(FakeEngine):
    """Docker in the world of the machine.

    ``by_hand`` holds who was stopped by a call, which is what ``unless-stopped`` asks for;
    ``loops`` who crashes again and again.
    """

    def __init__(self, world: World, **given: object) -> None:
        super().__init__(clock=world.time.now, **given)  # type: ignore[arg-type]
        self.world = world
        self.life = 0
        self.away_until = 0.0
        self.by_hand: set[str] = set()
        self.stop_seconds: dict[str, float] = {}
        self.loops: set[str] = set()
        self.unremoved: set[str] = set()
        self._pauses: dict[str, float] = {}
        self._fault = ""
        self._ends: list[anyio.Event] = []

    # -- calls of kopiwatch --------------------------------------------------------------------

    @asynccontextmanager
    async def call(
        self, operation: str, target: str = "", timeout: timedelta | None = None
    ) -> AsyncIterator[None]:
        world = self.world
        world.enter()
        name = self.all[target].row.name if target in self.all else target
        self.calls.append(Call(operation, name, timeout))
        life = self.life
        fault = world.course.take("docker", operation)
        await anyio.sleep(SLOW_SECONDS if fault == "slow" else LAG_SECONDS)
        world.enter()
        if fault == "unreachable":
            self.away_until = world.time.passed + AWAY_SECONDS
        try:
            self._answer(operation, life)
        except EngineUnreachable:
            self._unremoved(operation, target)
            raise
        if fault == "refused":
            self._unremoved(operation, target)
            raise EngineError(f"cannot {operation} {name}: Docker refuses")
        if fault == "gone":
            world.others.remove_by_id(target)
        world.witness(operation, target)
        self._fault = fault
        yield
        await anyio.sleep(LAG_SECONDS)
        world.enter()
        self._answer(operation, life)
        if fault == "lost":
            raise EngineError(f"cannot {operation} {name}: the answer was lost")

    def _unremoved(self, operation: str, target: str) -> None:
        """Docker did not remove a worker for us: nobody could end its Kopia."""
        if operation == "remove_worker":
            self.unremoved |= {id_ for id_, c in self.all.items() if target in (id_, c.row.name)}

    def _answer(self, operation: str, life: int) -> None:
        if self.life != life or self.world.time.passed < self.away_until:
            self.world.course.fired["docker away"] += 1
            raise EngineUnreachable(f"cannot {operation}: Docker does not answer")

    async def stop(
        self, container: str, timeout: timedelta | None, *, grace: timedelta | None = None
    ) -> bool:
        async with self.call("stop", container, timeout):
            fault = self._fault
            found = self.find(container, f"stop container {container}")
            if not found.row.running:
                self.world.oracle.found_down(found.row.id)
                return False
            ended = self._begin_stop(found)
            if fault == "cut":
                raise EngineError(f"cannot stop {found.row.name}: the connection broke")
            await ended.wait()
        return True

    async def start(self, container: str) -> bool:
        done = await super().start(container)
        if done and container in self.all:
            self._restarted(container, 0)
        return done

    def _begin_stop(self, found: FakeContainer) -> anyio.Event:
        """The daemon is at it from now on, whatever becomes of the call."""
        ended = anyio.Event()
        self._ends.append(ended)
        identity, ran = found.row.id, found.details.started_at
        self.by_hand.add(identity)

        def end() -> None:
            each = self.all.get(identity)
            if each is not None and each.row.running and each.details.started_at == ran:
                self.set_state(identity, "exited", 137)
            ended.set()

        self.world.time.later(self.stop_seconds.get(identity, 0.2), end)
        return ended

    async def _leave(self, worker: FakeWorker, first: BaseException | None) -> None:
        try:
            await super()._leave(worker, first)
        finally:
            # Whether it could be removed or not: its input has ended, so it leaves in a moment.
            self.world.time.later(LEAVING_SECONDS, partial(self.end_worker, worker))

    # -- what happens by itself ----------------------------------------------------------------

    def set_state(self, container: str, state, exit_code: int = 0) -> None:  # type: ignore[no-untyped-def]
        super().set_state(container, state, exit_code)
        if state == "running":
            self.by_hand.discard(self.find(container, "look").row.id)
        self.world.kopia.disturbed_by(self.find(container, "look").row)

    def run_again(self, container: str, *, by_policy: bool = False) -> None:
        """It runs, from now on; its policy counts how often it was that."""
        self.set_state(container, "running")
        found = self.all[container]
        found.details = replace(found.details, started_at=self.now())
        found.probes = 0
        self._restarted(container, found.details.restart_count + 1 if by_policy else 0)

    def _restarted(self, container: str, count: int) -> None:
        found = self.all[container]
        found.details = replace(found.details, restart_count=count)
        if not count:
            self._pauses.pop(container, None)
        if container in self.loops:
            self.begin_loop(container)

    def begin_loop(self, container: str) -> None:
        """It crashes in a moment, if nobody stops it before."""
        ran = self.all[container].details.started_at

        def fall() -> None:
            each = self.all.get(container)
            if each is not None and each.row.running and each.details.started_at == ran:
                self.crash(container)

        self.world.time.later(LOOP_SECONDS, fall)

    def crash(self, container: str) -> bool:
        """It ends by itself. True if its restart policy brings it back in a moment."""
        found = self.all[container]
        policy = found.details.restart_policy
        if policy in ("", "no") or container in self.by_hand:
            self.set_state(container, "exited", 1)
            return False
        self.set_state(container, "restarting", 1)
        pause = self._pauses.get(container, 0.1)
        self._pauses[container] = min(2 * pause, LONGEST_PAUSE_SECONDS)

        def again() -> None:
            each = self.all.get(container)
            if each is not None and each.row.state == "restarting":
                self.run_again(container, by_policy=True)

        self.world.time.later(pause, again)
        return True

    def restart_daemon(self, away: float) -> None:
        """Everybody dies; whoever a policy wants comes up; calls break and are not answered."""
        self.life += 1
        self.away_until = self.world.time.passed + away
        ran = {id_ for id_, each in self.all.items() if each.row.running}
        for each in list(self.all.values()):
            if each.worker is not None:
                self.end_worker(each.worker)
            elif each.row.running:
                self.set_state(each.row.id, "exited", 137)
        for event in self._ends:
            event.set()
        self._ends.clear()
        for id_, each in self.all.items():
            policy = each.details.restart_policy
            stopped = id_ in self.by_hand
            wanted = policy == "always" or (policy == "unless-stopped" and not stopped)
            wanted = wanted or (policy == "on-failure" and id_ in ran and not stopped)
            if each.worker is None and each.details.started_at is not None and wanted:
                self.run_again(id_)

    def end_worker(self, worker: FakeWorker) -> None:
        """Its processes end, Kopia with them; the container stays until somebody removes it."""
        if worker.id in self.all:
            FakeEngine.set_state(self, worker.id, "exited", 137)
        worker.end()
