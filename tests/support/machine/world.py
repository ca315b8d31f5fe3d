"""The world of the machine, and kopiwatch's processes in it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import anyio.lowlevel
import anyio.to_thread
import msgspec

from kopiwatch import wiring
from kopiwatch.backup import stray
from kopiwatch.backup.house import House
from kopiwatch.backup.journal import Journal
from kopiwatch.backup.run import Run
from kopiwatch.backup.state import StateFolder
from kopiwatch.clock import Clock
from kopiwatch.engine.port import EngineInfo
from kopiwatch.errors import KopiwatchError
from kopiwatch.kopia.lock import FileLock, holder
from kopiwatch.testing.engine import volume_mount
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.units.group import discover
from support.machine.docker import TimedEngine
from support.machine.kopia import TimedProgram, UnsteadyRepository
from support.machine.loop import Died, Endless, LeapingLoop, Time
from support.machine.oracle import MemberSpec, Oracle, Slot
from support.machine.others import Others
from support.machine.trouble import Course, Death, Happening, Trouble
from support.run_world import worker_access

EDITOR = "editor"
"""A container of no unit; it mounts the first member's volume writable, and is down at first."""
CALM = Trouble()
RECOVERIES = 4
"""As many processes without any trouble must be enough to settle everything."""


class World:
    """Containers, a repository and a state folder; :meth:`process` lets kopiwatch work in it.

    Use it as a context manager: it takes the place of threads, of fsync and of the process table.
    """

    def __init__(self, members: Iterable[MemberSpec]) -> None:
        self.time = Time()
        self.course = Course(Trouble())
        self.oracle = Oracle(self)
        self.frozen = False
        self.full = self.read_only = False
        self.runs = 0
        self.processes = 0
        self.known: set[str] = set()
        self.fired: Counter[str] = Counter()
        self._exit = contextlib.ExitStack()
        self._folder = Path(tempfile.mkdtemp(dir=_memory(), prefix="kopiwatch-machine-"))
        self.state = StateFolder(self._folder / "state")
        self.uuid = self.state.open()
        repository = FakeRepository(host="testhost")
        self.repository = UnsteadyRepository(self, repository)
        self.kopia = TimedProgram(self, repository)
        self.others = Others(self)
        self.engine = TimedEngine(
            self, script=self.kopia.script, images={"kopiwatch:1": "sha256:1"}
        )
        self._lock: FileLock | None = None
        self._scope: anyio.CancelScope | None = None
        for spec in members:
            slot = Slot(spec, "", "running" if spec.state != "exited" else "down")
            self.oracle.slots.append(slot)
            self.others.create(slot, spec.state)
        first = self.oracle.slots[0].spec.name
        self.editor = self.engine.add_container(
            EDITOR, state="exited", mounts=(volume_mount(first, "/data"),)
        )

    def __enter__(self) -> World:
        enter = self._exit.enter_context
        enter(mock.patch.object(anyio.to_thread, "run_sync", self._run_sync))
        enter(mock.patch.object(os, "fsync", self._fsync))
        enter(mock.patch.object(os, "unlink", partial(self._unlink, os.unlink)))
        self._exit.callback(shutil.rmtree, self._folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    # -- for the fakes -------------------------------------------------------------------------

    def enter(self) -> None:
        """Whoever works on behalf of a process that died must not."""
        if self.frozen:
            raise Died

    def wrong(self, what: str) -> None:
        self.oracle.wrong.append(what)

    def witness(self, operation: str, target: str) -> None:
        self.oracle.witness(operation, target)

    def journals(self) -> dict[str, Journal]:
        """The journals on the disk, by unit."""
        folder = self.state.journals.folder
        names = [name for name in os.listdir(folder) if name.endswith(".json")]
        return {
            name.removesuffix(".json"): msgspec.json.decode(
                (folder / name).read_bytes(), type=Journal
            )
            for name in names
        }

    def down(self, name: str) -> bool:
        """Whether the member of this name does not run."""
        return self.engine.state(name) not in ("running", "restarting")

    # -- in the place of the operating system --------------------------------------------------

    async def _run_sync(self, call: Callable[..., Any], *given: Any, **_: object) -> Any:
        """What a thread would do, at once, so that each history can be repeated."""
        await anyio.lowlevel.checkpoint()
        with anyio.CancelScope(shield=True):
            self.enter()
            if call is stray._kill_marked:
                return []  # no process of this machine is a worker
            before = self.journals()
            try:
                return call(*given)
            finally:
                self._compare(before)
                await anyio.lowlevel.checkpoint()
                self.enter()

    def _compare(self, before: dict[str, Journal]) -> None:
        after = self.journals()
        for unit, journal in before.items():
            now = after.get(unit)
            if not journal.judged and (now is None or now.judged):
                self.oracle.verdict_written(unit, journal.run)

    def _fsync(self, handle: int) -> None:
        folder = os.path.isdir(f"/proc/self/fd/{handle}")
        fault = self.course.take("disk", "folder" if folder else "file")
        if (
            self.read_only
            or (self.full and not folder)
            or fault == ("folder" if folder else "file")
        ):
            raise OSError(28, "No space left on device")

    def _unlink(self, real: Callable[..., None], path: Any, **given: Any) -> None:
        journal = self.state.journals.folder in Path(path).parents
        if journal and (self.read_only or self.course.take("disk", "unlink") == "unlink"):
            raise OSError(30, "Read-only file system")
        real(path, **given)

    # -- kopiwatch -----------------------------------------------------------------------------

    @property
    def clock(self) -> Clock:
        return Clock(self.time.now, self.time.seconds, anyio.sleep)

    def say(self, action: str, message: str, **_: object) -> None:
        """The listener of every run: it tells where the process is."""
        if action == "phase":
            self.course.begin(message)
        elif action == "watch":
            self.course.begin("watch")

    def process(self, work: str, trouble: Trouble = CALM) -> None:
        """One process of kopiwatch, from its start to its end or death.

        ``work`` is ``replay`` (as the daemon does it in between), ``settle`` (any command that
        changes something), or the unit that is to be backed up.
        """
        self.processes += 1
        self.course = Course(trouble)
        self.course.begin("replay")
        self.time.advance(self.time.passed + 1.0)
        loop = LeapingLoop(self.time, partial(self._turn))
        died = False
        try:
            loop.live(self._main(work))
        except Died:
            died = True
            self.frozen = False
            assert trouble.death is not None
            self._aftermath(trouble.death)
        except (KopiwatchError, Endless) as error:
            self.wrong(f"a process ended with {error!r}")
        self._ended(died=died)

    def _turn(self) -> None:
        happenings, signal, death = self.course.turn()
        for each in happenings:
            self.others.do(each.what, each.slot)
        if signal and self._scope is not None:
            self._scope.cancel()
        if death is not None:
            self.frozen = True
            raise Died

    def _aftermath(self, death: Death) -> None:
        """What the kernel and Docker do for a process that is no more."""
        if self._lock is not None:
            self._lock.release()
        for worker in self.engine.running_workers:
            self.time.later(death.linger, partial(self.engine.end_worker, worker))
        if death.torn:
            path = self.state.journals.folder / f".shop.json.{self.runs}.tmp"
            path.write_bytes(b'{"unit":"sh')

    def _ended(self, *, died: bool) -> None:
        fired = self.course.fired
        self.fired.update(fired)
        troubled = ("docker", "disk", "signal", "somebody dockerd", "somebody disk")
        calm = not died and not any(name.startswith(troubled) for name in fired)
        calm = calm and not self.full and not self.read_only
        self.oracle.ended(calm=calm, died=died)
        if self.engine.state(self.editor) == "running":
            self.engine.set_state(self.editor, "exited")
        if holder(self.state.run_lock) is not None:
            self.wrong("left over: the run lock is held")
        if calm:
            for unit, journal in self.journals().items():
                if journal.members:
                    self.wrong(f"P1: {unit} is owed a start although Docker did all it was asked")
        untouched = ("docker", "signal", "somebody dockerd")
        if not died and not any(name.startswith(untouched) for name in fired):
            for worker in self.engine.running_workers:
                self.wrong(f"left over: worker {worker.id[:12]} although Docker did all")
        self.oracle.check_points()

    async def _main(self, work: str) -> None:
        with anyio.CancelScope() as self._scope:
            self._lock = FileLock(self.state.run_lock, command="machine", now=self.time.now)
            with contextlib.suppress(KopiwatchError):
                async with self._lock.hold():
                    await self._work(work)

    async def _work(self, work: str) -> None:
        await wiring.replay(self.engine, self.state, self.uuid, self, self.clock)
        if work == "replay":
            return
        self.course.begin("settle")
        await self.repository.status()
        await wiring.settle(self.repository, self.state, self)
        if work == "settle":
            return
        rows = await self.engine.containers()
        unit = next((unit for unit in discover(rows).units if unit.name == work), None)
        if unit is None:
            return
        assert unit.valid, unit.problems
        self.known = {row.id for row in rows}
        self.runs += 1
        name = f"r{self.runs}"
        run = Run(await self._house(), unit, rows, name)
        try:
            await run.execute()
        except KopiwatchError as error:
            self.wrong(f"run {name} raised {error!r}")
        finally:
            if run.result is not None and not self.frozen:
                names = [member.container.name for member in unit.members]
                self.oracle.concluded(name, run.result, names)

    async def _house(self) -> House:
        return House(
            engine=self.engine,
            info=EngineInfo("FAKE:ENGINE", "fakehost", "20.10.24", "1.41"),
            repository=self.repository,  # type: ignore[arg-type]
            access=worker_access(self.engine, self.state, self.uuid),
            state=self.state,
            host="testhost",
            instance="default",
            own="",
            owner="{}",
            environment={},
            repository_is_folder=True,
            listener=self,
            clock=self.clock,
            run_timeout=timedelta(hours=1),
        )

    # -- the end -------------------------------------------------------------------------------

    def recover(self) -> None:
        """All trouble is over; kopiwatch gets its chances, and then the promises must hold."""
        self.repository.away = self.full = self.read_only = False
        for _ in range(RECOVERIES):
            if not self.journals() and not self.engine.running_workers:
                break
            self.time.advance(self.time.passed + 30.0)
            self.process("settle")
        self.time.advance(self.time.passed + 7200.0)
        self.oracle.check_members()
        self.oracle.check_hooks()
        self.oracle.check_left_over()
        self.oracle.check_points()

    def healthy_again(self) -> None:
        """After all that, a run of a world without trouble is a success."""
        for unit in {slot.spec.unit for slot in self.oracle.slots if slot.id}:
            mine = [slot.spec for slot in self.oracle.slots if slot.spec.unit == unit and slot.id]
            before = self.runs
            self.process(unit)
            result = self.oracle.results.get(f"r{before + 1}")
            if any(spec.health == "sick" or spec.loops for spec in mine):
                continue
            if result is not None and result.reason == "source-vanished":
                continue  # somebody removed a member, and nobody has accepted that
            if result is None or result.verdict != "success":
                self.wrong(f"a run without any trouble is no success: {result}")
        self.time.advance(self.time.passed + 60.0)
        self.oracle.check_members()
        self.oracle.check_left_over()
        self.oracle.check_points()


def _memory() -> str | None:
    """A folder in memory, where writing costs nothing; None: wherever temporary files go."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


@contextlib.contextmanager
def world_of(*members: MemberSpec) -> Iterator[World]:
    """A world for a history that is written out; at its end the promises must have held."""
    with World(members) as world:
        yield world
        world.recover()
        world.healthy_again()
        assert world.oracle.wrong == []


__all__ = ["Happening", "MemberSpec", "Trouble", "World", "world_of"]
