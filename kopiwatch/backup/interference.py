"""Whether somebody disturbed the read: asked in the window, a start wipes out the traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from functools import partial

from kopiwatch.backup.journal import Held
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone
from kopiwatch.task import outcomes, together
from kopiwatch.units.container import Container
from kopiwatch.units.coverage import writes_to
from kopiwatch.units.unit import Unit


async def interference(
    engine: Engine, unit: Unit, plan: HoldPlan, mountpoints: dict[str, str], own: str
) -> str:
    """Who disturbed the read, as a sentence; empty when nobody did.

    At **read** every held member must still be down, without having run in between, and nobody
    else who mounts a source writable may run; nor may a member that was down before have run since.
    Otherwise what was read is not what a stopped application left behind. ``mountpoints`` are the
    volumes' places on the host, by name; ``own`` is our own container, which writes to nobody's
    data. All questions are asked side by side.
    """

    async def foreign() -> str:
        held = {own, *(member.id for member in plan.held)}
        writers = [
            row.name
            for row in await engine.containers()
            if row.id not in held and row.running and not row.worker
            if _writes(row, unit, mountpoints)
        ]
        if not writers:
            return ""
        return f"{', '.join(sorted(writers))} ran and could write to a source while it was read"

    async def look(member: Held) -> str:
        try:
            now = await engine.inspect(member.id)
        except ContainerGone:
            return ""
        if now.running or now.started_at != member.started_at:
            return f"somebody started {member.name} while it was read"
        return ""

    async def look_again(before: Inspected) -> str:
        try:
            now = await engine.inspect(before.id)
        except ContainerGone:
            return f"somebody removed {before.name}: whether it ran while it was read is not known"
        if now.running:
            return ""  # told as one that runs
        # The list did not know of one that ran when it was looked at, so it was not stopped.
        if before.running or now.started_at != before.started_at:
            return f"{before.name} ran for a while and could write to a source while it was read"
        return ""

    held = {member.id for member in plan.held}
    writers = {
        member.container.id
        for member in unit.members
        if member.settings.mode != "live" and _writes(member.container, unit, mountpoints)
    }
    idle = [each for each in plan.inspected if each.id in writers - held]
    calls: list[Callable[[], Awaitable[str]]] = [partial(look, member) for member in plan.held]
    calls += [partial(look_again, each) for each in idle]
    calls.append(foreign)
    return "; ".join(filter(None, await together(calls)))


async def taken_over(engine: Engine, held: Iterable[Held]) -> set[str]:
    """Who was started by somebody else since we stopped it, and is down again: the ids.

    That is how somebody wants it. Never raises an error of Docker's: who cannot be looked at
    counts as ours.
    """
    members = tuple(held)
    found = await outcomes([partial(engine.inspect, member.id) for member in members])
    return {
        member.id
        for member, now in zip(members, found, strict=True)
        if isinstance(now, Inspected) and not now.running and started_since(member, now)
    }


def started_since(member: Held, now: Inspected) -> bool:
    """Whether somebody, and not its restart policy, started it since we stopped it.

    Docker counts the restarts of its policy, and begins again when somebody starts the container
    (API 1.41). A member that restarted by itself between our last look and its stop is still ours.
    """
    if member.started_at is None or now.started_at == member.started_at:
        return False
    return now.restart_count <= member.restarts


def _writes(row: Container, unit: Unit, mountpoints: dict[str, str]) -> bool:
    return any(
        writes_to(mount, source, mountpoints.get(source.volume, ""))
        for mount in row.mounts
        for source in unit.sources
    )
