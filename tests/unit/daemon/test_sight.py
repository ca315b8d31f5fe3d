"""Each list of containers, taken over: what is remembered, what is said, what is forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.desk_world import DeskWorld, desk_world
from support.manual_clock import NOON
from unit.units.build import container, volume

from kopiwatch.daemon.sight import Sight
from kopiwatch.engine import own
from kopiwatch.errors import EngineUnreachable
from kopiwatch.report.history_record import UnitRecord
from kopiwatch.testing.engine import ANY
from kopiwatch.units.container import Container
from kopiwatch.watch.facts import Reason, Sighting

pytestmark = pytest.mark.anyio
HOUR = 3600.0


class Here:
    """A desk and what keeps it true to Docker's lists."""

    def __init__(self, world: DeskWorld) -> None:
        self.world, self.desk = world, world.desk
        self.sight = Sight(world.desk)

    async def see(self, *rows: Container, reason: Reason = "connect") -> None:
        """Take over a list."""
        await self.sight.seen(self.world.engine, Sighting(rows, self.world.time.now(), reason))

    @property
    def record(self) -> UnitRecord:
        return self.desk.ledger.records["shop"]

    def said(self) -> list[str]:
        """The actions since the last time."""
        found = [action for action, _ in self.world.said.events]
        self.world.said.events.clear()
        self.world.said.facts.clear()
        return found


@pytest.fixture
async def here(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as world:
        yield Here(world)


def shop(**labels: str) -> Container:
    return container("shop", volume("data"), labels={"schedule": "@hourly", **labels})


async def test_unit_that_is_seen_is_said_remembered_and_planned(here):
    """With what its labels say, also on the disk."""
    await here.desk.plan.wait(0)
    await here.see(shop(**{"max-age": "26h"}))
    assert here.said() == ["unit-found"]
    assert [unit.name for unit in here.desk.found.units] == ["shop"]
    assert (here.record.schedule, here.record.max_age) == ("@hourly", "26h")
    assert await here.desk.plan.wait(0)
    await here.desk.ledger.reload()
    assert here.record.schedule == "@hourly"


async def test_equal_list_says_and_writes_nothing(here):
    """One comes every five minutes."""
    await here.see(shop())
    before, version = here.record, here.desk.ledger._change
    here.said()
    here.world.time.passed = HOUR
    await here.see(shop(), reason="interval")
    assert (here.said(), here.record, here.desk.ledger._change) == ([], before, version)


async def test_unit_that_vanishes_and_comes_back_is_remembered_as_such(here):
    """Since when it is gone, as long as it is."""
    await here.see(shop())
    await here.see(reason="event")
    assert here.record.gone_since == NOON
    here.world.time.passed = HOUR
    await here.see(reason="interval")
    assert here.record.gone_since == NOON
    await here.see(shop(), reason="event")
    assert here.record.gone_since is None
    assert here.said() == ["unit-found", "unit-gone", "unit-back"]


async def test_new_schedule_owes_nothing_for_the_time_before_it(here):
    """A unit that becomes hourly at noon is not eleven runs behind."""
    await here.see(shop(schedule="@yearly"))
    assert here.record.served is None
    here.world.time.passed = HOUR
    await here.see(shop(), reason="event")
    assert here.record.served == NOON + timedelta(hours=1)


async def test_broken_labels_move_no_deadline(here):
    """What they said last still counts."""
    await here.see(shop(**{"max-age": "26h"}))
    await here.see(shop(schedule="whenever"), reason="event")
    assert (here.record.schedule, here.record.max_age) == ("@hourly", "26h")
    assert not here.desk.found.units[0].valid


async def test_new_configuration_counts_for_the_list_that_is_there(here):
    """Nobody waits for Docker to say it again."""
    await here.see(container("shop", volume("data")))
    here.desk.config = here.world.fresh_config(schedule="@weekly")
    await here.sight.look_again()
    assert here.record.schedule == "@weekly"
    assert here.said() == ["unit-found", "unit-changed"]


async def test_own_container_is_no_unit(here, monkeypatch):
    """Whatever its labels say: we would stop ourselves."""
    me = here.world.engine.add_container("me", labels={"kopi.enable": "true"})
    row = here.world.engine.all[me].row
    mount = f"1 2 0:1 /docker/containers/{me}/hostname /etc/hostname rw - ext4 x rw"
    monkeypatch.setattr(own, "_own_mountinfo", lambda: mount)
    await here.see(row, shop())
    assert [unit.name for unit in here.desk.found.units] == ["shop"]


async def test_connection_that_breaks_keeps_who_we_are(here, monkeypatch):
    """The list that it gave still counts; the trouble is said."""
    me = here.world.engine.add_container("me", labels={"kopi.enable": "true"})
    row = here.world.engine.all[me].row
    mount = f"1 2 0:1 /docker/containers/{me}/hostname /etc/hostname rw - ext4 x rw"
    monkeypatch.setattr(own, "_own_mountinfo", lambda: mount)
    await here.see(row, shop())
    here.said()
    here.world.engine.fail("containers", ANY, EngineUnreachable("Docker does not answer"))
    await here.see(row, shop())
    assert here.said() == ["whoami"]
    assert [unit.name for unit in here.desk.found.units] == ["shop"]


async def test_vanished_unit_is_never_forgotten_by_itself(here):
    """Silence alarms, unless the operator set a time."""
    await here.see(shop())
    await here.see(reason="event")
    here.world.time.passed = 1000 * 24 * HOUR
    await here.sight.expire()
    assert "shop" in here.desk.ledger.records


async def test_vanished_unit_is_forgotten_after_the_time_that_was_set(here):
    """Not a moment before, and it is said."""
    here.desk.config = here.world.fresh_config(forget_after=timedelta(hours=1))
    await here.see(shop(), container("alone", volume("other")))
    await here.see(container("alone", volume("other")), reason="event")
    here.said()
    here.world.time.passed = HOUR
    await here.sight.expire()
    assert here.said() == []
    here.world.time.passed = HOUR + 1
    await here.sight.expire()
    assert here.said() == ["forgotten"]
    assert list(here.desk.ledger.records) == ["alone"]


async def test_nothing_is_forgotten_before_the_first_list(here):
    """Nobody knows yet who is gone."""
    await here.see(shop())
    await here.see(reason="event")
    here.desk.config = here.world.fresh_config(forget_after=timedelta(hours=1))
    here.desk.found = None
    here.world.time.passed = 2 * HOUR
    await here.sight.expire()
    assert "shop" in here.desk.ledger.records


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        ({}, True),
        ({"com.docker.compose.oneoff": "True"}, False),
        ({"kopi.worker": "r1"}, False),
    ],
)
def test_only_what_can_be_a_member_is_relevant(labels, fact):
    """What else comes and goes is no drift."""
    assert Sight.relevant(container("shop", labels=labels)) is fact
    assert not Sight.relevant(container("other", enable=None))
