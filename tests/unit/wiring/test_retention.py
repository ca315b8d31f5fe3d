"""Which units retention may act on, and by which rule."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import anyio
import pytest
from unit.units.build import container

from kopiwatch.backup.journal import JournalStore
from kopiwatch.config import Config
from kopiwatch.errors import ConfigError, RunError, UnknownUnit
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.units.group import discover
from kopiwatch.units.retention import Retention
from kopiwatch.wiring.retention import GONE, let_go, standings

pytestmark = pytest.mark.anyio

NOW = datetime(2026, 6, 30, 12, tzinfo=UTC)
ONE = {f"kopi.retention.{name}": "0" for name in Retention().numbers} | {
    "kopi.retention.latest": "1"
}


@pytest.fixture
def repository():
    return FakeRepository(host="harbour")


def fill(repository, path, count=3, **more):
    for n in range(count, 0, -1):
        repository.add_snapshot(path, tags={"run": f"r{n}"}, start=NOW - timedelta(days=n), **more)


async def told(repository, *rows, name="", config=None, unfinished=()):
    config = config or Config()
    found = discover(rows, defaults=config.defaults, instance=config.instance)
    standing = await standings(
        config,
        found,
        await repository.snapshots(),
        host=repository.host,
        name=name,
        now=NOW,
        unfinished=unfinished,
    )
    return {each.unit: each for each in standing}


async def test_unit_is_judged_by_its_labels(repository):
    """Its own points of this host and instance, and nobody else's."""
    fill(repository, "/mnt/shop")
    fill(repository, "/mnt/shop", host="elsewhere")
    fill(repository, "/mnt/@lab/shop")
    fill(repository, "/mnt/.safety/shop")
    (shop,) = (await told(repository, container("shop", labels=ONE))).values()
    assert (shop.rule, shop.count, shop.gone) == (Retention(1, 0, 0, 0, 0, 0), 3, False)
    assert [fate.snapshot.tag("run") for fate in shop.going] == ["r3", "r2"]


async def test_unit_that_is_gone_is_left_alone_unless_named(repository):
    """Its labels are gone, too; by name the configuration's numbers hold."""
    fill(repository, "/mnt/old")
    (old,) = (await told(repository)).values()
    assert (old.rule, old.trouble, old.going, old.count) == (None, GONE, (), 3)
    config = Config(retention=dict.fromkeys(("latest", "daily"), ("1", "file /c")))
    (old,) = (await told(repository, name="old", config=config)).values()
    assert (old.rule, old.gone) == (Retention(1, 48, 1, 4, 24, 3), True)


async def test_unit_with_bad_labels_is_left_alone(repository):
    """What it wants kept cannot be known, named or not."""
    fill(repository, "/mnt/shop")
    for name in ("", "shop"):
        row = container("shop", labels=ONE | {"kopi.retention.daily": "many"})
        (shop,) = (await told(repository, row, name=name)).values()
        assert (shop.rule, shop.invalid, shop.going) == (None, True, ())
        assert "kopi.retention.daily" in shop.trouble


async def test_run_without_verdict_is_left_alone(repository):
    """It may be alive: the newest is then not the last good one."""
    fill(repository, "/mnt/shop")
    row = container("shop", labels=ONE)
    (shop,) = (await told(repository, row, unfinished={"r1"})).values()
    assert [fate.snapshot.tag("run") for fate in shop.going] == ["r3"]


async def test_name_that_nobody_has_is_said(repository):
    """With the nearest one that there is, by its points or its containers."""
    fill(repository, "/mnt/oldshop")
    with pytest.raises(UnknownUnit) as caught:
        await told(repository, container("shop"), name="oldshap")
    assert "oldshop" in caught.value.hint
    (shop,) = (await told(repository, container("shop"), name="shop")).values()
    assert (shop.count, shop.going) == (0, ())


async def test_bad_configuration_stops_who_needs_it_only(repository):
    """Nothing is deleted by a rule that was given and not understood."""
    fill(repository, "/mnt/old")
    fill(repository, "/mnt/shop")
    bad = Config(retention=dict.fromkeys(Retention().numbers, ("0", "file /c")))
    with pytest.raises(ConfigError, match="all six numbers"):
        await told(repository, name="old", config=bad)
    found = await told(repository, container("shop", labels=ONE), config=bad)
    assert len(found["shop"].going) == 2


async def test_what_goes_is_deleted_in_one_call(repository, tmp_path):
    """And where nothing goes, Kopia is not started."""
    fill(repository, "/mnt/shop")
    journals = JournalStore(tmp_path)
    (shop,) = (await told(repository, container("shop", labels=ONE))).values()
    await let_go(repository, journals, shop)
    assert [snapshot.tag("run") for snapshot in await repository.snapshots()] == ["r1"]
    (shop,) = (await told(repository, container("shop", labels=ONE))).values()
    await let_go(repository, journals, shop)
    assert [method for method, _ in repository.calls].count("delete") == 1


async def test_unit_whose_journal_cannot_be_read_is_left_alone(repository, tmp_path):
    """A run without verdict may stand in it, and its manifest looks like a good one."""
    fill(repository, "/mnt/shop")
    await (anyio.Path(tmp_path) / "shop.json").write_text("{")
    (shop,) = (await told(repository, container("shop", labels=ONE))).values()
    with pytest.raises(RunError, match="cannot be read"):
        await let_go(repository, JournalStore(tmp_path), shop)
    assert len(await repository.snapshots()) == 3
