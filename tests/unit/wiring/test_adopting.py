"""Adopting: what would move, and what is refused."""

from __future__ import annotations

from datetime import timedelta

import pytest
from support.run_world import NOON
from unit.units.build import container

from kopiwatch.errors import UnknownUnit, UsageError
from kopiwatch.restore.point import points
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.units.group import discover
from kopiwatch.wiring.adopting import move, plan, refuse_mixing, refuse_present

HOUR = timedelta(hours=1)


@pytest.fixture
def repository() -> FakeRepository:
    """Two points of old, one of another unit."""
    made = FakeRepository(host="testhost")
    for number, unit in enumerate(("old", "old", "mail")):
        made.add_snapshot(
            f"/mnt/{unit}", {"a": b"1"}, tags={"run": f"r{number}"}, start=NOON + number * HOUR
        )
    return made


def planned(repository, old="old", new="new", known=(), runs=0):
    return plan(old, new, points(repository.contents.snapshots), runs, known)


def test_plan_tells_what_would_move(repository):
    """How many, from when to when."""
    found = planned(repository, runs=5)
    assert (found.points, found.runs, found.mixed) == (2, 5, 0)
    assert (found.first, found.last) == (NOON, NOON + HOUR)


def test_younger_points_of_the_new_name_are_not_mixed(repository):
    """It was backed up once before somebody thought of adopting."""
    repository.add_snapshot("/mnt/new", tags={"run": "n"}, start=NOON + 2 * HOUR)
    refuse_mixing(planned(repository))


@pytest.mark.parametrize("minutes", [-10, 30, 60])
def test_points_that_would_be_mixed_are_refused(repository, minutes):
    """Two units that lived side by side are not one."""
    at = NOON + timedelta(minutes=minutes)
    repository.add_snapshot("/mnt/new", tags={"run": "n"}, start=at)
    found = planned(repository)
    assert found.mixed == 1
    with pytest.raises(UsageError, match="mixed"):
        refuse_mixing(found)


@pytest.mark.parametrize("new", ["old", "New", "", "a b"])
def test_name_that_cannot_be_meant_is_refused(repository, new):
    """Its own, or none at all."""
    with pytest.raises(UsageError):
        planned(repository, new=new)


def test_unit_of_which_nothing_is_known_is_refused(repository):
    """With the nearest name; what the history knows counts, too."""
    with pytest.raises(UnknownUnit) as caught:
        planned(repository, old="odl")
    assert "'old'" in caught.value.hint
    assert planned(repository, old="past", known=("past",)).points == 0


def test_unit_that_is_still_there_is_refused():
    """Its next backup would begin a history of its own."""
    found = discover([container("web", project="old"), container("db", project="new")])
    with pytest.raises(UsageError, match="web"):
        refuse_present(found, "old")
    refuse_present(found, "gone")


@pytest.mark.anyio
async def test_move_tells_the_new_ids_by_run(repository):
    """The other unit's stay where they are; an instance has its own place."""
    for instance, root in (("default", "/mnt"), ("two", "/mnt/@two")):
        repository.add_snapshot(f"{root}/old", tags={"run": f"own-{instance}"})
        ids = await move(repository, planned(repository), "testhost", instance)
        moved = await repository.snapshots(f"kopiwatch@testhost:{root}/new")
        assert ids == {s.tag("run"): s.id for s in moved}
        assert f"own-{instance}" in ids
    assert len(await repository.snapshots("kopiwatch@testhost:/mnt/mail")) == 1
