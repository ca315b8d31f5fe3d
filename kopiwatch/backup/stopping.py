"""Stopping members: who is stopped, in which order, and what became of each stop."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

import msgspec

from kopiwatch.backup.journal import Held
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone, KopiwatchError
from kopiwatch.task import outcomes, together


class Stop(msgspec.Struct, frozen=True):
    """One container to stop; ``timeout`` None leaves it to the container's own, ``grace``."""

    id: str
    name: str
    timeout: timedelta | None
    grace: timedelta | None = None


class HoldPlan(msgspec.Struct, frozen=True):
    """Who is stopped, in which order, and what is owed to them afterwards."""

    levels: tuple[tuple[Stop, ...], ...] = ()
    held: tuple[Held, ...] = ()
    inspected: tuple[Inspected, ...] = ()
    warnings: tuple[str, ...] = ()

    def without(self, gone: set[str]) -> HoldPlan:
        """The same plan without these ids, which are down: that is why they are left out."""
        kept = tuple(member for member in self.held if member.id not in gone)
        levels = (tuple(stop for stop in level if stop.id not in gone) for level in self.levels)
        return msgspec.structs.replace(
            self,
            held=kept,
            levels=tuple(level for level in levels if level),
            inspected=tuple(
                msgspec.structs.replace(i, running=False) if i.id in gone else i
                for i in self.inspected
            ),
        )


class Stopping:
    """What became of the stops of one window, by container id.

    A stop that has begun and not ended (an error, a deadline, a signal) may still be carried out
    by Docker, after a start that found the container running. ``started`` holds since when each
    ran as it was stopped: it may have restarted by itself since anybody looked. None: that cannot
    be told any more.
    """

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.not_ours: set[str] = set()
        self.started: dict[str, datetime | None] = {}

    @property
    def uncertain(self) -> set[str]:
        """Stops of which nobody knows whether Docker is still at them."""
        return self.begun - self.started.keys() - self.not_ours


async def refresh(engine: Engine, plan: HoldPlan) -> HoldPlan:
    """The plan as of now, just before the journal: who went down meanwhile is not ours to start.

    Raises EngineError when Docker cannot be asked.
    """
    found = await outcomes([partial(engine.inspect, member.id) for member in plan.held])
    gone: set[str] = set()
    running: dict[str, Inspected] = {}
    for member, now in zip(plan.held, found, strict=True):
        if isinstance(now, ContainerGone):
            gone.add(member.id)
        elif isinstance(now, KopiwatchError):
            raise now
        elif now.running:
            running[member.id] = now
        else:
            gone.add(member.id)
    left = plan.without(gone)
    held = (
        msgspec.structs.replace(
            m, started_at=running[m.id].started_at, restarts=running[m.id].restart_count
        )
        for m in left.held
    )
    return msgspec.structs.replace(left, held=tuple(held))


async def stop_level(engine: Engine, level: Iterable[Stop], stopping: Stopping) -> None:
    """Stop the containers of one level side by side; ``stopping`` keeps the record.

    A container that was down already is not ours. Raises the first error, after the others have
    ended.
    """

    async def one(stop: Stop) -> None:
        stopping.begun.add(stop.id)
        if not await engine.stop(stop.id, stop.timeout, grace=stop.grace):
            stopping.not_ours.add(stop.id)
            return
        try:
            now = await engine.inspect(stop.id)
        except ContainerGone:
            stopping.started[stop.id] = None
        else:
            # Who runs again already was started by somebody since: that is not when ours began.
            stopping.started[stop.id] = None if now.running else now.started_at

    await together([partial(one, stop) for stop in level])


def as_stopped(plan: HoldPlan, stopping: Stopping) -> HoldPlan:
    """The plan with what the stops have shown: who is not ours, and since when the others ran."""
    left = plan.without(stopping.not_ours)
    held = (
        msgspec.structs.replace(m, started_at=stopping.started.get(m.id) or m.started_at)
        for m in left.held
    )
    return msgspec.structs.replace(left, held=tuple(held))
