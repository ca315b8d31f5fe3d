"""Containers in, units out: who is a member, of which unit, and whether that unit can be used."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

import msgspec

from kopiwatch.config import NAME, NAME_LIMIT
from kopiwatch.units.agree import agree, spread
from kopiwatch.units.container import Container
from kopiwatch.units.coverage import cover
from kopiwatch.units.default import Defaults
from kopiwatch.units.dependency import Network, network
from kopiwatch.units.order import plan_in
from kopiwatch.units.parse import Labelled, parse
from kopiwatch.units.profile import Profiles
from kopiwatch.units.refusal import NOTHING_REFUSED, RefusedPaths
from kopiwatch.units.unit import Member, Origin, Problem, Unit
from kopiwatch.units.value import plain_name

DEFAULT_INSTANCE = "default"


class Ignored(msgspec.Struct, frozen=True, order=True):
    """A container that is no member although it carries labels of ours, and why.

    ``labels`` are the names that look like ours; ``reason`` completes "container …".
    """

    container: str
    labels: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.container} ({', '.join(self.labels)}): {self.reason}"


class Discovery(msgspec.Struct, frozen=True):
    """All units of this instance, by name, and containers that somebody may have meant to be in."""

    units: tuple[Unit, ...] = ()
    ignored: tuple[Ignored, ...] = ()


class _Claim(msgspec.Struct, frozen=True):
    """The unit that a member belongs to. ``raw`` is the name as written where it comes from."""

    name: str
    origin: Origin
    raw: str
    problems: tuple[Problem, ...] = ()


def tree_path(unit: str, instance: str = DEFAULT_INSTANCE) -> str:
    """Where the unit's tree is mounted: the path in its identity in the repository.

    No name of ours begins with ``@``, so an instance never meets a unit.
    """
    return f"/mnt/{unit}" if instance == DEFAULT_INSTANCE else f"/mnt/@{instance}/{unit}"


def discover(
    containers: Iterable[Container],
    *,
    instance: str = DEFAULT_INSTANCE,
    profiles: Profiles | None = None,
    self_id: str = "",
    refused: RefusedPaths = NOTHING_REFUSED,
    defaults: Defaults | None = None,
) -> Discovery:
    """The units among ``containers``, which are all of the host; independent of their order.

    ``self_id`` is our own container's id, empty outside one. ``refused`` are our own places.
    ``defaults`` are what the configuration says for units that say nothing.
    Never raises: what is wrong stands on the unit that it disables.
    """
    rows = sorted(containers, key=lambda row: (row.name, row.id))
    host = network(rows)
    claims: dict[str, list[tuple[Labelled, _Claim]]] = defaultdict(list)
    ignored = []
    for row in rows:
        if row.oneoff or row.worker:
            continue
        labelled = parse(row, profiles)
        reason = _why_ignored(labelled, self_id)
        if reason:
            ignored.append(Ignored(row.name, labelled.ours, reason))
        elif labelled.standing == "member" and labelled.instance in ("", instance):
            claim = _claim(labelled)
            claims[claim.name].append((labelled, claim))
    units = [
        _unit(name, group, host, self_id=self_id, refused=refused, defaults=defaults or {})
        for name, group in claims.items()
    ]
    return Discovery(tuple(sorted(units, key=lambda unit: unit.name)), tuple(sorted(ignored)))


def _why_ignored(labelled: Labelled, self_id: str) -> str:
    if self_id and labelled.container.id == self_id:
        return "kopiwatch never backs itself up" if labelled.standing == "member" else ""
    if labelled.standing == "stray":
        return "not backed up: it does not carry kopi.enable=true"
    return ""


def _claim(labelled: Labelled) -> _Claim:
    container = labelled.container
    if labelled.unit:
        return _Claim(labelled.unit, "label", labelled.unit)
    if labelled.misnamed:
        # Its problem is known. Its own unit only is disabled, so it must not join its project.
        return _Claim(f"?{plain_name(labelled.misnamed)}", "label", labelled.misnamed)
    origin: Origin = "project" if container.project else "container"
    raw = container.project or container.name
    name = raw.lower()
    if NAME.fullmatch(name) and len(name) <= NAME_LIMIT:
        return _Claim(name, origin, raw)
    reason = f"the {origin} name {raw[:NAME_LIMIT]!r} cannot be the name of a unit"
    near = plain_name(raw)
    hint = f"set kopi.unit, such as {near!r}" if near else "set kopi.unit"
    problem = Problem(container.name, "", "", reason, hint)
    return _Claim(f"?{near}", origin, raw, (problem,))


def _unit(
    name: str,
    group: Sequence[tuple[Labelled, _Claim]],
    host: Network,
    *,
    self_id: str,
    refused: RefusedPaths,
    defaults: Defaults,
) -> Unit:
    labelled = [member for member, _ in group]
    claims = [claim for _, claim in group]
    agreement = agree(labelled, defaults)
    members = tuple(
        Member(member.container, member.settings, spread(member, agreement)) for member in labelled
    )
    covered = cover(members, refused)
    origins = {claim.origin for claim in claims}
    unit = Unit(
        name,
        "label" if "label" in origins else claims[0].origin,
        members,
        agreement.settings,
        sources=covered.sources,
        coverage=covered.coverage,
    )
    plan = plan_in(unit, host, self_id=self_id)
    problems = {
        *(problem for member in labelled for problem in member.problems),
        *(problem for claim in claims for problem in claim.problems),
        *agreement.problems,
        *covered.problems,
        *_mixed(name, group),
        *(problem for problem in plan.problems if problem not in plan.passing),
    }
    warnings = [*covered.warnings, *plan.warnings]
    if not covered.sources:
        warnings.append("no volume, bind mount or dump is protected: only the recipe is kept")
    return msgspec.structs.replace(
        unit, problems=tuple(sorted(problems)), warnings=tuple(dict.fromkeys(warnings))
    )


def _mixed(name: str, group: Sequence[tuple[Labelled, _Claim]]) -> Iterable[Problem]:
    """The same name from different places is a coincidence, unless a label says otherwise."""
    derived = {
        (claim.origin, claim.raw): member.container.name
        for member, claim in reversed(group)
        if claim.origin != "label"
    }
    labelled = any(claim.origin == "label" for _, claim in group)
    respelt = any(raw != name for _, raw in derived)
    if name.startswith("?") or not (len(derived) > 1 or (labelled and respelt)):
        return
    places = [f"{origin} {raw!r}" for origin, raw in sorted(derived)]
    if labelled:
        places.append(f"kopi.unit={name!r}")
    reason = f"{' and '.join(places)} would be one unit {name!r} by coincidence"
    hint = "set kopi.unit on each container, to part them or to join them"
    yield Problem(derived[min(derived)], "", "", reason, hint)
