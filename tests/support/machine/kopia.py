"""The shipped fakes of repository and gate, with time and a memory of the truth."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel
from msgspec.structs import replace

from kopiwatch.errors import RepositoryError, RepositoryUnreachable
from kopiwatch.testing.engine import FakeWorker
from kopiwatch.testing.gate import FakeProgram
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.units.container import Container

if TYPE_CHECKING:
    from support.machine.world import World

LAG_SECONDS = 0.4
SLOW_SECONDS = 60.0
STEP_SECONDS = {"start": 0.2, "set-up": 0.2, "launch": 0.5, "go": 1.0, "flush": 1.5, "kill": 0.01}
LATE_SECONDS = 7200.0
FULL = "ERROR error: no space left on device"


class UnsteadyRepository:
    """A repository whose calls last, and may fail before or after they had their effect."""

    def __init__(self, world: World, real: FakeRepository) -> None:
        self.real = real
        self.away = False
        self._world = world

    @property
    def host(self) -> str:
        return self.real.host

    def __getattr__(self, name: str) -> Any:
        return partial(self._call, name)

    async def _call(self, name: str, *given: Any, **named: Any) -> Any:
        async with self._lasting(name):
            return await getattr(self.real, name)(*given, **named)

    @asynccontextmanager
    async def _lasting(self, name: str):  # type: ignore[no-untyped-def]
        world = self._world
        world.enter()
        fault = world.course.take("kopia", name)
        await anyio.sleep(SLOW_SECONDS if fault == "slow" else LAG_SECONDS)
        world.enter()
        if fault == "unreachable" or self.away:
            raise RepositoryUnreachable("the disk is gone")
        if fault == "refused":
            raise RepositoryError(f"{name}: Kopia refuses")
        yield
        await anyio.lowlevel.checkpoint()
        world.enter()
        if fault == "lost":
            raise RepositoryError(f"{name}: the answer was lost")


@dataclass
class Snapshooting:
    """One Kopia, as it truly is. ``disturbed``: somebody wrote while it read."""

    worker: FakeWorker
    run: str
    volumes: frozenset[str]
    phase: str = "opening"
    disturbed: set[str] = field(default_factory=set)
    strangers: set[str] = field(default_factory=set)
    flawed: str = ""

    @property
    def good(self) -> bool:
        """What it stored is worth restoring."""
        return not self.disturbed and not self.flawed


class TimedProgram(FakeProgram):
    """Plays every worker, one step after the other, each of which lasts and may go wrong.

    ``kopias`` are the Kopias that were launched, by worker; ``truths`` what became of the
    manifests, by run.
    """

    def __init__(self, world: World, repository: FakeRepository) -> None:
        super().__init__(repository)
        self.world = world
        self.kopias: dict[str, Snapshooting] = {}
        self.truths: dict[str, Snapshooting] = {}

    def script(self, worker: FakeWorker, line: bytes | None) -> None:
        order: dict[str, Any] = {"do": "start"} if line is None else json.loads(line)
        step = order["do"]
        fault = self.world.course.take("worker", step)
        kopia = self.kopias.get(worker.id)
        if step == "launch":
            self.argv = list(order["argv"])
            kopia = self._launched(worker, order)
        elif step == "go" and kopia is not None:
            kopia.phase = "reading"
            for each in self.world.engine.all.values():
                self.disturbed_by(each.row)
        elif step == "kill" and kopia is not None and fault != "hangs":
            kopia.phase = "ended"
        act = getattr(self, "_" + fault.replace("-", "_"), None) if fault else None
        seconds = LATE_SECONDS if fault == "late" else STEP_SECONDS.get(step, 0.2)
        action = partial(self._do, worker, step, order) if act is None else partial(act, worker)
        self.world.time.later(seconds, partial(self._if_there, worker, action))

    def _if_there(self, worker: FakeWorker, action: Any) -> None:
        found = self.world.engine.all.get(worker.id)
        if found is not None and found.row.state == "running":
            action()

    def _do(self, worker: FakeWorker, step: str, order: Mapping[str, Any]) -> None:
        """A step ends as it should."""
        kopia = self.kopias.get(worker.id)
        if step == "kill":
            self._say(worker, "exit", killed=True, code=-9)
        elif kopia is None or kopia.phase != "ended":
            if kopia is not None and step == "go":
                self._look_at_strangers(kopia)
            if kopia is not None and step in ("launch", "go"):
                kopia.phase = {"launch": "waiting", "go": "read"}[step]
            self._answer(worker, step, order)
            if kopia is not None and step == "flush":
                kopia.phase = "ended"

    # -- the truth -----------------------------------------------------------------------------

    def _launched(self, worker: FakeWorker, order: Mapping[str, Any]) -> Snapshooting:
        tag = next(a for a in order["argv"] if a.startswith("--tags=kopiwatch-run:"))
        volumes = frozenset(m.source for m in worker.spec.mounts if m.kind == "volume")
        kopia = Snapshooting(worker, tag.removeprefix("--tags=kopiwatch-run:"), volumes)
        for other in self.alive():
            self.world.wrong(f"P5: a Kopia for {kopia.run} beside that of {other.run}")
        self.kopias[worker.id] = kopia
        return kopia

    def alive(self) -> list[Snapshooting]:
        """The Kopias that live."""
        there = self.world.engine.all
        return [
            kopia
            for id_, kopia in self.kopias.items()
            if kopia.phase != "ended" and id_ in there and there[id_].row.state == "running"
        ]

    def disturbed_by(self, row: Container) -> None:
        """A container is as it is now: if it runs beside a Kopia that reads its volume, say so."""
        if row.state not in ("running", "restarting") or row.worker:
            return
        written = {mount.volume for mount in row.mounts if mount.writable}
        for kopia in self.alive():
            if kopia.phase != "reading" or not written & kopia.volumes:
                continue
            if row.id in self.world.known:
                kopia.disturbed.add(row.name)
            else:
                kopia.strangers.add(row.id)

    def _look_at_strangers(self, kopia: Snapshooting) -> None:
        """Who was not there when the run began is only looked for at the end of the read."""
        there = self.world.engine.all
        running = (id_ for id_ in kopia.strangers if id_ in there and there[id_].row.running)
        kopia.disturbed |= {there[id_].row.name for id_ in running}

    def _store(self, worker: FakeWorker) -> str:
        kopia = self.kopias[worker.id]
        self.truths[kopia.run] = kopia
        self.trees["recipe"] = {"unit.json": kopia.run.encode()}
        return super()._store(worker)

    # -- what may go wrong ---------------------------------------------------------------------

    def _end(self, worker: FakeWorker) -> None:
        if worker.id in self.kopias:
            self.kopias[worker.id].phase = "ended"

    def _dies(self, worker: FakeWorker) -> None:
        self.world.engine.end_worker(worker)

    def _mute(self, worker: FakeWorker) -> None:
        """The connection breaks; the worker hears of it and leaves a moment later."""
        worker.end()
        self.world.time.later(3.0, partial(self.world.engine.end_worker, worker))

    def _hangs(self, worker: FakeWorker) -> None:
        """Nothing, for ever."""

    def _noise(self, worker: FakeWorker) -> None:
        worker.say(b"Segmentation fault")

    def _error(self, worker: FakeWorker) -> None:
        self._say(worker, "error", reason="probe", text="no permission")

    def _exit_1(self, worker: FakeWorker) -> None:
        self._end(worker)
        self._say(worker, "exit", code=1, err=FULL)

    def _exit_0(self, worker: FakeWorker) -> None:
        self._end(worker)
        self._say(worker, "exit", code=0)

    def _ungated(self, worker: FakeWorker) -> None:
        """Somebody took the gate away: a complete snapshot of a live unit."""
        self.kopias[worker.id].flawed = "ungated"
        out = self._store(worker)
        self._end(worker)
        self._say(worker, "exit", code=0, out=out)

    def _stored_dies(self, worker: FakeWorker) -> None:
        self._store(worker)
        self._dies(worker)

    def _stored_mute(self, worker: FakeWorker) -> None:
        self._store(worker)
        self._mute(worker)

    def _stored_exit_1(self, worker: FakeWorker) -> None:
        self._store(worker)
        self._exit_1(worker)

    def _unstored(self, worker: FakeWorker) -> None:
        """It names a snapshot that never came to be."""
        out = self._store(worker)
        lost = self.repository.contents.snapshots.pop()
        assert lost.root_entry is not None
        self.repository.contents.directories.pop(lost.root_entry.obj, None)
        self._end(worker)
        self._say(worker, "exit", code=0, out=out)

    def _incomplete(self, worker: FakeWorker) -> None:
        self._flawed(worker, "incomplete")

    def _missing_source(self, worker: FakeWorker) -> None:
        self.missing = {f"volumes/{volume}" for volume in self.kopias[worker.id].volumes}
        self._flawed(worker, "missing source")
        self.missing = set()

    def _unreadable(self, worker: FakeWorker) -> None:
        self.failed = 2
        self._flawed(worker, "unreadable")
        self.failed = 0

    def _flawed(self, worker: FakeWorker, flaw: str) -> None:
        """Kopia says that all is well with what it stored, and it is not."""
        self.kopias[worker.id].flawed = flaw
        out = self._store(worker)
        if flaw == "incomplete":
            stored = self.repository.contents.snapshots
            record = json.loads(out) | {"incomplete": "canceled"}
            stored[-1] = replace(stored[-1], incomplete="canceled")
            out = json.dumps(record)
        self._end(worker)
        self._say(worker, "exit", code=0, out=out)
