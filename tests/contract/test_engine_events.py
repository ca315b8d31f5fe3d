"""What every engine's events are: the fake one's in memory, and those of the real Docker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

import anyio
import pytest
from support import docker
from support.cutter import Cutter
from support.engine_world import DockerWorld, FakeWorld, World

from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.port import Hint, VolumeMount
from kopiwatch.errors import EngineError, EngineUnreachable, EventTooLarge
from kopiwatch.units.label import ENABLE

pytestmark = pytest.mark.anyio
LABELS = {ENABLE: "true"}


class EventWorld(Protocol):
    """A host, and the ways in which its events can be disturbed."""

    world: World

    async def do(self, action: str, container: str, name: str = "") -> None:
        """Somebody else does it: ``start``, ``stop``, ``rename``, ``remove``."""

    async def run(self, name: str, labels: dict[str, str]) -> str:
        """Make and start a container. Returns its id."""

    async def cut(self) -> None:
        """Break the connection in the middle."""

    async def big(self) -> str:
        """Make a container, never started, whose events are too large. Returns its id."""


class FakeEvents:
    def __init__(self) -> None:
        self.world = FakeWorld()

    async def do(self, action: str, container: str, name: str = "") -> None:
        host = self.world.engine
        match action:
            case "start":
                host.set_state(container, "running")
            case "stop":
                host.set_state(container, "exited")
            case "pause":
                host.set_state(container, "paused")
            case "rename":
                host.rename(container, name)
            case _:
                host.remove(container)

    async def run(self, name: str, labels: dict[str, str]) -> str:
        return self.world.run(name, labels=labels)

    async def cut(self) -> None:
        self.world.engine.cut_events(EngineUnreachable("it closed the connection"))

    async def big(self) -> str:
        self.world.engine.oversized.add(self.world.full("big"))
        return self.world.run("big", labels=LABELS, start=False)


class DockerEvents:
    def __init__(self, world: DockerWorld, cutter: Cutter, folder: Path) -> None:
        self.world = world
        self.cutter = cutter
        self.folder = folder

    async def do(self, action: str, container: str, name: str = "") -> None:
        words = {
            "rename": ("rename", container, name),
            "remove": ("rm", "--force", "--volumes", container),
        }.get(action, (action, container))
        await asyncio.to_thread(docker.call, *words)

    async def run(self, name: str, labels: dict[str, str]) -> str:
        return await asyncio.to_thread(self.world.run, name, labels=labels)

    async def cut(self) -> None:
        self.cutter.cut()

    async def big(self) -> str:
        file = self.folder / "labels"
        # A line of 64 KiB is the most that the command line takes.
        file.write_text("".join(f"big{n}={'x' * 60 * 1024}\n" for n in range(10)))
        return await asyncio.to_thread(
            self.world.scope.run,
            "big",
            labels=LABELS,
            options=["--label-file", str(file)],
            start=False,
        )


@pytest.fixture(params=["fake", "docker"])
async def host(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventWorld]:
    if request.param == "fake":
        yield FakeEvents()
        return
    async with AsyncExitStack() as stack:
        scope = stack.enter_context(docker.scope(request.getfixturevalue("busybox")))
        cutter = Cutter(tmp_path / "cut.sock", docker.URL)
        await stack.enter_async_context(cutter.serving())
        engine = await stack.enter_async_context(
            await DockerEngine.connect(f"unix://{tmp_path}/cut.sock")
        )
        yield DockerEvents(DockerWorld(engine, scope), cutter, tmp_path)


async def now(host: EventWorld) -> datetime:
    moment = (await host.world.engine.info()).system_time
    assert moment is not None
    return moment


async def take(hints: AsyncIterator[Hint], until: str, ids: set[str]) -> list[Hint]:
    """Hints of these containers until the first of this action. Others' events are passed over."""
    found: list[Hint] = []
    with anyio.fail_after(10):
        async for hint in hints:
            if hint.container in ids:
                found.append(hint)
                if hint.action == until:
                    return found
    raise AssertionError(f"the stream ended before {until}: {found}")


async def test_life_of_a_container_is_told_with_its_id_and_time(host: EventWorld):
    begun = await now(host)
    async with host.world.engine.events(since=None) as hints:
        await anyio.sleep(0.1)  # no since: the headers come before the subscription
        db = await host.run("db", LABELS)
        await host.do("stop", db)
        await host.do("start", db)
        await host.do("rename", db, host.world.full("new"))
        await host.do("stop", db)
        await host.do("remove", db)
        told = await take(hints, "destroy", {db})
    actions = [hint.action for hint in told]
    assert actions == ["create", "start", "die", "start", "rename", "die", "destroy"]
    times = [hint.at for hint in told]
    assert all(at is not None and at.utcoffset() == timedelta(0) for at in times)
    assert times == sorted(times)
    assert begun <= times[0]
    assert times[-1] <= await now(host)


async def test_only_labelled_containers_are_told_of(host: EventWorld):
    since = await now(host)
    other = await host.run("other", {"some": "label"})
    yes = await host.run("yes", {ENABLE: "yes"})
    await host.do("remove", other)
    await host.do("remove", yes)
    async with host.world.engine.events(since=since) as hints:
        told = await take(hints, "destroy", {yes, other})
    assert {hint.container for hint in told} == {yes}


async def test_pausing_and_probing_are_not_told(host: EventWorld):
    since = await now(host)
    db = await host.run("db", LABELS)
    await host.do("pause", db)
    await host.world.engine.unpause(db)
    await host.world.engine.exec(db, ("true",), timeout=timedelta(seconds=10))
    await host.do("remove", db)
    async with host.world.engine.events(since=since) as hints:
        told = await take(hints, "destroy", {db})
    assert [hint.action for hint in told] == ["create", "start", "die", "destroy"]


async def test_since_tells_again_what_was_told_from_the_last_event_on(host: EventWorld):
    since = await now(host)
    db = await host.run("db", LABELS)
    async with host.world.engine.events(since=since) as hints:
        told = await take(hints, "start", {db})
    await host.do("stop", db)
    async with host.world.engine.events(since=told[-1].at) as hints:
        again = await take(hints, "die", {db})
    assert again[0] == told[-1]
    assert [hint.action for hint in again] == ["start", "die"]


async def test_without_since_nothing_of_before_is_told(host: EventWorld):
    db = await host.run("db", LABELS)
    async with host.world.engine.events(since=None) as hints:
        await anyio.sleep(0.1)
        await host.do("stop", db)
        told = await take(hints, "die", {db})
    assert [hint.action for hint in told] == ["die"]


async def test_two_may_follow_at_once(host: EventWorld):
    since = await now(host)
    engine = host.world.engine
    async with engine.events(since=since) as one, engine.events(since=since) as other:
        db = await host.run("db", LABELS)
        assert await take(one, "start", {db}) == await take(other, "start", {db})


async def test_lists_work_while_events_are_followed(host: EventWorld):
    async with host.world.engine.events(since=await now(host)) as hints:
        db = await host.run("db", LABELS)
        await take(hints, "start", {db})
        assert db in {row.id for row in await host.world.engine.containers()}


async def test_cut_connection_raises_and_the_next_one_works(host: EventWorld):
    since = await now(host)
    async with host.world.engine.events(since=since) as hints:
        db = await host.run("db", LABELS)
        await take(hints, "start", {db})
        await host.cut()
        with pytest.raises(EngineError) as caught, anyio.fail_after(10):
            await take(hints, "never", {db})
        assert isinstance(caught.value, EngineUnreachable)
    async with host.world.engine.events(since=since) as hints:
        assert len(await take(hints, "start", {db})) == 2


async def test_oversized_event_breaks_the_stream_each_time_it_is_asked_for(host: EventWorld):
    since = await now(host)
    big = await host.big()
    for _ in range(2):
        async with host.world.engine.events(since=since) as hints:
            with pytest.raises(EventTooLarge):
                await take(hints, "create", {big})
    assert big in {row.id for row in await host.world.engine.containers()}
    async with host.world.engine.events(since=None) as hints:
        await anyio.sleep(0.1)
        db = await host.run("db", LABELS)
        assert len(await take(hints, "start", {db})) == 2


async def test_writable_mount_is_remembered_after_its_container_is_gone(host: EventWorld):
    """Who came and went between two looks is told, with its name; nothing of before is."""
    before = await asyncio.to_thread(host.world.run, "before", volume="data")
    await host.do("remove", before)
    since = await now(host)
    passer = await asyncio.to_thread(host.world.run, "passer", volume="data", bind="/etc")
    await host.do("remove", passer)
    told = await host.world.engine.mounted(since)
    ours = [mount for mount in told.mounts if mount.container in (before, passer)]
    assert ours == [VolumeMount(host.world.full("data"), passer, host.world.full("passer"))]
    assert told.complete


@pytest.mark.timeout(120)
async def test_events_that_docker_forgot_are_not_called_complete(host: EventWorld):
    """It keeps 256 of all kinds, and an exec makes three."""
    since = await now(host)
    engine = host.world.engine
    thing = await host.run("thing", {})

    async def probe() -> None:
        for _ in range(15):
            await engine.exec(thing, ("true",), timeout=timedelta(seconds=20))

    async with anyio.create_task_group() as tasks:
        for _ in range(6):
            tasks.start_soon(probe)
    assert not (await engine.mounted(since)).complete
