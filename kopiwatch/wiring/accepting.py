"""Taking what a verdict refused: which point, why it was refused, and the word on record."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from kopiwatch.backup.earlier import held_against, last_good, stored_recipe, stored_sources
from kopiwatch.backup.plausible import IMPLAUSIBLE, REFUSALS, sentence
from kopiwatch.backup.result import SourceResult
from kopiwatch.config import nearest
from kopiwatch.errors import RunError, UnknownUnit, UsageError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import ACCEPTED_PIN, BAD_PIN, Snapshot
from kopiwatch.restore.point import Point


class Refused(msgspec.Struct, frozen=True):
    """A point that may be accepted, and the sources for which it was refused."""

    point: Point
    sources: tuple[SourceResult, ...]

    @property
    def sentences(self) -> tuple[str, ...]:
        """What there is to accept, with the figures."""
        return tuple(sentence(source) for source in self.sources)


def choose(unit: str, found: Iterable[Point]) -> Point:
    """The newest refused point of a unit whose only faults are implausible sources.

    Only what is newer than the newest complete point counts. Raises UnknownUnit; UsageError when
    nothing was refused; RunError that names the faults when they are none that can be accepted.
    """
    everything = sorted(found, key=lambda point: point.at)
    mine = [point for point in everything if point.unit == unit]
    if not mine:
        names = sorted({point.unit for point in everything})
        close = nearest(unit, names)
        raise UnknownUnit(
            f"there is no restore point of a unit {unit!r}",
            hint=(f"did you mean {close!r}? " if close else "")
            + "units with points: "
            + (", ".join(names) or "none"),
        )
    complete = [number for number, point in enumerate(mine) if point.complete]
    later = mine[complete[-1] + 1 :] if complete else mine
    bad = [point for point in later if point.state in ("bad", "incomplete")]
    if takable := [point for point in bad if point.reason in REFUSALS]:
        return takable[-1]
    if bad:
        faults = ", ".join(f"run {point.run} ({point.reason})" for point in bad)
        raise RunError(
            f"unit {unit}: what fell short cannot be accepted: {faults}",
            phase="verify",
            reason="not-acceptable",
            hint="only sources that are empty, collapsed or gone can be; see `kopiwatch history`",
        )
    raise UsageError(
        f"unit {unit}: nothing was refused since its newest complete restore point"
        + (f" of {mine[complete[-1]].at:%Y-%m-%dT%H:%M:%SZ}" if complete else ""),
        hint=f"`kopiwatch points {unit}` lists what there is",
    )


async def look_at(
    repository: Repository, point: Point, snapshots: Sequence[Snapshot], source: str
) -> Refused:
    """Judge a refused point again, from the repository alone.

    ``source`` empty means all that was refused. Raises UsageError when that one was not, or was
    not the only one; RunError when more is wrong than what its verdict says.
    """
    (snapshot,) = (each for each in snapshots if each.id == point.snapshot)
    same = [s for s in snapshots if s.source == snapshot.source]
    before = last_good(s for s in same if s.start_time < snapshot.start_time)
    recipe = await stored_recipe(repository, snapshot)
    tree = await stored_sources(repository, snapshot)
    now = [tree.get(path) or SourceResult(path, reason="missing") for path in recipe.expected]
    compared = await held_against(repository, now, recipe.plausibility, before)
    faulty = tuple(each for each in compared.sources if each.reason)
    if worse := [each for each in faulty if each.reason not in IMPLAUSIBLE]:
        raise RunError(
            f"run {point.run} of unit {point.unit} cannot be accepted: "
            + ", ".join(sentence(each) for each in worse),
            phase="verify",
            reason="not-acceptable",
        )
    if source:
        _require_only(point, source, faulty)
    return Refused(point, faulty)


def _require_only(point: Point, source: str, faulty: Iterable[SourceResult]) -> None:
    paths = [each.path for each in faulty]
    named = [path for path in paths if source in (path, path.partition("/")[2])]
    others = [path for path in paths if path not in named]
    if not named:
        raise UsageError(
            f"{source!r} is not what run {point.run} of unit {point.unit} was refused for",
            hint=f"refused: {', '.join(paths) or 'nothing any more'}",
        )
    if others:
        raise UsageError(
            f"run {point.run} of unit {point.unit} was refused for {', '.join(others)}, too",
            hint=f"a restore point is taken whole: `kopiwatch accept {point.unit}`, or bring it "
            "back and make a new backup",
        )


async def accept(repository: Repository, point: Point) -> Snapshot:
    """Make a refused point a complete one, for every host; returns it as it is now.

    One change of its manifest takes the bad pin's place: there is no moment without either.
    """
    await repository.pin(
        point.snapshot, ACCEPTED_PIN + point.reason, instead_of=BAD_PIN + point.reason
    )
    (found,) = (
        snapshot
        for snapshot in await repository.snapshots()
        if snapshot.tag("run") == point.run and snapshot.accepted == point.reason
    )
    return found
