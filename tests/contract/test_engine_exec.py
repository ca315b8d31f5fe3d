"""Streamed commands: what every engine does, and what only a real Docker can show."""

from __future__ import annotations

import resource
from collections.abc import AsyncIterator
from datetime import timedelta

import anyio
import pytest
from support import docker
from support.engine_world import DockerWorld, World

from kopiwatch.engine.client import DockerEngine
from kopiwatch.errors import ContainerGone, EngineError, RunError

pytestmark = pytest.mark.anyio
SOON = timedelta(seconds=20)
LARGE_BYTES = 200 * 1024 * 1024


@pytest.fixture
async def real(busybox: str) -> AsyncIterator[DockerWorld]:
    with docker.scope(busybox) as scope:
        async with await DockerEngine.connect(docker.URL) as engine:
            yield DockerWorld(engine, scope)


class Heard:
    """Keeps what a command prints."""

    def __init__(self) -> None:
        self.out = b""
        self.err = b""
        self.first = anyio.Event()

    async def take(self, piece: bytes) -> None:
        self.out += piece
        self.first.set()

    def complain(self, piece: bytes) -> None:
        self.err += piece


async def run(world: World, container: str, script: str, heard: Heard, **more: object) -> int:
    return await world.engine.exec_stream(
        container,
        ("/bin/sh", "-c", script),
        out=heard.take,
        err=heard.complain,
        **{"timeout": SOON, **more},
    )


async def test_both_outputs_come_apart_and_the_exit_code_with_them(world: World):
    db, heard = world.run("db"), Heard()
    code = await run(world, db, "printf 'a\\nb'; echo oops >&2; exit 3", heard)
    assert (code, heard.out, heard.err) == (3, b"a\nb", b"oops\n")


async def test_standard_input_arrives(world: World):
    """A secret goes this way: no argument and no variable holds it."""
    db, heard = world.run("db"), Heard()
    script = 'IFS= read -r word; printf "%s" "$word" | wc -c'
    assert await run(world, db, script, heard, stdin=b"pass word\n") == 0
    assert heard.out.strip() == b"9"


async def test_program_that_is_not_there_is_an_exit_code(world: World):
    db, heard = world.run("db"), Heard()
    code = await world.engine.exec_stream(
        db, ("no-such-program",), out=heard.take, err=heard.complain, timeout=SOON
    )
    assert code in (126, 127)
    assert b"no-such-program" in heard.out + heard.err


async def test_command_that_does_not_end_in_time_is_an_error(world: World):
    db, heard = world.run("db"), Heard()
    with pytest.raises(EngineError, match=r"not ended within 0\.3 s"):
        await world.engine.exec_stream(
            db,
            ("sleep", "5"),
            out=heard.take,
            err=heard.complain,
            timeout=timedelta(seconds=0.3),
        )


@pytest.mark.parametrize("state", ["paused", "stopped", "gone"])
async def test_container_that_does_not_run_is_an_error(world: World, state):
    db, heard = world.run("db"), Heard()
    if state == "gone":
        world.remove(db)
    else:
        await (world.engine.pause(db) if state == "paused" else world.engine.stop(db, None))
    with pytest.raises(ContainerGone if state == "gone" else EngineError):
        await run(world, db, "true", heard)


async def test_what_the_reader_raises_ends_the_call(world: World):
    """A full disk, for one."""
    db, heard = world.run("db"), Heard()

    async def refuse(_piece: bytes) -> None:
        raise RunError("no room", phase="dumps", reason="space")

    with pytest.raises(RunError, match="no room"):
        await world.engine.exec_stream(
            db,
            ("/bin/sh", "-c", "echo x; sleep 3"),
            out=refuse,
            err=heard.complain,
            timeout=SOON,
        )


async def test_killed_command_ends_with_its_signal(real: DockerWorld):
    """137, and all that it printed before."""
    db, heard = real.run("db"), Heard()
    code = await run(real, db, "echo begun; kill -9 $$; echo never", heard)
    assert (code, heard.out) == (137, b"begun\n")


@pytest.mark.parametrize("way", ["stop", "kill", "rm"])
async def test_container_that_ends_in_the_middle_is_no_success(real: DockerWorld, way):
    """An exit code other than 0, or an error: never a quiet end."""
    db, heard, codes = real.run("db"), Heard(), []

    async def listen() -> None:
        try:
            codes.append(await run(real, db, "while :; do echo more; sleep 0.05; done", heard))
        except EngineError as error:
            codes.append(type(error))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await heard.first.wait()
        options = {"stop": ("stop", "-t", "1"), "kill": ("kill",), "rm": ("rm", "-f", "-v")}
        await anyio.to_thread.run_sync(docker.call, *options[way], db)
    assert codes not in ([], [0]), codes


@pytest.mark.timeout(120)
async def test_large_output_does_not_pile_up_behind_a_slow_reader(real: DockerWorld):
    """200 MiB in flat memory: what is not read yet waits in the command."""
    db = real.run("db")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seen = 0

    async def slow(piece: bytes) -> None:
        nonlocal seen
        if not seen:
            await anyio.sleep(2)  # time enough for all of it to arrive, if nothing held it back
        seen += len(piece)

    script = f"head -c {LARGE_BYTES} /dev/zero"
    code = await real.engine.exec_stream(
        db, ("/bin/sh", "-c", script), out=slow, err=lambda _: None, timeout=timedelta(seconds=90)
    )
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert (code, seen) == (0, LARGE_BYTES)
    assert grown < 24 * 1024, f"{grown} KiB more"


async def test_secret_on_standard_input_is_nowhere_to_be_seen(real: DockerWorld):
    """Neither in Docker's own account of the exec nor in the list of processes."""
    db, heard = real.run("db"), Heard()
    seen = []

    async def listen() -> None:
        script = "IFS= read -r word; export WORD=$word; echo ready; sleep 2"
        await run(real, db, script, heard, stdin=b"hunter2-secret\n")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(listen)
        await heard.first.wait()
        seen.append(await anyio.to_thread.run_sync(docker.call, "top", db))
        identity = docker.inspect(db)["ExecIDs"][0]
        path = f"/exec/{identity}/json"
        seen.append((await real.engine._connection.call("look", "GET", path[1:])).body.decode())
    assert "sleep" in "".join(seen)
    assert "hunter2" not in "".join(seen)
