"""Carrying restore points and record over to a unit's new name."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

import msgspec

from kopiwatch.config import NAME, NAME_LIMIT, nearest
from kopiwatch.errors import UnknownUnit, UsageError
from kopiwatch.kopia.argv import USER
from kopiwatch.kopia.port import Repository
from kopiwatch.restore.point import Point
from kopiwatch.units.group import Discovery, tree_path


class Adoption(msgspec.Struct, frozen=True):
    """What would move from ``old`` to ``new``. Times are UTC, None without any points.

    ``runs`` counts lines of the history; ``mixed`` points of ``new`` that are not younger than
    all of ``old``'s: in the list of points they would stand among these.
    """

    old: str
    new: str
    points: int
    runs: int
    first: datetime | None = None
    last: datetime | None = None
    mixed: int = 0


def plan(old: str, new: str, found: Iterable[Point], runs: int, known: Collection[str]) -> Adoption:
    """What an adoption would do. ``known`` are the units of the history, ``runs`` those of ``old``.

    Raises UsageError for names that cannot be meant, UnknownUnit if nothing is known of ``old``.
    """
    if old == new:
        raise UsageError(f"{old} is its own name already")
    if not NAME.fullmatch(new) or len(new) > NAME_LIMIT:
        raise UsageError(
            f"{new[:NAME_LIMIT]!r} cannot be the name of a unit",
            hint="`kopiwatch units` lists those that there are",
        )
    everything = list(found)
    theirs = sorted(point.at for point in everything if point.unit == old)
    mine = [point.at for point in everything if point.unit == new]
    if not theirs and old not in known:
        names = sorted({point.unit for point in everything} | set(known))
        close = nearest(old, names)
        raise UnknownUnit(
            f"nothing is known of a unit {old!r}: no restore point and no run",
            hint=(f"did you mean {close!r}? " if close else "")
            + "units: "
            + (", ".join(names) or "none"),
        )
    return Adoption(
        old,
        new,
        points=len(theirs),
        runs=runs,
        first=theirs[0] if theirs else None,
        last=theirs[-1] if theirs else None,
        mixed=sum(at <= theirs[-1] for at in mine) if theirs else 0,
    )


def refuse_present(found: Discovery, old: str) -> None:
    """Raise UsageError if the old unit still has labelled containers: it would begin anew."""
    members = {unit.name: unit.members for unit in found.units}.get(old)
    if members:
        names = ", ".join(member.container.name for member in members)
        raise UsageError(
            f"unit {old} still has containers: {names}",
            hint="remove them, or their kopi.enable; what they made since would be left behind",
        )


def refuse_mixing(adoption: Adoption) -> None:
    """Raise UsageError if the points of both units would stand among each other."""
    if adoption.mixed:
        last = f"{adoption.last:%Y-%m-%dT%H:%M:%SZ}" if adoption.last else ""
        raise UsageError(
            f"{adoption.new} has {adoption.mixed} restore points of its own from before {last}, "
            f"the newest of {adoption.old}: they would be mixed",
            hint="say --yes if both are the same data",
        )


async def move(
    repository: Repository, adoption: Adoption, host: str, instance: str
) -> dict[str, str]:
    """Move the points, all or none; returns the ids that they have now, by run."""
    source, target = (
        f"{USER}@{host}:{tree_path(unit, instance)}" for unit in (adoption.old, adoption.new)
    )
    if adoption.points:
        await repository.move_history(source, target)
    found = await repository.snapshots(target)
    return {snapshot.tag("run"): snapshot.id for snapshot in found if snapshot.tag("run")}
