"""Whether somebody disturbed the read: asked in the window, a start wipes out the traces."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from datetime import datetime
from functools import partial

import msgspec

from kopiwatch.backup.journal import Held
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone, EngineError, KopiwatchError
from kopiwatch.task import outcomes, together
from kopiwatch.units.container import Container
from kopiwatch.units.coverage import writes_to
from kopiwatch.units.unit import Source, Unit


class Disturbance(msgspec.Struct, frozen=True):
    """Who disturbed the read, as a sentence, and what could not be told; empty for nothing.

    ``foreign`` says that it was somebody outside the unit.
    """

    text: str = ""
    doubt: str = ""
    foreign: bool = False


class Observer:
    """Watches one window for others who write to its sources.

    ``own`` is our own container, which writes to nobody's data; ``mountpoints`` are the volumes'
    places on the host, by name. :meth:`begin` is called before the first stop, :meth:`look` at
    **read**, each with the plan as of then; :meth:`look_back` when all run again, and
    :meth:`look_late` after what was read later.
    """

    def __init__(self, engine: Engine, unit: Unit, mountpoints: dict[str, str], own: str) -> None:
        self._engine = engine
        self._unit = unit
        self._mountpoints = mountpoints
        self._own = own
        self._began: datetime | None = None
        self._writers: frozenset[str] = frozenset()
        self._idle_then: dict[str, Inspected | KopiwatchError] = {}

    async def begin(self, plan: HoldPlan) -> None:
        """Remember Docker's time, who else could write just now, and who could but is down."""
        self._began = (await self._engine.info()).system_time
        found = await self._running_writers(self._known(plan), self._unit.sources)
        self._writers = frozenset(found)
        idle = [each.id for each in self._idle(plan)]
        seen = await outcomes([partial(self._engine.inspect, identity) for identity in idle])
        self._idle_then = dict(zip(idle, seen, strict=True))

    async def look(self, plan: HoldPlan) -> Disturbance:
        """Who disturbed the read. All questions are asked side by side.

        Every held member must still be down (or frozen), without having run in between, and nobody
        else who mounts a source writable may have run since :meth:`begin`, members that were down
        before included, unless its label says ``live``: otherwise what was read is not what a
        stopped application left behind. Who came and went in between is told by Docker's events,
        for volumes only; that they cannot be had, or may be incomplete, is a doubt and no more.
        """
        known = self._known(plan)
        doubts: list[str] = []

        members = {member.container.name for member in self._unit.members}
        foreign: set[str] = set()

        async def writers() -> str:
            names = self._writers | await self._have_written(known, self._unit.sources, doubts)
            foreign.update(names - members)
            return _ran(names)

        frozen = [member for member in plan.held if member.how == "pause"]
        calls: list[Callable[[], Awaitable[str]]] = [
            partial(self._look_at, member) for member in plan.held if member.how == "stop"
        ]
        if frozen:
            calls.append(partial(self._look_at_frozen, frozen))
        calls += [partial(self._look_again, each) for each in self._idle(plan)]
        calls.append(writers)
        text = "; ".join(filter(None, await together(calls)))
        return Disturbance(text, "; ".join(doubts), foreign=bool(foreign))

    async def look_late(self, sources: Collection[Source]) -> Disturbance:
        """Who could write to these since :meth:`begin`: nobody mounted them writable by then.

        Docker not telling is a disturbance, too: all is stored, and nobody vouches for it.
        """
        doubts: list[str] = []
        try:
            text = _ran(await self._have_written({self._own}, sources, doubts))
        except EngineError as error:
            what = ", ".join(source.path for source in sources)
            return Disturbance(f"nobody can tell who wrote to {what} meanwhile: {error.message}")
        return Disturbance(text, "; ".join(doubts), foreign=bool(text))

    async def look_back(self, plan: HoldPlan) -> Disturbance:
        """Who of the frozen members was started anew meanwhile, though it was paused at the look.

        It runs by now. Docker not telling is a doubt and no more.
        """
        frozen = [member for member in plan.held if member.how == "pause"]
        found = await outcomes([partial(self._engine.inspect, member.id) for member in frozen])
        texts: list[str] = []
        doubts: list[str] = []
        for member, now in zip(frozen, found, strict=True):
            if isinstance(now, Inspected):
                if now.started_at != member.started_at:
                    texts.append(_STARTED.format(member.name))
            elif not isinstance(now, ContainerGone):
                doubts.append(f"whether {member.name} was frozen all the time: {now.message}")
        return Disturbance("; ".join(texts), "; ".join(doubts))

    async def _look_at(self, member: Held) -> str:
        try:
            now = await self._engine.inspect(member.id)
        except ContainerGone:
            return ""
        if now.started_at != member.started_at or now.running:
            return _STARTED.format(member.name)
        return ""

    async def _look_at_frozen(self, members: Collection[Held]) -> str:
        rows = {row.id: row for row in await self._engine.containers()}
        told = []
        for member in members:
            row = rows.get(member.id)
            if row is not None and row.state != "paused":
                unpaused = f"somebody unpaused {member.name} while it was read"
                told.append(unpaused if row.running else _STARTED.format(member.name))
        return "; ".join(told)

    def _idle(self, plan: HoldPlan) -> list[Inspected]:
        """Members that could write, did not run, and are not held."""
        unit = self._unit
        writers = {m.container.id for m in unit.members if self._writes(m.container, unit.sources)}
        return [each for each in plan.inspected if each.id in writers - self._known(plan)]

    async def _look_again(self, before: Inspected) -> str:
        then = self._idle_then.get(before.id)
        if isinstance(then, ContainerGone):
            return ""
        # It may have come and gone since the phase check, which may be hours ago.
        before = then if isinstance(then, Inspected) else before
        try:
            now = await self._engine.inspect(before.id)
        except ContainerGone:
            return f"somebody removed {before.name}: whether it ran while it was read is not known"
        if now.running:
            return ""  # told as one that runs
        # The list did not know of one that ran when it was looked at, so it was not stopped.
        if before.running or now.started_at != before.started_at:
            return f"{before.name} ran for a while and could write to a source while it was read"
        return ""

    def _known(self, plan: HoldPlan) -> set[str]:
        return {self._own, *(member.id for member in plan.held), *plan.live}

    async def _have_written(
        self, known: set[str], sources: Collection[Source], doubts: list[str]
    ) -> set[str]:
        """Names of the others who could write to these sources since the beginning."""
        came, running = await together(
            [
                partial(self._came, known, sources, doubts),
                partial(self._running_writers, known, sources),
            ]
        )
        return came | running

    async def _running_writers(self, known: set[str], sources: Collection[Source]) -> set[str]:
        """Names of the others who run and mount one of these sources writable."""
        return {
            row.name
            for row in await self._engine.containers()
            if row.id not in known and row.running and row.state != "paused"
            if not row.worker and self._writes(row, sources)
        }

    async def _came(
        self, known: set[str], sources: Collection[Source], doubts: list[str]
    ) -> set[str]:
        """Names of the others for whom Docker has mounted one of these volumes writable since."""
        if self._began is None:
            doubts.append(f"{_DOUBT}: Docker tells no time")
            return set()
        try:
            since = await self._engine.mounted(self._began)
        except EngineError as error:
            doubts.append(f"{_DOUBT}: {error.message}")
            return set()
        if not since.complete:
            doubts.append(f"{_DOUBT}: Docker had more events than it keeps")
        volumes = {source.volume for source in sources if source.volume}
        return {
            mount.name or mount.container[:12]
            for mount in since.mounts
            if mount.volume in volumes and mount.container not in known
        }

    def _writes(self, row: Container, sources: Collection[Source]) -> bool:
        return any(
            writes_to(mount, source, self._mountpoints.get(source.volume, ""))
            for mount in row.mounts
            for source in sources
        )


def _ran(names: set[str] | frozenset[str]) -> str:
    if not names:
        return ""
    return f"{', '.join(sorted(names))} ran and could write to a source while it was read"


async def taken_over(engine: Engine, held: Iterable[Held]) -> set[str]:
    """Who was started by somebody else since we stopped it, and is down again: the ids.

    That is how somebody wants it. Never raises an error of Docker's: who cannot be looked at, or is
    frozen, counts as ours.
    """
    (rows,) = await outcomes([engine.containers])
    listed = () if isinstance(rows, KopiwatchError) else rows
    frozen = {row.id for row in listed if row.state == "paused"}
    members = tuple(member for member in held if member.id not in frozen)
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


_STARTED = "somebody started or ended {} while it was read"
_DOUBT = "a container that came and went during the read might not have been noticed"
