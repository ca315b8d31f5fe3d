"""A house on the shipped fakes: Docker, Kopia and time in memory, state in a folder."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio

from kopiwatch.backup.access_worker import OwnFolders, WorkerAccess
from kopiwatch.backup.house import House
from kopiwatch.backup.journal import Journal
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.run import Run
from kopiwatch.backup.state import StateFolder
from kopiwatch.clock import Clock
from kopiwatch.engine.port import Engine
from kopiwatch.testing.engine import FakeEngine, volume_mount
from kopiwatch.testing.gate import FakeProgram
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.units.group import discover

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


class FakeClock:
    """Time that passes only when somebody sleeps; ``jumped`` is how far it was set."""

    def __init__(self) -> None:
        self.passed = 0.0
        self.jumped = timedelta(0)
        self.slept: list[float] = []

    @property
    def clock(self) -> Clock:
        return Clock(self.now, self.seconds, self.sleep)

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.passed) + self.jumped

    def seconds(self) -> float:
        return self.passed

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.passed += seconds
        await anyio.lowlevel.checkpoint()


class Said:
    """A listener that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def say(self, action: str, message: str, **facts: object) -> None:
        self.events.append((action, message))


def worker_access(engine: Engine, state: StateFolder, uuid: str) -> WorkerAccess:
    """Workers of the image that the fake engine has."""
    return WorkerAccess(
        engine,
        image="kopiwatch:1",
        state=uuid,
        network="none",
        folders=OwnFolders(
            locks="/state/locks",
            staging="/state/staging",
            cache="/cache",
            repository="/repository",
            staging_here=state.staging,
        ),
    )


class RunWorld:
    """Two members, ``web`` depends on ``db``, one volume each, all labelled as unit ``shop``."""

    def __init__(self, folder: Path) -> None:
        self.repository = FakeRepository(host="testhost")
        self.program = FakeProgram(self.repository)
        self.time = FakeClock()
        self.engine = FakeEngine(script=self.program.script, images={"kopiwatch:1": "sha256:1"})
        self.state = StateFolder(folder / "state")
        self.uuid = self.state.open()
        self.said = Said()
        self.run_timeout = 24 * 3600.0
        self.stage_paths: tuple[Path, ...] = ()
        self.db = self.member("db", "data")
        self.web = self.member("web", "files", depends="db:service_started:false")

    def member(self, name: str, volume: str, *, depends: str = "", **more: object) -> str:
        labels = {
            "kopi.enable": "true",
            "com.docker.compose.project": "shop",
            "com.docker.compose.service": name,
            "com.docker.compose.container-number": "1",
            "com.docker.compose.depends_on": depends,
        }
        mounts = (volume_mount(volume, "/data"),)
        return self.engine.add_container(name, labels=labels, mounts=mounts, **more)

    async def house(self) -> House:
        return House(
            engine=self.engine,
            info=await self.engine.info(),
            repository=self.repository,
            access=worker_access(self.engine, self.state, self.uuid),
            state=self.state,
            host="testhost",
            instance="default",
            own="",
            owner="{}",
            environment={},
            repository_is_folder=True,
            listener=self.said,
            clock=self.time.clock,
            run_timeout=timedelta(seconds=self.run_timeout),
            identity=self.uuid,
            stage_paths=self.stage_paths,
        )

    async def run(self, name: str = "shop", run: str = "r1") -> RunResult:
        rows = await self.engine.containers()
        (unit,) = [unit for unit in discover(rows).units if unit.name == name]
        assert unit.valid, unit.problems
        return await Run(await self.house(), unit, rows, run).execute()

    @property
    def states(self) -> list[str]:
        return [self.engine.state(self.db), self.engine.state(self.web)]

    async def journal(self, unit: str = "shop") -> Journal | None:
        return await self.state.journals.read(unit)
