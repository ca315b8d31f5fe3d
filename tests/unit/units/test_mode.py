"""What kopi.mode means for who is stopped, frozen, or left alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from unit.units.build import container, volume

from kopiwatch.units.container import Container, Mount
from kopiwatch.units.group import discover
from kopiwatch.units.order import OrderPlan, stop_plan

SWARM = {"com.docker.swarm.service.id": "s"}


def shop(name: str, *mounts: Mount, **fields) -> Container:
    """A member of the project shop that needs nobody, unless told otherwise."""
    fields.setdefault("depends", "")
    return container(name, *mounts, project="shop", **fields)


def planned(*rows: Container) -> tuple[OrderPlan, Callable[[Iterable[Iterable[str]]], list]]:
    """The plan of the unit that these rows are, and how to read ids as names."""
    (unit,) = discover(rows).units
    names = {row.id: row.name for row in rows}
    return stop_plan(unit, rows), lambda levels: [[names[i] for i in level] for level in levels]


def test_modes_decide_who_is_stopped_frozen_or_left():
    """Stopped ones take their dependents with them; frozen and live ones nobody."""
    plan, name = planned(
        shop("db", volume("v"), labels={"mode": "pause"}),
        shop("web", depends="db"),
        shop("log", volume("v"), labels={"mode": "live"}),
        shop("mail", volume("w")),
        shop("queue", depends="mail", labels={"mode": "pause"}),
    )
    assert name(plan.stop_levels) == [["queue"], ["mail"]]
    assert name([plan.pauses]) == [["db"]]
    assert any("queue depends on mail" in line for line in plan.warnings)
    assert name([plan.live]) == [["log"]]
    assert plan.reading == "live"
    assert (plan.problems, plan.foreign_writers) == ((), ())


@pytest.mark.parametrize(
    ("modes", "reading"),
    [
        (("stop", "stop"), "stop"),
        (("stop", "pause"), "pause"),
        (("pause", "live"), "live"),
        (("stop", "live"), "live"),
    ],
)
def test_reading_is_worth_what_the_weakest_writer_is(modes, reading):
    plan, _ = planned(
        *(shop(n, volume("v"), labels={"mode": m}) for n, m in zip("ab", modes, strict=True))
    )
    assert plan.reading == reading


@pytest.mark.parametrize("change", [{"state": "exited"}, {"writable": False}])
def test_live_container_that_does_not_write_weakens_nothing(change):
    mount = volume("v", writable=change.get("writable", True))
    plan, _ = planned(
        shop("a", mount, labels={"mode": "live"}, state=change.get("state", "running"))
    )
    assert (plan.reading, plan.live, plan.held) == ("stop", (), ())


def test_peer_of_somebody_who_stops_is_stopped_though_its_label_says_pause():
    """Frozen, it would lose its network for good; that is said."""
    plan, name = planned(
        shop("a", volume("v")),
        shop("b", volume("v"), network_mode="container:a", labels={"mode": "pause"}),
    )
    assert name(plan.stop_levels) == [["b"], ["a"]]
    assert plan.pauses == ()
    assert any("stopped, not paused" in line for line in plan.warnings)


def test_live_peer_of_somebody_who_stops_is_a_problem():
    """Left alone, it would run on without a network."""
    plan, _ = planned(
        shop("a", volume("v")), shop("b", network_mode="container:a", labels={"mode": "live"})
    )
    (problem,) = plan.problems
    assert (problem.container, problem.label, plan.passing) == ("b", "kopi.mode", ())


def test_swarm_task_may_be_frozen():
    """Nothing replaces it meanwhile."""
    plan, name = planned(shop("a", volume("v"), labels={"mode": "pause", **SWARM}))
    assert (name([plan.pauses]), plan.problems) == ([["a"]], ())
