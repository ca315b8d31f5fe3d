"""Strategies at work in a run: order, mounts, fallback, and what is cleared away."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from kopiwatch.backup.stage import sweep
from kopiwatch.errors import EngineDenied, EngineError, EngineUnreachable
from kopiwatch.testing.engine import volume_mount

pytestmark = pytest.mark.anyio

GIB = 1 << 30
UP = ["running", "running"]
DOWN = ["exited", "exited"]
VOLUME = "kopiwatch-stage-shop"
STAGE = "/mnt/.stage/0/shop"


@pytest.fixture
def label(world):
    """Give a member the label of a strategy."""

    def give(strategy: str, member: str = "") -> None:
        found = world.engine.all[member or world.db]
        labels = {**found.row.labels, "kopi.strategy": strategy}
        found.row = msgspec.structs.replace(found.row, labels=labels)

    return give


@pytest.fixture
def busy(world):
    """Half a GiB of the database has changed: 5 s of upload."""
    world.program.found["volumes/data"] = {
        "files": 1000,
        "bytes": GIB,
        "changed_files": 10,
        "changed_bytes": GIB // 2,
    }
    return world


def notes(world) -> dict[str, object]:
    """What was so as each step was reached."""
    seen: dict[str, object] = {}
    for step in ("pre-stage", "stage", "launch", "go", "flush"):
        world.program.at(step, lambda _, step=step: seen.update({step: world.states}) and False)
    return seen


def phases(result) -> list[str]:
    return [time.phase for time in result.phases]


async def test_clone_starts_members_before_kopia_reads(busy):
    """Pre-clone while all run, delta clone while all are down, Kopia when all run again."""
    seen = notes(busy)
    result = await busy.run()
    assert (result.verdict, result.strategy) == ("success", "clone")
    assert seen == {"pre-stage": UP, "launch": UP, "stage": DOWN, "go": UP, "flush": UP}
    assert busy.program.read_at == STAGE
    assert "hot" in phases(result)
    assert busy.engine.order("start")[-1] == "start web"


async def test_clone_stores_what_was_staged(busy):
    """What members write after the window is not in the restore point."""
    busy.program.trees["volumes/data"] = {"page": b"old"}

    def write_after_start(_):
        busy.program.trees["volumes/data"] = {"page": b"new"}
        return False

    busy.program.at("go", write_after_start)
    result = await busy.run()
    (snapshot,) = await busy.repository.snapshots()
    page = await busy.repository.content(f"{snapshot.root_entry.obj}/volumes/data/page")
    assert (result.verdict, page) == ("success", b"old")


@pytest.fixture
def media(busy):
    """A volume that nobody can write to, so it is not staged."""
    busy.engine.add_container(
        "reader",
        labels={"kopi.enable": "true", "com.docker.compose.project": "shop"},
        mounts=(volume_mount("media", "/m", writable=False),),
    )
    return busy


@pytest.mark.parametrize(("volume", "verdict"), [("media", "partial"), ("data", "success")])
async def test_who_writes_after_the_window_counts_for_what_is_read_then(media, volume, verdict):
    """What is staged is beyond anybody's reach."""

    def come(_):
        media.engine.add_container("late", mounts=(volume_mount(volume, "/x"),))
        return False

    media.program.at("flush", come)
    result = await media.run()
    assert (result.strategy, result.verdict) == ("clone", verdict)
    assert ("late ran and could write" in result.message) == (verdict == "partial")


async def test_docker_that_does_not_tell_who_wrote_after_the_window_makes_it_partial(media):
    """All is stored and all run: only that nobody wrote cannot be established."""
    away = EngineUnreachable("Docker is away")
    media.program.at("flush", lambda _: bool(media.engine.fail("containers", "*", away)))
    result = await media.run()
    assert (result.verdict, result.reason) == ("partial", "interference")
    assert "volumes/media" in result.message
    assert "Docker is away" in result.message
    (snapshot,) = media.repository.contents.snapshots
    assert snapshot.quarantine == "interference"


async def test_what_could_not_be_told_in_the_window_is_said_though_a_later_look_tells(media):
    """The later look is for others, and for what is not in the stage."""
    media.engine.fail("mounted", "*", EngineDenied("no events for you"))
    result = await media.run()
    assert (result.strategy, result.verdict) == ("clone", "success")
    assert any("no events for you" in line for line in result.warnings)


async def test_stage_is_complete_and_only_what_is_written_is_staged(media):
    """The recipe, and what nobody can write to, are mounted into the stage, read-only."""
    seen = {}
    media.program.at("launch", lambda worker: seen.update(spec=worker.spec) and False)
    result = await media.run()
    assert result.strategy == "clone"
    assert media.program.stage.parts == {"volumes/data": "clone", "volumes/files": "clone"}
    below = {
        mount.target.removeprefix(STAGE): mount.writable
        for mount in seen["spec"].mounts
        if mount.target.startswith("/mnt/.stage")
    }
    assert below == {"/mnt/.stage/0": True, "/recipe": False, "/volumes/media": False}
    wanted = {"DAC_READ_SEARCH", "DAC_OVERRIDE", "CHOWN", "FOWNER", "FSETID"}
    assert set(seen["spec"].capabilities) == wanted


@pytest.mark.parametrize("strategy", ["gate", "hot"])
async def test_worker_without_a_stage_has_no_more_rights(world, label, strategy):
    label(strategy)
    seen = {}
    world.program.at("launch", lambda worker: seen.update(spec=worker.spec) and False)
    result = await world.run()
    assert (result.verdict, result.strategy) == ("success", strategy)
    assert seen["spec"].capabilities == ("DAC_READ_SEARCH",)
    assert not any(m.writable for m in seen["spec"].mounts if m.target.startswith("/mnt/"))
    assert world.engine.order("create_stage") == []


async def test_volume_of_the_stage_is_gone_after_the_run(busy):
    """Made before the worker, removed after it; labelled as ours."""
    seen = {}
    busy.program.at("launch", lambda _: seen.update(busy.engine.volumes) and False)
    await busy.run()
    assert seen[VOLUME].labels == {"kopi.stage": "shop", "kopi.state": busy.uuid}
    assert VOLUME not in busy.engine.volumes
    order = busy.engine.order("create_stage", "worker", "remove_worker", "remove_stage")
    assert [call.split()[0] for call in order] == [
        *("create_stage", "worker", "remove_worker", "remove_stage")
    ]


async def test_volume_of_the_stage_is_gone_after_a_failure(busy):
    busy.program.exits("launch", errors="boom")
    result = await busy.run()
    assert result.verdict == "failed"
    assert VOLUME not in busy.engine.volumes


async def test_somebody_s_volume_is_left_alone(busy, label):
    """One of that name that is not ours is neither used nor removed; auto goes on without."""
    busy.engine.add_volume(VOLUME, labels={"mine": "yes"})
    result = await busy.run()
    assert (result.verdict, result.strategy) == ("success", "hot")
    assert VOLUME in busy.engine.volumes
    assert any("not ours" in line for line in result.warnings)
    label("clone")
    result = await busy.run(run="r2")
    assert (result.verdict, result.reason) == ("failed", "strategy")


async def test_sweep_removes_our_own_stages_only(world):
    """What a killed run left; another state folder's is its own affair."""
    await world.engine.create_stage("ours", {"kopi.stage": "a", "kopi.state": world.uuid})
    await world.engine.create_stage("theirs", {"kopi.stage": "a", "kopi.state": "other"})
    world.engine.add_volume("plain", labels={"kopi.state": world.uuid})
    swept = await sweep(world.engine, world.uuid)
    assert (swept.removed, swept.left) == (("ours",), ())
    assert {"theirs", "plain"} <= set(world.engine.volumes)
    world.engine.fail("stages", world.uuid, EngineDenied("no"))
    assert (await sweep(world.engine, world.uuid)).left == ("no",)


async def test_volume_that_cannot_be_removed_is_said(busy):
    busy.engine.fail("remove_stage", VOLUME, EngineError("it is in use"))
    result = await busy.run()
    assert result.verdict == "success"
    assert any("it is in use" in line for line in result.warnings)


@pytest.mark.parametrize("step", ["pre-stage", "stage"])
@pytest.mark.parametrize("reason", ["no-space", "no-clone", "stuck", "dropped"])
async def test_stage_that_fails_ends_at_the_gate(busy, step, reason):
    """Never an abort with members down: the live tree is read, and it is said."""
    seen = notes(busy)
    busy.program.stage.fails[step] = reason
    result = await busy.run()
    assert (result.verdict, result.strategy) == ("success", "gate")
    assert busy.program.read_at == ""
    assert seen["go"] == DOWN
    assert busy.states == UP
    assert any("the clone failed, and the gate was used instead" in w for w in result.warnings)


@pytest.mark.parametrize("step", ["launch", "stage"])
async def test_stage_that_is_dropped_before_the_members_start_ends_at_the_gate(busy, step):
    """Room ran out as Kopia got ready, or while the window looked around."""

    def drop(worker):
        answer = {"launch": {"say": "ready"}, "stage": {"say": "staged", "result": {}}}[step]
        if step == "launch":
            busy.program.argv = json.loads(worker.orders[-1])["argv"]
        worker.say(json.dumps(answer).encode())
        busy.program.drop(worker)
        return True

    seen = notes(busy)
    busy.program.at(step, drop)
    result = await busy.run()
    assert (result.verdict, result.strategy, seen["go"]) == ("success", "gate", DOWN)
    assert any("was dropped" in line for line in result.warnings)


async def test_stage_that_is_dropped_while_it_is_read_fails_the_run(busy):
    """Nothing is lost and everybody runs; the reason is said."""

    def drop(worker):
        busy.program.drop(worker, killed=True)
        return True

    busy.program.at("go", drop)
    result = await busy.run()
    assert (result.verdict, result.reason) == ("failed", "stage-dropped")
    assert "1.0 MiB were free" in result.message
    assert busy.states == UP
    assert VOLUME not in busy.engine.volumes


async def test_stage_that_is_dropped_while_the_members_start_is_not_read(busy):
    """Kopia stood at its gate, so nobody killed it: it would have stored cut files as a success."""
    worker = []
    busy.program.at("stage", lambda each: worker.append(each) and False)
    start = busy.engine.start

    async def drop(identity):
        if busy.program.stage.held:
            busy.program.drop(worker[0])
        return await start(identity)

    busy.engine.start = drop
    result = await busy.run()
    assert (result.verdict, result.reason) == ("failed", "stage-dropped")
    assert "go" not in busy.program.steps
    assert busy.states == UP


async def test_frozen_members_are_synced_only_for_what_is_not_cloned(busy):
    """FICLONE writes back and write-protects; a copy does neither."""
    for member in (busy.db, busy.web):
        found = busy.engine.all[member]
        found.row = msgspec.structs.replace(
            found.row, labels={**found.row.labels, "kopi.mode": "pause"}
        )
    busy.program.stage.refused = {"volumes/files"}
    paths = []

    def note(worker):
        paths.append(json.loads(worker.orders[-1])["paths"])
        return False

    busy.program.at("sync", note)
    result = await busy.run()
    assert (result.strategy, busy.program.stage.parts["volumes/files"]) == ("clone", "copy")
    assert paths == [
        ["/mnt/shop/volumes/data", "/mnt/shop/volumes/files"],
        ["/mnt/shop/volumes/files"],
    ]
    busy.program.stage.fails["stage"] = "no-space"
    paths.clear()
    await busy.run(run="r2")
    assert paths[-1] == ["/mnt/shop/volumes/data", "/mnt/shop/volumes/files"]


async def test_hot_pass_is_another_identity_and_only_its_newest_manifest_is_kept(world, label):
    label("hot")
    for run in ("r1", "r2", "r3"):
        result = await world.run(run=run)
        assert (result.verdict, result.strategy) == ("success", "hot")
    hot = await world.repository.snapshots("kopiwatch@testhost:/mnt/.hot/shop")
    assert [(s.tag("hot"), s.tag("run"), s.complete) for s in hot] == [("r3", "", False)]
    cold = await world.repository.snapshots("kopiwatch@testhost:/mnt/shop")
    assert [s.tag("run") for s in cold] == ["r1", "r2", "r3"]


async def test_hot_pass_that_fails_makes_the_run_neither_bad_nor_good(world, label):
    """Its exit code is its own."""
    label("hot")
    world.program.hot_code = 1
    result = await world.run()
    assert (result.verdict, result.strategy) == ("success", "hot")
    assert any("did not read everything" in line for line in result.warnings)


async def test_hot_pass_comes_before_anybody_stops(world, label):
    label("hot")
    seen = []
    world.program.at("launch", lambda _: seen.append((world.states, len(seen))) and False)
    result = await world.run()
    assert [states for states, _ in seen] == [UP, UP]
    assert phases(result)[:3] == ["check", "hot", "ready"]


async def test_label_that_cannot_be_done_stops_nobody(world, label):
    """One sentence: unit, container, label, source, and the way out."""
    label("clone")
    world.program.stage.refused = {"volumes/data"}
    world.program.found["volumes/data"] = {"bytes": GIB}
    result = await world.run()
    assert (result.verdict, result.reason, result.broke_in) == ("failed", "strategy", "check")
    assert result.message == (
        "db: kopi.strategy=clone: volumes/data cannot be cloned into kopiwatch-stage-shop: "
        "Operation not supported"
    )
    assert "KOPIWATCH_STAGE_PATHS" in result.hint
    assert world.engine.order("stop", "pause") == []


async def test_named_folder_is_swept_before_and_after(busy):
    """Our own volume cannot clone it; the operator's folder can, and is left empty."""
    busy.stage_paths = (Path("/ssd/stage"),)

    def only_the_named_one(worker):
        stages = json.loads(worker.orders[-1])["stages"]
        answer = [
            {
                "stage": stage,
                "writable": True,
                "free": 100 * GIB,
                "total": 100 * GIB,
                "sources": [
                    {"path": f"/mnt/shop/volumes/{name}", "clonable": "/1/" in stage, "why": "no"}
                    for name in ("data", "files")
                ],
            }
            for stage in stages
        ]
        worker.say(json.dumps({"say": "probed", "result": {"stages": answer}}).encode())
        return True

    busy.program.at("probe-stage", only_the_named_one)
    result = await busy.run()
    assert (result.strategy, busy.program.read_at) == ("clone", "/mnt/.stage/1/shop")
    orders = busy.program.stage.orders
    assert orders == ["unstage", "pre-stage", "stage", "unstage"]


async def test_named_folder_that_is_not_there_is_named(busy):
    busy.stage_paths = (Path("/ssd/stage"),)
    busy.engine.missing_paths.add("/ssd/stage")
    result = await busy.run()
    assert (result.verdict, result.reason) == ("failed", "stage-path")
    assert "KOPIWATCH_STAGE_PATHS names /ssd/stage" in result.message


async def test_old_stage_of_the_operators_is_cleared_away_also_before_a_gate(busy):
    """What a power cut left there takes the room for which the next run would make no clone."""
    busy.stage_paths = (Path("/ssd/stage"),)
    cleared = []

    def note(worker):
        cleared.append(json.loads(worker.orders[-1])["stages"])
        return False

    busy.program.at("unstage", note)
    small = {"files": 1, "bytes": 1, "changed_files": 0, "changed_bytes": 0}
    busy.program.found = {"volumes/data": small, "volumes/files": small}
    result = await busy.run()
    assert (result.verdict, result.strategy) == ("success", "gate")
    assert cleared == [["/mnt/.stage/1/shop"]]


async def test_old_stage_that_cannot_be_deleted_is_said(busy):
    """It fails nothing."""
    busy.stage_paths = (Path("/ssd/stage"),)
    busy.program.stage.fails["unstage"] = "stage"
    result = await busy.run()
    assert result.verdict == "success"
    assert any("/ssd/stage is left behind" in line for line in result.warnings)


async def test_nobody_down_needs_no_strategy(world, label):
    """All members are stopped: no window, so nothing to shorten, and no stage."""
    label("clone")
    for member in (world.db, world.web):
        world.engine.set_state(member, "exited")
    result = await world.run()
    assert (result.verdict, result.strategy, result.window) == ("success", "plain", 0.0)
    assert world.engine.order("create_stage") == []


async def test_docker_that_says_ext4_is_spared_a_stage(busy):
    """Reflinks are out of the question there, and auto knows it before."""
    info = busy.engine.engine_info
    busy.engine.engine_info = msgspec.structs.replace(info, backing="extfs")
    result = await busy.run()
    assert (result.verdict, result.strategy) == ("success", "hot")
    assert busy.engine.order("create_stage") == []
