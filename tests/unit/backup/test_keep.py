"""The phase keep: what it deletes, and everything after which it deletes nothing."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest

from kopiwatch.backup.run import Run
from kopiwatch.errors import EngineError, RepositoryUnreachable
from kopiwatch.units.group import discover
from kopiwatch.units.zone import zone

pytestmark = pytest.mark.anyio

NEW_YEAR = datetime(2026, 1, 1, tzinfo=UTC)
"""A run of the fakes makes a point that is minutes younger."""
DAY = timedelta(days=1)
zone("Asia/Tokyo")  # read from disk once; the product does that in a thread
TREE = {"recipe/unit.json": b"{}", "volumes/data/file": b"1", "volumes/files/file": b"1"}
GONE = RepositoryUnreachable("the disk is gone", hint="plug it in")


def only(world, **numbers: int) -> None:
    """The rule of the unit: these numbers, the others 0."""
    for name in ("latest", "hourly", "daily", "weekly", "monthly", "annual"):
        label(world, f"kopi.retention.{name}", str(numbers.get(name, 0)))


def label(world, name: str, value: str) -> None:
    world.engine.all[world.db].row.labels[name] = value


def earlier(world, count: int, path: str = "/mnt/shop", *, step: timedelta = DAY) -> list[str]:
    """Complete points of earlier runs, the newest last; their ids."""
    return [
        world.repository.add_snapshot(
            path, TREE, tags={"run": f"e{n}", "mode": "stop"}, start=NEW_YEAR - n * step
        ).id
        for n in range(count, 0, -1)
    ]


def left(world) -> list[str]:
    return [snapshot.id for snapshot in world.repository.contents.snapshots]


def deletions(world) -> list[object]:
    return [arguments for method, arguments in world.repository.calls if method == "delete"]


async def test_success_deletes_what_the_rule_lets_go(world):
    """One call, by id; what it keeps, what is bad, and other units' points stay."""
    only(world, latest=2)
    ids = earlier(world, 4)
    bad = earlier(world, 1, step=DAY / 2)
    await world.repository.pin(bad[0], "kopiwatch-bad-start")
    theirs = earlier(world, 4, "/mnt/shop2")
    result = await world.run()
    assert (result.verdict, result.deleted, result.warnings) == ("success", 3, ())
    assert deletions(world) == [(tuple(ids[:3]),)]
    assert left(world)[0] == ids[3]
    assert left(world)[2:-1] == theirs
    assert left(world)[-1] == result.snapshot


async def test_what_was_deleted_meanwhile_does_not_count_as_kept(world):
    """Somebody deletes a point by hand while the run is under way: the one before it stays."""
    only(world, latest=2)
    ids = earlier(world, 2)

    async def delete() -> None:
        found = world.repository.contents.snapshots
        world.repository.contents.snapshots = [s for s in found if s.id != ids[1]]

    world.repository.hook("outline", delete)
    result = await world.run()
    assert (result.verdict, result.deleted) == ("success", 0)
    assert left(world) == [ids[0], result.snapshot]


async def test_days_are_those_of_the_unit(world):
    """The rule is the unit's, and so is its time zone: there the run's point is of another day."""
    only(world, daily=2)
    label(world, "kopi.timezone", "Asia/Tokyo")
    noon = world.repository.add_snapshot(
        "/mnt/shop", tags={"run": "e"}, start=NEW_YEAR - timedelta(hours=12)
    )
    night = world.repository.add_snapshot(
        "/mnt/shop", tags={"run": "f"}, start=NEW_YEAR - timedelta(hours=2)
    )
    result = await world.run()
    assert deletions(world) == [((night.id,),)], "07:00 in Tokyo, a day with the run's own"
    assert left(world) == [noon.id, result.snapshot]


async def test_verdict_is_durable_before_anything_is_deleted(world):
    """Else a run that dies here would count as none, and what it replaced would be gone."""
    only(world, latest=1)
    earlier(world, 2)
    seen = []

    async def look() -> None:
        seen.append(await world.journal() is not None)

    world.repository.hook("outline", look)
    world.repository.hook("delete", look)
    await world.run()
    assert (seen[0], seen[-1]) == (True, False)


async def test_run_whose_verdict_is_not_durable_deletes_nothing(world):
    """The journal cannot be settled: this success may yet turn into an interrupted run."""
    only(world, latest=1)
    ids = earlier(world, 2)

    async def spoil() -> None:
        path = anyio.Path(world.state.path) / "journal" / "shop.json"
        if await path.is_file():
            await path.unlink()
            await path.mkdir()

    world.repository.hook("outline", spoil)
    result = await world.run()
    assert (result.verdict, result.deleted, result.keep_failed) == ("failed", 0, False)
    assert deletions(world) == []
    assert set(ids) < set(left(world))


def missing_source(world):
    world.program.missing.add("volumes/data")


def unreadable(world):
    world.program.failed = 1


def refused_stop(world):
    world.engine.fail("stop", "db", EngineError("no"))


def lost_start(world):
    world.engine.fail("start", "db", EngineError("port is in use"), times=99)


def interference(world):
    world.program.at("go", lambda _: world.engine.set_state(world.db, "running") and False)


@pytest.mark.parametrize(
    "trouble", [missing_source, unreadable, refused_stop, lost_start, interference]
)
async def test_run_that_is_no_success_deletes_nothing(world, trouble):
    """Nothing good is thrown away because of something bad."""
    only(world, latest=1)
    ids = earlier(world, 3)
    trouble(world)
    result = await world.run()
    assert result.verdict in ("failed", "partial")
    assert deletions(world) == []
    assert set(ids) <= set(left(world))
    assert "keep" not in [time.phase for time in result.phases]


async def test_ten_go_and_eleven_need_a_word(world):
    """A rule or a clock may have gone wrong; the run says what to do and stays a success."""
    only(world, latest=1)
    ids = earlier(world, 11)
    result = await world.run()
    assert (result.verdict, result.deleted, result.keep_failed) == ("success", 0, False)
    (warning,) = result.warnings
    assert "11 restore points" in warning
    assert "kopiwatch repo retention apply shop --yes" in warning
    assert deletions(world) == []
    only(world, latest=3)
    result = await world.run(run="r2")
    assert (result.verdict, result.deleted, result.warnings) == ("success", 10, ())
    assert left(world)[0] == ids[-1]


async def test_trouble_with_the_repository_is_not_the_verdict(world):
    """A warning of the run, with the hint; the point is good, and nothing is owed."""
    only(world, latest=1)
    earlier(world, 2)

    async def fail() -> None:
        world.repository.fail("delete", GONE)

    world.repository.hook("delete", fail)
    result = await world.run()
    assert (result.verdict, result.exit_code) == ("success", 0)
    assert (result.deleted, result.keep_failed) == (0, True)
    assert result.warnings == ("retention: the disk is gone (plug it in)",)
    assert await world.journal() is None
    assert world.repository.contents.snapshots[-1].quarantine == ""


async def test_signal_while_it_deletes_leaves_the_verdict(world):
    """The phase is given up, the run is on record as what it was."""
    only(world, latest=1)
    earlier(world, 2)
    with anyio.CancelScope() as scope:
        house = await world.house()
        rows = await world.engine.containers()
        (unit,) = discover(rows).units
        attempt = Run(house, unit, rows, "r1")

        async def leave() -> None:
            if attempt.course.phase == "keep":
                scope.cancel()
                await anyio.lowlevel.checkpoint()

        world.repository.hook("delete", leave)
        await attempt.execute()
    assert scope.cancelled_caught
    assert attempt.result.verdict == "success"
    assert world.repository.contents.snapshots[-1].quarantine == ""
    assert await world.journal() is None


async def test_success_that_is_settled_stays_one(world):
    """What becomes of the journal while retention deletes changes no verdict."""
    only(world, latest=1)
    earlier(world, 2)

    async def damage() -> None:
        folder = anyio.Path(world.state.path) / "journal"
        await folder.mkdir(exist_ok=True)
        await (folder / "shop.json").write_text("{")

    world.repository.hook("delete", damage)
    result = await world.run()
    assert (result.verdict, result.deleted) == ("success", 2)
    assert world.repository.contents.snapshots[-1].quarantine == ""


async def test_clock_that_leaps_ahead_deletes_nothing(world):
    """Every other point looks old at once; that takes somebody's word."""
    only(world, daily=2)
    ids = earlier(world, 3, step=timedelta(days=400))
    result = await world.run()
    assert (result.verdict, result.deleted) == ("success", 0)
    assert "is the clock right?" in result.warnings[-1]
    assert left(world)[:3] == ids
