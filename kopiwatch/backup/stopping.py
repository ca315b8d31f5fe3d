"""Holding members: who is stopped or frozen, in which order, and what became of each."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from functools import partial

import msgspec

from kopiwatch.backup.journal import Held
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone, EngineError, KopiwatchError, RunError
from kopiwatch.task import outcomes, together
from kopiwatch.units.order import Reading


class Stop(msgspec.Struct, frozen=True):
    """One container to stop; ``timeout`` None leaves it to the container's own, ``grace``."""

    id: str
    name: str
    timeout: timedelta | None
    grace: timedelta | None = None


class HoldPlan(msgspec.Struct, frozen=True):
    """Who is stopped or frozen, in which order, and what is owed to them afterwards.

    ``levels`` are stopped one after another; then ``pauses`` (ids) are frozen all at once. ``live``
    are the ids of members that are left to write. ``reading`` is what the read is worth.
    ``sequence`` are the ids of all members, held or not, in the order of starts.
    """

    levels: tuple[tuple[Stop, ...], ...] = ()
    pauses: tuple[str, ...] = ()
    held: tuple[Held, ...] = ()
    live: tuple[str, ...] = ()
    reading: Reading = "stop"
    sequence: tuple[str, ...] = ()
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
            pauses=tuple(id_ for id_ in self.pauses if id_ not in gone),
            inspected=tuple(
                msgspec.structs.replace(i, running=False) if i.id in gone else i
                for i in self.inspected
            ),
        )

    @property
    def announcement(self) -> str:
        """What is about to happen, for people."""
        names = {member.id: member.name for member in self.held}
        stops = ", ".join(stop.name for level in self.levels for stop in level)
        pauses = ", ".join(names[id_] for id_ in self.pauses)
        words = (f"stopping {stops}" if stops else "", f"pausing {pauses}" if pauses else "")
        return ", ".join(filter(None, words))


class Stopping:
    """What became of the stops and pauses of one window, by container id.

    A call that has begun and not ended (an error, a deadline, a signal) may still be carried out
    by Docker, after we found the container running. ``started`` holds since when each ran as it was
    held: it may have restarted by itself since anybody looked. None: that cannot be told any more,
    or was asked just before, since nobody looks at a frozen one (see :func:`freeze`).
    """

    def __init__(self) -> None:
        self.begun: set[str] = set()
        self.not_ours: set[str] = set()
        self.started: dict[str, datetime | None] = {}

    @property
    def uncertain(self) -> set[str]:
        """Calls of which nobody knows whether Docker is still at them."""
        return self.begun - self.started.keys() - self.not_ours


async def refresh(engine: Engine, plan: HoldPlan) -> HoldPlan:
    """The plan as of now, just before the journal: who went down meanwhile is not ours to start.

    Raises EngineError when Docker cannot be asked, RunError when somebody paused one of them.
    """
    found = await outcomes([partial(engine.inspect, member.id) for member in plan.held])
    gone: set[str] = set()
    running: dict[str, Inspected] = {}
    for member, now in zip(plan.held, found, strict=True):
        if isinstance(now, ContainerGone):
            gone.add(member.id)
        elif isinstance(now, KopiwatchError):
            raise now
        elif now.paused:
            raise RunError(
                f"somebody paused {member.name} just now", phase="ready", reason="paused"
            )
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


async def restarted(engine: Engine, plan: HoldPlan, ids: set[str]) -> HoldPlan:
    """The plan with since when these run now: the stops before theirs may have taken minutes.

    Else whom somebody restarted meanwhile, and we stop, would look started by somebody since.
    """
    members = [member for member in plan.held if member.id in ids]
    found = await outcomes([partial(engine.inspect, member.id) for member in members])
    now = {each.id: each for each in found if isinstance(each, Inspected) and each.running}
    held = (
        msgspec.structs.replace(
            m, started_at=now[m.id].started_at, restarts=now[m.id].restart_count
        )
        if m.id in now
        else m
        for m in plan.held
    )
    return msgspec.structs.replace(plan, held=tuple(held))


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


async def freeze(engine: Engine, ids: Iterable[str], stopping: Stopping) -> None:
    """Pause containers, all at once. Raises the first error, after the others have ended.

    One that has ended by itself is not ours. Frozen ones are never inspected: if Docker was about
    to start a command in one, such as its health check, the answer does not come before that has
    timed out, 30 s later by default (measured, Docker 20.10, cgroups v1; 1 of some 100 pauses where
    the check runs each second). Docker's list tells that a container is paused, and never waits.
    """

    async def one(identity: str) -> None:
        stopping.begun.add(identity)
        try:
            await engine.pause(identity)
        except ContainerGone:
            stopping.not_ours.add(identity)
            return
        except EngineError:
            if (await engine.inspect(identity)).running:
                raise
            stopping.not_ours.add(identity)
            return
        stopping.started[identity] = None

    await together([partial(one, identity) for identity in ids])


def as_held(plan: HoldPlan, stopping: Stopping) -> HoldPlan:
    """The plan with what the calls have shown: who is not ours, and since when the others ran."""
    left = plan.without(stopping.not_ours)
    held = (
        msgspec.structs.replace(m, started_at=stopping.started.get(m.id) or m.started_at)
        for m in left.held
    )
    return msgspec.structs.replace(left, held=tuple(held))
