"""The daemon's desk and executor on the shipped fakes, with a clock that a test moves.

The fakes go in where the adapters are made, at the doors to Docker and to Kopia; everything
between them is the product: wiring, run, journal, locks, history.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from importlib import import_module
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
import pytest

from kopiwatch.backup.house import House
from kopiwatch.backup.journal import Held, Journal
from kopiwatch.clock import Clock
from kopiwatch.config import Config
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.executor import Executor
from kopiwatch.engine import own
from kopiwatch.engine.client import DockerEngine
from kopiwatch.errors import KopiwatchError
from kopiwatch.report.history import History
from kopiwatch.testing.engine import volume_mount
from kopiwatch.testing.gate import Step
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.watch.queue import Ask, Trigger
from support.manual_clock import NOON, ManualClock
from support.run_world import RunWorld

FINAL_SECONDS = 15.0
"""After this a test that waits for a fact gives up."""


class NapClock(ManualClock):
    """A manual clock that lets a test know when somebody lies down to sleep."""

    def __init__(self) -> None:
        super().__init__()
        self._begun = anyio.Event()

    async def sleep(self, seconds: float) -> None:
        begun, self._begun = self._begun, anyio.Event()
        begun.set()
        await super().sleep(seconds)

    async def next_nap(self) -> None:
        """Wait until somebody begins to sleep."""
        await self._begun.wait()

    async def skip(self, seconds: float) -> None:
        """A sleep that is over at once, for what sleeps within a run."""
        self.passed += seconds
        await anyio.lowlevel.checkpoint()


class Words:
    """A listener that remembers everything and tells that there was something."""

    def __init__(self, rung: Callable[[], None]) -> None:
        self.events: list[tuple[str, str]] = []
        self.facts: list[dict[str, object]] = []
        self._rung = rung

    def say(self, action: str, message: str, **facts: object) -> None:
        self.events.append((action, message))
        self.facts.append(facts)
        self._rung()

    def of(self, action: str) -> list[str]:
        """The sentences of one action."""
        return [message for said, message in self.events if said == action]


class _Kopia:
    async def version(self) -> str:
        return "0.23.1"


class KnownRepository(FakeRepository):
    """The fake repository, with a program behind it whose version can be asked."""

    kopia = _Kopia()


class DeskWorld(RunWorld):
    """Docker with the unit ``shop``, an empty repository, and a daemon's desk in front of them.

    ``docker_away`` is the error that a connection to Docker raises now, None while it answers.
    """

    def __init__(self, folder: Path, history: History, time: NapClock, *, fresh: bool) -> None:
        super().__init__(folder)
        self.time = time
        self.repository.__class__ = KnownRepository
        self.docker_away: KopiwatchError | None = None
        self.config = Config(
            state_dir=self.state.path,
            cache_dir=folder / "cache",
            access="worker",
            worker_image="kopiwatch:1",
        )
        self.said = Words(self._heard)
        self.desk = Desk(
            self.config,
            self.state,
            self.uuid,
            history,
            fresh=fresh,
            listener=self.said,
            clock=time.clock,
            random=lambda: 0.5,
        )
        self.desk.connected = True
        self.executor = Executor(self.desk)

    def _heard(self) -> None:
        self.desk.show.ring()

    def put_in(self, patch: pytest.MonkeyPatch) -> None:
        """Let the product reach these fakes, and nothing of this machine."""
        patch.setattr(own, "_own_mountinfo", lambda: "")
        patch.setattr(own, "MARKERS", ())
        patch.setattr(DockerEngine, "connect", self._connect)
        rooms = {name: import_module(f"kopiwatch.wiring.{name}") for name in _ROOMS}
        patch.setattr(rooms["repository"], "KopiaRepository", lambda *_, **__: self.repository)
        patch.setattr(rooms["house"], "House", partial(House, clock=self.within))
        patch.setattr(rooms["changing"], "SYSTEM", self.within)

    @property
    def within(self) -> Clock:
        """The clock within a run: the same time, and whoever sleeps there makes it pass."""
        return Clock(self.time.now, lambda: self.time.passed, self.time.skip)

    async def house(self) -> House:
        """A house for a run by hand."""
        return msgspec.structs.replace(await super().house(), clock=self.within)

    async def _connect(self, *_: object) -> object:
        if self.docker_away is not None:
            raise self.docker_away
        return self.engine

    # -- what a test does ----------------------------------------------------------------------

    @asynccontextmanager
    async def working(self) -> AsyncIterator[None]:
        """The executor works for the length of a block, which begins when it first rests."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.executor.phases.run)
            tasks.start_soon(self.executor.run)
            await self.rest()
            yield
            tasks.cancel_scope.cancel()

    async def rest(self) -> None:
        """Let the executor do all that can be done now; returns when it waits for its clock."""
        naps = len(self.time.slept)
        self.desk.work.ring()
        with anyio.fail_after(FINAL_SECONDS):
            while len(self.time.slept) == naps:
                await self.time.next_nap()

    async def later(self, seconds: float) -> None:
        """So much later, when everything that is due then is done."""
        self.time.passed += seconds
        await self.rest()

    async def until(self, fact: Callable[[], object]) -> None:
        """Wait for something that the desk shows or that is said."""
        with anyio.fail_after(FINAL_SECONDS):
            while not fact():
                await self.desk.show.wait()

    def hangs(self, step: Step) -> None:
        """Let Kopia do nothing at this step; :meth:`until` sees that it was reached."""

        def reached(_: object) -> bool:
            self.desk.show.ring()
            return True

        self.program.at(step, reached)

    def goes_on(self, step: Step) -> None:
        """Let Kopia do at this step what it does, also where it hangs there now."""
        self.program.at(step, lambda _: False)
        for worker in self.engine.running_workers:
            self.program.script(worker, msgspec.json.encode({"do": step}))

    def ask(self, unit: str = "shop", trigger: Trigger = "schedule", priority: int = 100) -> Ask:
        """Queue a run that is due now."""
        now = self.time.now()
        ask = Ask(unit, now, now, trigger, priority)
        self.desk.queue.add(ask)
        return ask

    async def back_up(self, unit: str = "shop", trigger: Trigger = "schedule") -> None:
        """Queue a run and let it, and all else that can be done now, be done."""
        self.ask(unit, trigger)
        await self.rest()

    def stand_alone(self, name: str) -> str:
        """A container that is a unit of its own."""
        mounts = (volume_mount(name, "/data"),)
        return self.engine.add_container(name, labels={"kopi.enable": "true"}, mounts=mounts)

    async def crash(self, *members: str, run: str = "r0") -> None:
        """Leave what a run of ``shop`` leaves that was killed in its window."""
        held = []
        for identity in members:
            row = self.engine.all[identity].row
            level = len(held)
            names = (row.name, row.project, row.service, row.number)
            started_at = (await self.engine.inspect(identity)).started_at
            held.append(
                Held(row.id, *names, "stop", level, (), False, 300, 10, started_at=started_at)
            )
            self.engine.set_state(identity, "exited")
        since = NOON - timedelta(hours=1)
        source = "kopiwatch@testhost:/mnt/shop"
        await self.state.journals.write(Journal("shop", run, since, source, tuple(held)))

    # -- what a test sees ----------------------------------------------------------------------

    @property
    def verdicts(self) -> list[tuple[object, object, object]]:
        """Each run that was told of: unit, verdict, reason."""
        told = zip(self.said.events, self.said.facts, strict=True)
        return [
            (facts["unit"], facts["verdict"], facts["reason"])
            for (action, _), facts in told
            if action == "run"
        ]

    @property
    def waiting(self) -> list[tuple[str, str]]:
        """What waits in the queue: unit and trigger."""
        return [(ask.unit, ask.trigger) for ask in self.desk.queue.waiting()]

    def fresh_config(self, **changes: object) -> Config:
        """The configuration with something else in it."""
        return msgspec.structs.replace(self.config, **changes)


_ROOMS = ("repository", "house", "changing")


@asynccontextmanager
async def desk_world(
    folder: Path, patch: pytest.MonkeyPatch, *, fresh: bool = False
) -> AsyncIterator[DeskWorld]:
    """A world whose history is open for the length of a block."""
    time = NapClock()
    (folder / "state").mkdir(mode=0o700)
    opened = await History.open(folder / "state", clock=time.clock)
    make = partial(DeskWorld, folder, opened.history, time, fresh=fresh)
    world = await anyio.to_thread.run_sync(make)  # it makes folders
    world.put_in(patch)
    try:
        yield world
    finally:
        await world.desk.ledger.close()
