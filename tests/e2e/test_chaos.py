"""The watcher on a Docker of its own that is stopped, killed, cut off and flooded.

Each test ends alike: the last sighting equals a fresh list, and the watcher still runs. The regular
list comes after 5 minutes only, so none of them is saved by it.
"""

from __future__ import annotations

import asyncio
import random
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
import pytest
from msgspec.structs import replace
from support.cutter import Cutter
from support.own_docker import OwnDocker, own_docker

from kopiwatch.clock import SYSTEM
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.port import Engine
from kopiwatch.task import unwrapped
from kopiwatch.units.container import Container
from kopiwatch.units.label import ENABLE
from kopiwatch.watch.watcher import Sighting, Watcher

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]
LABEL = f"--label={ENABLE}=true"


@pytest.fixture(scope="module")
def daemon() -> Iterator[OwnDocker]:
    with own_docker() as made:
        made.start()
        made.import_image()
        yield made


@pytest.fixture(autouse=True)
def fresh(daemon: OwnDocker) -> None:
    """The daemon runs and is empty, whatever the test before did to it."""
    if not daemon.running:
        daemon.start()
    daemon.empty()


class Watching:
    """A watcher that runs, and what it saw."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.sightings: list[Sighting] = []
        self.said: list[tuple[str, str]] = []
        self.watcher = Watcher(
            self.connect,
            self.seen,
            changed=lambda: None,
            listener=self,
            clock=SYSTEM,
            # Short waits: what is tried here is not how long they are.
            random=lambda: 0.05 * random.random(),
            relevant=lambda row: ENABLE in row.labels,
            socket=Path(url.removeprefix("unix://")),
        )

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[Engine]:
        async with await DockerEngine.connect(self.url) as engine:
            yield engine

    async def seen(self, engine: Engine, sighting: Sighting) -> None:
        self.sightings.append(sighting)

    def say(self, action: str, message: str, **facts: object) -> None:
        self.said.append((action, f"{facts.get('level')}: {message}"))

    @property
    def lists(self) -> int:
        return sum(self.watcher.facts.resyncs.values())

    @property
    def names(self) -> set[str]:
        return {row.name for row in self.sightings[-1].rows} if self.sightings else set()

    async def until(self, fact: Callable[[], bool], what: str, seconds: float = 40) -> None:
        end = time.monotonic() + seconds
        while not fact():
            assert time.monotonic() < end, f"waited in vain until {what}: {self.said[-10:]}"
            await anyio.sleep(0.05)

    async def is_connected(self) -> None:
        await self.until(lambda: self.watcher.facts.connected, "it is connected")


@asynccontextmanager
async def watching(url: str) -> AsyncIterator[Watching]:
    """A watcher beside the block; an error that ends it ends the block."""
    made = Watching(url)
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(made.watcher.run)
            yield made
            tasks.cancel_scope.cancel()


async def ends_with_the_truth(seen: Watching, daemon: OwnDocker) -> None:
    """The last sighting is what a fresh client lists, and the watcher still takes notice."""
    await seen.is_connected()
    deadline = time.monotonic() + 20
    while _plain(seen.sightings[-1].rows) != (truth := await _listed(daemon)):
        assert time.monotonic() < deadline, f"{seen.sightings[-1].rows}\n\nis not\n\n{truth}"
        await anyio.sleep(0.2)
    await asyncio.to_thread(daemon.run, "afterwards", LABEL)
    await seen.until(lambda: "afterwards" in seen.names, "it takes notice", seconds=15)
    assert _plain(seen.sightings[-1].rows) == await _listed(daemon)


async def _listed(daemon: OwnDocker) -> list[Container]:
    async with await DockerEngine.connect(daemon.url) as engine:
        return _plain(await engine.containers())


def _plain(rows: tuple[Container, ...]) -> list[Container]:
    """Without the sentence "Up 3 seconds"."""
    return [replace(row, status="") for row in rows]


@asynccontextmanager
async def load(daemon: OwnDocker) -> AsyncIterator[None]:
    """Containers that start, stop, are renamed and recreated for as long as the block runs."""
    over = threading.Event()

    def work(mine: str) -> None:
        step = 0
        while not over.is_set():
            step += 1
            with suppress(RuntimeError):  # the daemon is away now and then
                match step % 4:
                    case 0:
                        daemon.call("rm", "--force", mine)
                    case 1:
                        daemon.run(mine, LABEL)
                    case 2:
                        daemon.call("rename", mine, f"{mine}-x")
                        daemon.call("rename", f"{mine}-x", mine)
                    case _:
                        daemon.call("kill", mine)
                        daemon.call("start", mine)

    async with anyio.create_task_group() as tasks:
        for name in ("one", "two"):
            tasks.start_soon(asyncio.to_thread, work, name)
        try:
            yield
        finally:
            over.set()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda n: n.name)
async def test_daemon_that_goes_under_load_and_comes_back(daemon, number):
    for name in ("first", "second"):
        daemon.run(name, LABEL)
    async with watching(daemon.url) as seen:
        await seen.is_connected()
        async with load(daemon):
            await anyio.sleep(3)
            daemon.signal(number)
            await asyncio.to_thread(daemon.wait)
            await seen.until(lambda: not seen.watcher.facts.connected, "the loss is noticed")
            known = set(seen.names)
            await anyio.sleep(1)
            assert seen.names == known
            assert {"first", "second"} <= known
            assert seen.watcher.facts.trouble
            await asyncio.to_thread(daemon.start)
            await anyio.sleep(3)
        await ends_with_the_truth(seen, daemon)
        assert seen.watcher.facts.reconnects >= 1
        assert "docker-back" in {action for action, _ in seen.said}


async def test_daemon_with_live_restore_comes_back_to_running_containers(daemon):
    daemon.signal(signal.SIGTERM)
    daemon.wait()
    daemon.start(live_restore=True)
    try:
        daemon.run("first", LABEL)
        async with watching(daemon.url) as seen:
            await seen.is_connected()
            daemon.signal(signal.SIGTERM)
            await asyncio.to_thread(daemon.wait)
            await seen.until(lambda: not seen.watcher.facts.connected, "the loss is noticed")
            await asyncio.to_thread(daemon.start, live_restore=True)
            await ends_with_the_truth(seen, daemon)
            assert [row.state for row in seen.sightings[-1].rows] == ["running", "running"]
            assert {row.state for s in seen.sightings for row in s.rows if row.name == "first"} == {
                "running"
            }
    finally:
        daemon.empty()
        daemon.signal(signal.SIGTERM)
        daemon.wait()


async def test_twenty_cut_connections_under_load(daemon, tmp_path):
    cutter = Cutter(tmp_path / "cut.sock", daemon.url)
    async with cutter.serving(), watching(f"unix://{tmp_path}/cut.sock") as seen:
        async with load(daemon):
            for count in range(20):
                await seen.until(
                    lambda: seen.watcher.facts.connected and seen.watcher.facts.reconnects >= count,  # noqa: B023
                    f"connection {count + 1} stands",
                )
                await anyio.sleep(random.uniform(0, 0.5))
                cutter.cut()
        await seen.until(lambda: seen.watcher.facts.reconnects >= 20, "it is back")
        await ends_with_the_truth(seen, daemon)


async def test_container_with_600_kib_of_labels(daemon, tmp_path):
    labels = tmp_path / "labels"
    labels.write_text("".join(f"big{n}={'x' * 60 * 1024}\n" for n in range(10)))
    async with watching(daemon.url) as seen:
        await seen.is_connected()
        big = await asyncio.to_thread(daemon.run, "big", LABEL, f"--label-file={labels}")
        await seen.until(lambda: "big" in seen.names, "it is seen")
        await asyncio.to_thread(daemon.run, "other", LABEL)
        await seen.until(lambda: "other" in seen.names, "the next one is seen")
        await seen.is_connected()
        told = seen.watcher.facts.oversized
        await asyncio.to_thread(daemon.call, "stop", big)
        await seen.until(lambda: seen.watcher.facts.oversized > told, "its stop is told")
        await ends_with_the_truth(seen, daemon)
        assert seen.watcher.facts.oversized >= 2
        assert [level.split(":")[0] for action, level in seen.said if "oversized" in action][
            :2
        ] == [
            "warning",
            "debug",
        ]


async def test_storm_of_a_hundred_renames(daemon):
    names = [f"c{number}" for number in range(5)]
    for name in names:
        daemon.run(name, LABEL)
    async with watching(daemon.url) as seen:
        await seen.is_connected()
        before, began = seen.lists, time.monotonic()

        def storm() -> None:
            for turn in range(20):
                for name in names:
                    daemon.call(
                        "rename", name if turn == 0 else f"{name}-{turn - 1}", f"{name}-{turn}"
                    )

        await asyncio.to_thread(storm)
        lasted = time.monotonic() - began
        await seen.until(lambda: seen.watcher.facts.events.get("rename", 0) == 100, "all are told")
        await ends_with_the_truth(seen, daemon)
        assert {f"{name}-19" for name in names} <= seen.names
        # Two at the end (the storm's, and that of the last container), one for each 10 s of it.
        assert seen.lists - before <= 3 + lasted / 10


async def test_docker_that_comes_late(daemon):
    daemon.signal(signal.SIGTERM)
    daemon.wait()
    daemon.socket.unlink(missing_ok=True)
    async with watching(daemon.url) as seen:
        await seen.until(lambda: bool(seen.watcher.facts.trouble), "its absence is noticed")
        await anyio.sleep(2)
        assert (seen.watcher.facts.connected, seen.sightings) == (False, [])
        warnings = [words for _, words in seen.said if words.startswith("warning")]
        assert len(warnings) == 1
        assert "no such socket" in warnings[0]
        await asyncio.to_thread(daemon.start)
        await seen.is_connected()
        await ends_with_the_truth(seen, daemon)
