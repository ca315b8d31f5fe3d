"""What every engine does: the fake one in memory, and the real one on the real Docker."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import anyio
import msgspec
import pytest
from msgspec.structs import replace
from support.engine_world import World, missing_host_path

from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.health import wait_healthy
from kopiwatch.engine.port import Engine, WorkerMount
from kopiwatch.errors import ContainerGone, EngineError, ImageMissing, StillRunning
from kopiwatch.testing.engine import FakeEngine

pytestmark = pytest.mark.anyio
SOON = timedelta(seconds=10)


def test_both_are_engines():
    """For the type checker: neither lacks a method of the port."""
    engines: list[type[Engine]] = [FakeEngine, DockerEngine]
    assert all(hasattr(engine, "remove_worker") for engine in engines)


async def test_info_names_the_daemon(world: World):
    info = await world.engine.info()
    assert all((info.id, info.name, info.version, info.api_version))
    again = await world.engine.info()
    assert info.system_time is not None
    assert again.system_time is not None
    assert again.system_time >= info.system_time
    assert replace(info, system_time=None) == replace(again, system_time=None)


async def test_list_holds_labels_state_mounts_and_network(world: World):
    db = world.run(
        "db", volume="data", anonymous="/anon", bind="/etc", labels={"kopi.enable": "true"}
    )
    idle = world.run("idle", start=False)
    rows = {row.id: row for row in await world.engine.containers()}
    row = rows[db]
    assert (row.name, row.state, rows[idle].state) == (world.full("db"), "running", "created")
    assert row.labels["kopi.enable"] == "true"
    assert row.created is not None
    assert row.created <= datetime.now(UTC) + timedelta(days=1)
    mounts = {mount.destination: mount for mount in row.mounts}
    assert (mounts["/data"].kind, mounts["/data"].volume) == ("volume", world.full("data"))
    assert (mounts["/anon"].anonymous, mounts["/anon"].source) == (True, "")
    assert (mounts["/bind"].source, mounts["/bind"].writable) == ("/etc", False)


async def test_inspect_works_by_id_and_name_and_knows_anonymous_paths(world: World):
    db = world.run("db", anonymous="/anon", check="exit 0")
    found = await world.engine.inspect(db)
    again = await world.engine.inspect(world.full("db"))
    assert (found.id, found.name, found.running) == (again.id, world.full("db"), True)
    assert found.started_at is not None
    assert found.started_at.utcoffset() == timedelta(0)
    assert found.healthcheck is not None
    assert found.healthcheck.argv == ("/bin/sh", "-c", "exit 0")
    assert found.mounts[0].source.endswith(f"/{found.mounts[0].volume}/_data")
    assert found.definition.startswith(b"{")


async def test_stop_and_start_tell_whether_it_was_they(world: World):
    db = world.run("db")
    engine = world.engine
    before = (await engine.inspect(db)).started_at
    assert await engine.stop(db, None)
    assert world.state(db) == "exited"
    assert not await engine.stop(db, timedelta(seconds=1))
    assert await engine.start(db)
    assert world.state(db) == "running"
    assert not await engine.start(db)
    after = (await engine.inspect(db)).started_at
    assert before is not None
    assert after is not None
    assert after > before


async def test_stops_and_starts_may_overlap(world: World):
    ids = [world.run(f"c{n}") for n in range(5)]
    for call, state in (
        (lambda c: world.engine.stop(c, None), "exited"),
        (world.engine.start, "running"),
    ):
        async with anyio.create_task_group() as group:
            for container in ids:
                group.start_soon(call, container)
        assert {world.state(container) for container in ids} == {state}


async def test_pause_freezes_and_unpause_thaws(world: World):
    db, engine = world.run("db"), world.engine
    await engine.pause(db)
    assert (await engine.inspect(db)).paused
    assert (world.state(db), (await engine.inspect(db)).running) == ("paused", True)
    for refused in (engine.pause, engine.start):
        with pytest.raises(EngineError) as caught:
            await refused(db)
        assert type(caught.value) is EngineError
    await engine.unpause(db)
    assert world.state(db) == "running"
    with pytest.raises(EngineError, match="unpause"):
        await engine.unpause(db)


async def test_paused_container_can_be_stopped(world: World):
    db = world.run("db")
    await world.engine.pause(db)
    assert await world.engine.stop(db, None)
    assert world.state(db) == "exited"


async def test_exec_returns_exit_code_and_both_outputs(world: World):
    db = world.run("db")
    argv = ("/bin/sh", "-c", "echo out; echo err >&2; exit 3")
    result = await world.engine.exec(db, argv, timeout=SOON)
    assert result.exit_code == 3
    assert sorted(result.output.split()) == ["err", "out"]


async def test_exec_keeps_the_end_of_long_output(world: World):
    db = world.run("db")
    argv = ("/bin/sh", "-c", "i=0; while [ $i -lt 4000 ]; do echo line$i; i=$((i+1)); done")
    result = await world.engine.exec(db, argv, timeout=SOON)
    assert len(result.output) == 8192
    assert result.output.endswith("line3999\n")


async def test_exec_of_a_program_that_is_not_there_fails_as_an_exit_code(world: World):
    db = world.run("db")
    result = await world.engine.exec(db, ("no-such-program",), timeout=SOON)
    assert result.exit_code in (126, 127)
    assert "no-such-program" in result.output


async def test_exec_sees_its_variables(world: World):
    db = world.run("db")
    argv = ("/bin/sh", "-c", 'printf "%s" "$KW_ONE"')
    result = await world.engine.exec(db, argv, timeout=SOON, env={"KW_ONE": "a b=c\n'$x"})
    assert result.output == "a b=c\n'$x"


async def test_exec_that_prints_megabytes_of_anything_keeps_their_end(world: World):
    """What is no text becomes replacement characters; nothing waits for a full pipe."""
    db = world.run("db")
    flood = "i=0; while [ $i -lt 3000 ]; do printf '%01000d' 0; i=$((i+1)); done; "
    argv = ("/bin/sh", "-c", flood + r"printf '\377\000\033[31mend'")
    result = await world.engine.exec(db, argv, timeout=SOON)
    assert result.exit_code == 0
    assert result.output.endswith("\ufffd\x00\x1b[31mend")
    assert len(result.output.encode("utf-8", "replace")) < 9000


async def test_exec_that_does_not_end_in_time_is_an_error(world: World):
    db = world.run("db")
    with pytest.raises(StillRunning, match=r"not ended within 0\.3 s"):
        await world.engine.exec(db, ("sleep", "5"), timeout=timedelta(seconds=0.3))


@pytest.mark.parametrize("state", ["paused", "stopped"])
async def test_exec_needs_a_container_that_runs(world: World, state):
    db = world.run("db")
    await (world.engine.pause(db) if state == "paused" else world.engine.stop(db, None))
    with pytest.raises(EngineError) as caught:
        await world.engine.exec(db, ("true",), timeout=SOON)
    assert type(caught.value) is EngineError


async def test_own_probe_sees_health_after_a_start(world: World):
    db = world.run("db", check="exit 0")
    await world.engine.stop(db, None)
    await world.engine.start(db)
    check = (await world.engine.inspect(db)).healthcheck
    assert check is not None
    assert await wait_healthy(world.engine, db, check, seconds=5)
    await world.engine.stop(db, None)
    with pytest.raises(ContainerGone):
        await wait_healthy(world.engine, db, check, seconds=5)


async def test_removed_container_is_gone_for_every_call(world: World):
    db, engine = world.run("db"), world.engine
    world.remove(db)
    calls = [
        lambda: engine.inspect(db),
        lambda: engine.stop(db, None),
        lambda: engine.stop(db, timedelta(seconds=1)),
        lambda: engine.start(db),
        lambda: engine.pause(db),
        lambda: engine.unpause(db),
        lambda: engine.exec(db, ("true",), timeout=SOON),
    ]
    for call in calls:
        with pytest.raises(ContainerGone):
            await call()
    await engine.remove_worker(db)


async def test_missing_volume_and_network_are_none_and_stay_missing(world: World):
    name = world.full("none")
    assert await world.engine.volume(name) is None
    assert not world.has_volume(name)
    assert await world.engine.network(name) is None


async def test_volume_has_driver_and_definition(world: World):
    world.run("db", volume="data")
    found = await world.engine.volume(world.full("data"))
    assert found is not None
    assert (found.name, found.driver, found.options) == (world.full("data"), "local", {})
    assert world.full("data").encode() in found.definition


async def test_stage_is_made_listed_and_removed(world: World):
    """One that carries our labels is taken as it is; the removal of what is gone is good."""
    name, state = world.full("stage"), world.full("state")
    labels = {"kopi.stage": "shop", "kopi.state": state}
    try:
        for _ in range(2):
            made = await world.engine.create_stage(name, labels)
            assert (made.name, made.driver, made.labels) == (name, "local", labels)
            assert made.mountpoint
        assert await world.engine.stages(state) == (name,)
        assert await world.engine.stages("another") == ()
    finally:
        await world.engine.remove_stage(name)
    assert not world.has_volume(name)
    await world.engine.remove_stage(name)


async def test_volume_of_somebody_is_no_stage(world: World):
    """Neither taken for one nor removed."""
    world.run("db", volume="data")
    name = world.full("data")
    with pytest.raises(EngineError, match="not ours"):
        await world.engine.create_stage(name, {"kopi.stage": "shop", "kopi.state": "s"})
    with pytest.raises(EngineError, match="not a stage"):
        await world.engine.remove_stage(name)
    assert world.has_volume(name)


async def test_image_is_found_by_name_and_id_or_is_missing(world: World):
    reference = world.spec().image
    identity = await world.engine.image_id(reference)
    assert await world.engine.image_id(identity) == identity
    with pytest.raises(ImageMissing, match="no-such-image"):
        await world.engine.image_id("kwtest/no-such-image:1")


async def test_worker_speaks_lines_both_ways(world: World):
    async with world.engine.worker(world.spec()) as channel:
        lines = channel.lines()
        assert await anext(lines) == b"hello"
        for line in (b"one", b"x" * 300_000, b"y" * 1_000_000):
            await channel.send(line)
            assert await anext(lines) == line
        await channel.close()
        assert [line async for line in channel.lines()] == []


async def test_waiting_for_a_line_can_be_cancelled_without_losing_it(world: World):
    async with world.engine.worker(world.spec()) as channel:
        assert await anext(channel.lines()) == b"hello"
        with anyio.move_on_after(0.05):
            await anext(channel.lines())
        await channel.send(b"late")
        assert await anext(channel.lines()) == b"late"


async def test_worker_that_leaves_ends_the_lines_and_takes_no_more(world: World):
    async with world.engine.worker(world.spec()) as channel:
        await channel.send(b"quit")
        assert [line async for line in channel.lines()] == [b"hello"]
        with pytest.raises(EngineError, match="gone"):
            await channel.send(b"too late")


async def test_workers_are_found_by_state_and_removed_on_leaving(world: World):
    world.run("db", volume="data")
    before = world.left()
    mounts = (WorkerMount("volume", world.full("data"), "/mnt/u/data"),)
    async with world.engine.worker(world.spec(mounts=mounts)):
        assert len(await world.engine.workers(world.name)) == 1
        assert await world.engine.workers(world.name + "x") == ()
    assert await world.engine.workers(world.name) == ()
    assert world.left() == before


async def test_worker_is_removed_when_the_block_fails_or_is_cancelled(world: World):
    with pytest.raises(ZeroDivisionError):
        async with world.engine.worker(world.spec()):
            raise ZeroDivisionError
    with anyio.move_on_after(0.5) as scope:
        async with world.engine.worker(world.spec()):
            await anyio.sleep(20)
    assert scope.cancelled_caught
    assert await world.engine.workers(world.name) == ()
    assert world.left() == 0


async def test_worker_can_be_removed_while_it_is_in_use(world: World):
    async with world.engine.worker(world.spec()) as channel:
        (worker,) = await world.engine.workers(world.name)
        await world.engine.remove_worker(worker)
        assert world.state(worker) == "gone"
        assert [line async for line in channel.lines()] in ([], [b"hello"])
        await world.engine.remove_worker(worker)


async def test_only_workers_are_removed(world: World):
    db = world.run("db")
    with pytest.raises(EngineError, match="not a worker"):
        await world.engine.remove_worker(db)
    assert world.state(db) == "running"


async def test_worker_with_a_missing_bind_source_is_refused_by_name(world: World):
    mounts = (WorkerMount("bind", missing_host_path(), "/mnt/x"),)
    with pytest.raises(EngineError, match="/nowhere/at/all"):
        async with world.engine.worker(world.spec(mounts=mounts)):
            pass
    assert world.left() == 0


async def test_worker_without_its_image_is_refused(world: World):
    with pytest.raises(ImageMissing):
        async with world.engine.worker(world.spec(image="kwtest/no-such-image:1")):
            pass
    assert world.left() == 0


async def test_worker_name_that_is_taken_is_refused_and_its_owner_kept(world: World):
    db = world.run("db")
    with pytest.raises(EngineError, match="in use"):
        async with world.engine.worker(world.spec(name=world.full("db"))):
            pass
    assert world.state(db) == "running"


async def test_calls_are_quick(world: World):
    """A list and an inspect belong into the window; a slow client would lengthen it."""
    db = world.run("db")
    began = time.monotonic()
    for _ in range(10):
        await world.engine.containers()
        await world.engine.inspect(db)
    assert time.monotonic() - began < 2


async def test_image_tells_what_it_takes_to_get_it_again(world: World):
    """By name and by id; an image that is not there is None, and nothing is pulled."""
    identity = world.run("app")
    seen = await world.engine.inspect(identity)
    image_ = await world.engine.image(seen.image_id)
    assert image_ is not None
    assert image_.id == seen.image_id
    assert await world.engine.image(seen.image) == image_
    assert seen.image in image_.tags
    assert (image_.os, bool(image_.architecture)) == ("linux", True)
    assert image_.digests == ()
    assert await world.engine.image("kopiwatch-test/absent:0") is None
    assert await world.engine.image("sha256:" + "0" * 64) is None


async def test_daemon_says_the_same_as_info(world: World):
    words = await world.engine.daemon()
    info = await world.engine.info()
    assert msgspec.json.decode(words.info)["ID"] == info.id
    version = msgspec.json.decode(words.version)
    assert version["Version"] == info.version
    assert version["ApiVersion"]
