"""Who is stopped for a unit's sake, and in which order they stop and start."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from itertools import groupby, pairwise
from typing import Literal

import msgspec

from kopiwatch.config import nearest
from kopiwatch.units.container import DEPENDS_LABEL, Container
from kopiwatch.units.coverage import writes_to
from kopiwatch.units.dependency import Link, Namespaces, Network, network
from kopiwatch.units.level import cycle, levels, reach, sequence
from kopiwatch.units.setting import Mode
from kopiwatch.units.unit import Problem, Source, Unit

__all__ = ["How", "Namespaces", "OrderPlan", "Reading", "plan_in", "stop_plan"]

How = Literal["stop", "pause"]
"""How a container is kept from writing."""
Reading = Literal["stop", "pause", "live"]
"""What a read is worth: nobody had the data open, who had was frozen, or somebody wrote."""


class OrderPlan(msgspec.Struct, frozen=True):
    """Who stops and starts, by container id.

    ``held`` is everybody who is stopped or paused. ``stop_levels`` are stopped one after another,
    the members of a level in parallel; then ``pauses`` are frozen, all at once. ``start_levels`` is
    the order in which all of them come back. ``gates`` says who must be healthy before an id comes
    back. ``sequence`` is the order of starts of all members, held or not. ``reasons`` says, by id
    and for people, why it is held. ``live`` are the running members that write on because their
    labels say so. ``foreign_writers`` are the names of running containers outside the unit that can
    write to its sources and are not held. ``reading`` is what the read will be worth.

    With ``problems`` the plan must not be carried out. Those that are also ``passing`` come from
    what containers do just now, not from labels: they forbid a run, not the unit.
    """

    held: tuple[str, ...] = ()
    stop_levels: tuple[tuple[str, ...], ...] = ()
    pauses: tuple[str, ...] = ()
    start_levels: tuple[tuple[str, ...], ...] = ()
    gates: dict[str, tuple[str, ...]] = msgspec.field(default_factory=dict)
    reasons: dict[str, str] = msgspec.field(default_factory=dict)
    live: tuple[str, ...] = ()
    foreign_writers: tuple[str, ...] = ()
    reading: Reading = "stop"
    sequence: tuple[str, ...] = ()
    problems: tuple[Problem, ...] = ()
    passing: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def stop_plan(
    unit: Unit,
    containers: Iterable[Container],
    namespaces: Mapping[str, Namespaces] | None = None,
    *,
    self_id: str = "",
) -> OrderPlan:
    """Plan the window of ``unit``; never raises.

    ``containers`` are all of the host, running or not; ``namespaces`` by id, for those that were
    inspected; ``self_id`` is our own container, which is never stopped.
    """
    return plan_in(unit, network(containers, namespaces), self_id=self_id)


def plan_in(unit: Unit, host: Network, *, self_id: str = "") -> OrderPlan:
    """As :func:`stop_plan`, where the links of the host are known already."""
    return _Planning(unit, host, self_id).plan()


class _Planning:
    """One plan in the making."""

    def __init__(self, unit: Unit, host: Network, self_id: str) -> None:
        self.unit = unit
        self.self_id = self_id
        # The unit may be older than the list: the list knows the state, the unit the settings.
        self.rows = {m.container.id: m.container for m in unit.members} | host.containers
        self.members = {member.container.id: member for member in unit.members}
        self.problems: list[Problem] = []
        self.passing: list[Problem] = []
        self.warnings = [line for id_ in self.members for line in host.warnings.get(id_, ())]
        self.links = [*host.links, *self.after_links()]
        self.needs: dict[str, list[str]] = defaultdict(list)
        for link in self.links:
            self.needs[link.dependent].append(link.needed)
        self.frozen: set[str] = set()

    def name(self, id_: str) -> str:
        """What people call the container."""
        return self.rows[id_].name

    def plan(self) -> OrderPlan:
        """Who is held, then in which order."""
        reasons = self.hold()
        self.find_cycle(reasons)
        self.check_held(reasons)
        order = self.order_needs(reasons)
        starts = levels(reasons, order)
        down = (tuple(id_ for id_ in level if id_ not in self.frozen) for level in reversed(starts))
        stops = tuple(level for level in down if level)
        pauses = tuple(id_ for level in starts for id_ in level if id_ in self.frozen)
        writers = tuple(sorted(set(self.foreign_writers(reasons))))
        self.warn_dependents(set(reasons) - self.frozen)
        return OrderPlan(
            held=(*(id_ for level in stops for id_ in level), *pauses),
            stop_levels=stops,
            pauses=pauses,
            start_levels=starts,
            gates=self.gates(reasons),
            reasons=reasons,
            live=tuple(sorted(self.live())),
            foreign_writers=writers,
            reading=self.reading(),
            sequence=self.sequence(),
            problems=tuple(sorted({*self.problems, *self.passing})),
            passing=tuple(sorted(set(self.passing))),
            warnings=tuple(dict.fromkeys(self.warnings)),
        )

    # --- who -------------------------------------------------------------------------------------

    def hold(self) -> dict[str, str]:
        """Everybody who must not run while the sources are read, with the reason.

        Whoever is merely frozen stays in ``frozen``. Nobody follows them: a dependent waits for the
        fraction of a second that it takes.
        """
        reasons: dict[str, str] = {}
        pending: list[str] = []
        reached = {id_: reach([id_], self.needs) for id_ in self.members}

        def add(id_: str, reason: str, *, peer: bool = False, needs: bool = False) -> None:
            wanted = self.mode(id_)
            # Whoever needs somebody who is stopped would run on without it until the freeze.
            # One that restarts over and over cannot be frozen: most of the time nothing runs.
            frozen = wanted == "pause" and not peer and not needs
            frozen = frozen and self.rows[id_].state != "restarting"
            how: How = "pause" if frozen else "stop"
            if id_ in reasons and (how == "pause" or id_ not in self.frozen):
                return
            if not self.at_work(id_, peer=peer) or not self.may_hold(id_, reason, how, peer=peer):
                return
            reasons[id_] = reason
            if how == "pause":
                self.frozen.add(id_)
                return
            if wanted == "pause":
                self.warnings.append(f"{self.name(id_)} {reason}, so it is stopped, not paused")
            self.frozen.discard(id_)
            pending.append(id_)

        for id_, path in self.writers():
            add(id_, f"writes to {path}")
        while pending:
            needed = pending.pop()
            for link in self.links:
                # Peers of somebody who is stopped lose what they live in, whoever they are.
                if link.peer and link.needed == needed and link.dependent in self.rows:
                    add(link.dependent, f"{link.why} {self.name(needed)}", peer=True)
            for id_ in self.members:
                if needed in reached[id_]:
                    add(id_, f"depends on {self.name(needed)}", needs=True)
        return reasons

    def mode(self, id_: str) -> Mode:
        """What the container's labels ask for; those of others are stopped."""
        member = self.members.get(id_)
        return member.settings.mode if member else "stop"

    def at_work(self, id_: str, *, peer: bool) -> bool:
        """Whether it has to be held: somebody who is paused already writes nothing, and stays so.

        But a peer loses what it lives in all the same.
        """
        row = self.rows[id_]
        return row.running and (peer or row.state != "paused")

    def writers(self) -> Iterator[tuple[str, str]]:
        """Members that run and can write to a source, with the path of the first such source."""
        for id_ in self.members:
            row = self.rows[id_]
            written = [s.path for s in self.unit.sources if self.writes(row, s)]
            if written and row.running:
                yield id_, written[0]

    def live(self) -> Iterator[str]:
        """Members that write while the sources are read, because their labels say so."""
        for id_, _ in self.writers():
            if self.mode(id_) == "live" and self.rows[id_].state != "paused":
                yield id_

    def reading(self) -> Reading:
        """What the read will be worth: the weakest of all who have the data open."""
        if any(self.live()):
            return "live"
        open_still = (
            self.rows[id_].state == "paused" or id_ in self.frozen for id_, _ in self.writers()
        )
        return "pause" if any(open_still) else "stop"

    def writes(self, row: Container, source: Source) -> bool:
        """Whether the container can change what the source holds."""
        mountpoint = self.mountpoint(source) if source.volume else ""
        return any(writes_to(mount, source, mountpoint) for mount in row.mounts)

    def mountpoint(self, source: Source) -> str:
        """Where a volume lies on the host, by what its members' rows say."""
        for id_ in self.members:
            for mount in self.rows[id_].mounts:
                if mount.volume == source.volume and mount.source:
                    return mount.source
        return ""

    def may_hold(self, id_: str, reason: str, how: How, *, peer: bool) -> bool:
        """Whether the container can be held at all; if not, that is a problem or its wish."""
        row = self.rows[id_]
        if self.self_id and id_ == self.self_id:
            why = f"{reason}, but is kopiwatch itself, which never stops itself"
            self.problems.append(Problem(row.name, "", "", why, "give kopiwatch its own network"))
        elif self.mode(id_) == "live" and not peer:
            pass
        elif self.mode(id_) == "live":
            why = f"{reason}, which is stopped: it would be cut off for good"
            hint = "without kopi.mode=live it is stopped first and started last"
            self.problems.append(Problem(row.name, "kopi.mode", "live", why, hint))
        elif row.swarm_task and how == "stop":
            why = f"{reason}, but is a Swarm task: its replacement would write beside it"
            hint = "kopi.mode=pause freezes it instead, or mount the sources read-only"
            self.problems.append(Problem(row.name, "", "", why, hint))
        elif row.worker:
            self.warnings.append(f"{row.name} {reason} and is a worker; it is left alone")
        else:
            return True
        return False

    def check_held(self, held: Collection[str]) -> None:
        """A paused container cannot be stopped and brought back as it was."""
        for id_ in held:
            if self.rows[id_].state == "paused":
                why = "is paused: stopped and started it would run again"
                hint = "unpause it or stop it first"
                self.passing.append(Problem(self.name(id_), "", "", why, hint))

    def foreign_writers(self, held: Collection[str]) -> Iterator[str]:
        """Running containers outside the unit that write on while the sources are read."""
        for id_, row in self.rows.items():
            ours = id_ in self.members or id_ in held or id_ == self.self_id
            if ours or not row.running:
                continue
            paths = [source.path for source in self.unit.sources if self.writes(row, source)]
            if paths:
                yield row.name
                self.warnings.append(
                    f"hot: {row.name} is not of this unit, runs on, and can write to"
                    f" {', '.join(paths)}"
                )

    def warn_dependents(self, held: Collection[str]) -> None:
        """Somebody outside the unit who needs a member that will be down should be known."""
        for link in self.links:
            outside = link.dependent not in self.members and link.dependent not in held
            if outside and link.needed in held and self.rows[link.dependent].running:
                self.warnings.append(
                    f"{self.name(link.dependent)} is not of this unit, {link.why}"
                    f" {self.name(link.needed)}, and runs on while that is down"
                )

    # --- in which order --------------------------------------------------------------------------

    def after_links(self) -> Iterator[Link]:
        """``kopi.after``: services or containers of the same unit."""
        by_name: dict[str, list[str]] = defaultdict(list)
        for id_, member in self.members.items():
            for name in {member.container.name, member.container.service} - {""}:
                by_name[name].append(id_)
        for id_, member in self.members.items():
            for name in member.settings.after:
                if name not in by_name:
                    near = nearest(name, sorted(by_name))
                    hint = f"did you mean {near!r}?" if near else f"there are {_list(by_name)}"
                    reason = f"names {name!r}, which is no member of this unit"
                    self.problems.append(
                        Problem(member.container.name, "kopi.after", name, reason, hint)
                    )
                for needed in by_name.get(name, ()):
                    yield Link(id_, needed, "comes after")

    def find_cycle(self, held: Collection[str]) -> None:
        """A cycle through a member, or through who is held, means that there is no order."""
        ring = cycle({*self.members, *held}, self.needs)
        if ring:
            names = [self.name(id_) for id_ in (*ring, ring[0])]
            first = next((id_ for id_ in ring if id_ in self.members), ring[0])
            reason = f"needs itself: {' → '.join(names)}"
            hint = "remove one of these dependencies"
            self.problems.append(Problem(self.name(first), "", "", reason, hint))

    def order_needs(self, held: Collection[str]) -> dict[str, set[str]]:
        """Whom each of ``held`` must follow, over whoever stands between them."""
        needs = {id_: reach([id_], self.needs, stop=held) & set(held) for id_ in held}
        for older, newer in self.creation_pairs(held, needs):
            needs[newer].add(older)
        return needs

    def sequence(self) -> tuple[str, ...]:
        """All members as they would start, level by level, then by name."""
        told = list(self.warnings)
        found = levels(set(self.members), self.order_needs(self.members))
        self.warnings = told  # what holds for members that nobody stops is nobody's business
        return tuple(id_ for level in found for id_ in sorted(level, key=self.name))

    def creation_pairs(
        self, held: Collection[str], needs: Mapping[str, Collection[str]]
    ) -> Iterator[tuple[str, str]]:
        """Compose 1.29 writes no ``depends_on``, but it creates containers in that order.

        All pairs go along one sequence that keeps what is known for certain, so they close no
        cycle. Rows tell whole seconds: who was created within the same one starts together.
        """
        labelled = {r.project for r in self.rows.values() if DEPENDS_LABEL in r.labels}
        order = sequence(held, needs, self.age)
        projects = {self.rows[id_].project for id_ in held} - labelled - {""}
        for project in sorted(projects):
            mine = [id_ for id_ in order if self.rows[id_].project == project]
            groups = [list(group) for _, group in groupby(mine, key=self.age)]
            for older, newer in pairwise(groups):
                yield from ((one, other) for one in older for other in newer)
            if len(mine) > 1:
                self.warnings.append(
                    f"project {project} tells no dependencies (Compose 1.29 or older):"
                    " its containers start in the order in which they were created"
                )

    def age(self, id_: str) -> datetime:
        """When it was created; those that do not tell come first."""
        created = self.rows[id_].created
        if created is None:
            return datetime.min.replace(tzinfo=UTC)
        return created if created.tzinfo else created.replace(tzinfo=UTC)

    def gates(self, held: Collection[str]) -> dict[str, tuple[str, ...]]:
        """Who must be healthy before an id starts; only those that were stopped count."""
        found: dict[str, set[str]] = defaultdict(set)
        for link in self.links:
            if link.healthy and link.dependent in held and link.needed in held:
                found[link.dependent].add(link.needed)
        return {id_: tuple(sorted(found[id_])) for id_ in sorted(found)}


def _list(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"
