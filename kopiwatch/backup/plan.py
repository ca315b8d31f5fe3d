"""The phase *check*: everything a run needs to know before it touches anything."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

from kopiwatch.backup.access import TreeEntry, WorkerPlan
from kopiwatch.backup.journal import Held
from kopiwatch.backup.plausible import REFUSALS
from kopiwatch.backup.stopping import HoldPlan, Stop
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import RunError
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.tree import RECIPE
from kopiwatch.task import together
from kopiwatch.units.container import Container
from kopiwatch.units.group import tree_path
from kopiwatch.units.order import Namespaces, OrderPlan, Reading, stop_plan
from kopiwatch.units.setting import MemberSettings
from kopiwatch.units.unit import Source, Unit

ENDLESS = timedelta(seconds=10)
"""Stands in for a stop timeout that there is none of; such a container is refused."""


async def plan_hold(
    engine: Engine, unit: Unit, rows: tuple[Container, ...], *, own: str = ""
) -> HoldPlan:
    """Inspect the unit's members and decide who is stopped, in which order.

    ``own`` is the id of our own container, which is never stopped; empty outside one.

    Raises RunError when the order cannot be told, EngineError when Docker does not answer.
    """
    members = [member.container.id for member in unit.members]
    inspected = await together([partial(engine.inspect, identity) for identity in members])
    order = order_of(unit, rows, inspected, own)
    known = {i.id: i for i in inspected}
    others = [identity for identity in order.held if identity not in known]
    for foreign in await together([partial(engine.inspect, identity) for identity in others]):
        known[foreign.id] = foreign
    settings = {member.container.id: member.settings for member in unit.members}
    names = {row.id: row for row in rows}
    held = tuple(
        _held(names[identity], known[identity], settings.get(identity), level, order)
        for level, ids in enumerate(order.start_levels)
        for identity in ids
    )
    stops = tuple(
        tuple(
            Stop(i, names[i].name, _stop_timeout(settings.get(i)), known[i].stop_timeout)
            for i in level
        )
        for level in order.stop_levels
    )
    _refuse(unit, (stop for level in stops for stop in level), known)
    shaky = [f"{m.name} restarts over and over" for m in held if m.shaky]
    live = [
        f"{names[i].name} writes on while its data is read (kopi.mode=live)" for i in order.live
    ]
    return HoldPlan(
        levels=stops,
        pauses=order.pauses,
        held=held,
        live=order.live,
        reading=order.reading,
        inspected=tuple(inspected),
        warnings=(*order.warnings, *shaky, *live),
    )


def order_of(
    unit: Unit, rows: tuple[Container, ...], inspected: Iterable[Inspected], own: str
) -> OrderPlan:
    """The order of stops and starts. Raises RunError if there is none."""
    namespaces = {
        i.id: Namespaces(pid_mode=i.pid_mode, ipc_mode=i.ipc_mode, volumes_from=i.volumes_from)
        for i in inspected
    }
    order = stop_plan(unit, rows, namespaces, self_id=own)
    if order.problems:
        raise RunError(
            f"unit {unit.name}: {order.problems[0]}",
            phase="check",
            reason="order",
            hint="" if order.passing else "mend the labels and recreate the container",
        )
    return order


def _stop_timeout(settings: MemberSettings | None) -> timedelta | None:
    return settings.stop_timeout if settings else None


def _longest_stop(settings: MemberSettings | None, inspected: Inspected) -> timedelta:
    """What Docker waits before it kills; zero is a time like any other."""
    labelled = _stop_timeout(settings)
    wanted = inspected.stop_timeout if labelled is None else labelled
    return ENDLESS if wanted is None else wanted


def _held(
    row: Container,
    inspected: Inspected,
    settings: MemberSettings | None,
    level: int,
    order: OrderPlan,
) -> Held:
    return Held(
        id=row.id,
        name=row.name,
        project=row.project,
        service=row.service,
        number=row.number,
        how="pause" if row.id in order.pauses else "stop",
        level=level,
        await_healthy=order.gates.get(row.id, ()),
        healthy_before=inspected.health == "healthy",
        start_timeout=(settings or MemberSettings()).start_timeout.total_seconds(),
        stop_timeout=_longest_stop(settings, inspected).total_seconds(),
        started_at=inspected.started_at,
        shaky=row.state == "restarting",
    )


def _refuse(unit: Unit, stops: Iterable[Stop], known: dict[str, Inspected]) -> None:
    """Refuse containers that a stop would remove, or would never end for."""
    for stop in stops:
        if known[stop.id].auto_remove:
            raise RunError(
                f"unit {unit.name}: {stop.name} was started with --rm and would be gone once "
                "stopped",
                phase="check",
                reason="auto-remove",
                hint="run it without --rm",
            )
        if stop.timeout is None and stop.grace is None:
            raise RunError(
                f"unit {unit.name}: {stop.name} has no stop timeout (-1): its stop may never end",
                phase="check",
                reason="endless-stop",
                hint="give it the label kopi.stop-timeout, such as 60s",
            )


def worker_plan(unit: Unit, *, run: str, instance: str, recipe: str, dumps: str = "") -> WorkerPlan:
    """The tree that the worker of this run has in front of it.

    ``dumps`` is our own folder with all dumps of the unit, empty where there are none.
    """
    entries = [TreeEntry(RECIPE, "path", recipe, own=True)]
    entries += [TreeEntry("dumps", "path", dumps, own=True)] if dumps else []
    entries += [_entry(source) for source in unit.sources if source.kind != "dump"]
    return WorkerPlan(run, unit.name, tree_path(unit.name, instance), tuple(entries))


def _entry(source: Source) -> TreeEntry:
    if source.volume:
        return TreeEntry(source.path, "volume", source.volume)
    return TreeEntry(source.path, "path", source.host_path)


def parents_trusted(snapshots: Iterable[Snapshot], reading: Reading) -> bool:
    """Whether Kopia may skip files that look unchanged since an earlier snapshot of this source.

    Kopia takes the newest complete manifest and all newer incomplete ones as parents. Each of them
    must be ours, a success, and read while its members were stopped or frozen (and their pages
    written back): a file that a program writes through mmap can change without its times changing
    (measured: stale in 13 of 14 runs). A ``live`` read is no better than such a parent.
    """
    newest = max(snapshots, key=lambda snapshot: snapshot.start_time, default=None)
    if newest is None:
        return True
    # One that is only implausible was read like a success.
    good = not newest.quarantine or newest.quarantine in REFUSALS
    trusted = ("stop", "pause", "live") if reading == "live" else ("stop", "pause")
    return not newest.incomplete and good and newest.tag("mode") in trusted
