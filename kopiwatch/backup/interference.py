"""Whether somebody disturbed the read: asked in the window, a start wipes out the traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from kopiwatch.backup.journal import Held
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.engine.port import Engine
from kopiwatch.errors import ContainerGone
from kopiwatch.task import together
from kopiwatch.units.container import Container
from kopiwatch.units.coverage import writes_to
from kopiwatch.units.unit import Unit


async def interference(
    engine: Engine, unit: Unit, plan: HoldPlan, mountpoints: dict[str, str], own: str
) -> str:
    """Who disturbed the read, as a sentence; empty when nobody did.

    At **read** every held member must still be down (or frozen), without having run in between, and
    nobody else who mounts a source writable may run, members that were down before included, unless
    its label says ``live``: otherwise what was read is not what a stopped application left behind.
    ``mountpoints`` are the volumes'
    places on the host, by name; ``own`` is our own container, which writes to nobody's data. All
    questions are asked side by side.
    """

    async def foreign() -> str:
        known = {own, *(member.id for member in plan.held), *plan.live}
        writers = [
            row.name
            for row in await engine.containers()
            if row.id not in known and row.running and row.state != "paused" and not row.worker
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
        if now.started_at != member.started_at or now.running != (member.how == "pause"):
            return f"somebody started or ended {member.name} while it was read"
        if now.paused != (member.how == "pause"):
            return f"somebody unpaused {member.name} while it was read"
        return ""

    calls: list[Callable[[], Awaitable[str]]] = [partial(look, member) for member in plan.held]
    calls.append(foreign)
    return "; ".join(filter(None, await together(calls)))


def _writes(row: Container, unit: Unit, mountpoints: dict[str, str]) -> bool:
    return any(
        writes_to(mount, source, mountpoints.get(source.volume, ""))
        for mount in row.mounts
        for source in unit.sources
    )
