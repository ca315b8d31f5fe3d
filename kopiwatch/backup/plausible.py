"""Plausibility: what a run stored of each source, beside what the last good restore point holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec

from kopiwatch.backup.result import SourceResult
from kopiwatch.kopia.tree import RECIPE
from kopiwatch.units.place import anonymous_place, bind_place, volume_place
from kopiwatch.units.unit import Member, Unit
from kopiwatch.words import counted, size

FLOOR_BYTES = 1 << 20
"""How large a source must have been for a collapse to mean anything."""
IMPLAUSIBLE = ("empty", "collapsed", "vanished")
"""The reasons for which a source is refused although what is there was stored."""
REFUSALS = tuple(f"source-{reason}" for reason in IMPLAUSIBLE)
"""The reason codes of a run whose only faults are of this kind: what `accept` may take."""


class Terms(msgspec.Struct, frozen=True):
    """What the sources of a run are held to. It stands in the recipe: any host can judge again.

    ``collapse`` is a percentage of the last good size, None for no limit. ``left_out`` has the
    places that labels leave out on purpose, with the reason. ``names`` are what the names of
    volumes may begin with: the unit's, its Compose projects', its containers'.
    """

    collapse: int | None = 20
    left_out: dict[str, str] = msgspec.field(default_factory=dict)
    names: tuple[str, ...] = ()


class Compared(msgspec.Struct, frozen=True):
    """The sources with what was found out, those that vanished behind the others; and remarks."""

    sources: tuple[SourceResult, ...]
    notes: tuple[str, ...] = ()


def terms_of(unit: Unit) -> Terms:
    """What this unit's labels say today."""
    names = {unit.name}
    left_out: dict[str, str] = {}
    whys = {
        (each.container, each.destination): each.reason
        for each in unit.coverage
        if each.state in ("left-out", "opt-in")
    }
    for member in unit.members:
        names |= {member.container.project, member.container.name} - {""}
        for destination, place in _places(member):
            if why := whys.get((member.container.name, destination)):
                left_out[place] = why
    return Terms(unit.settings.collapse, left_out, tuple(sorted(names)))


def _places(member: Member) -> Iterator[tuple[str, str]]:
    """Where each mount of a member lies in a tree, or would lie: destination, place."""
    container = member.container
    for mount in container.mounts:
        if mount.kind == "bind":
            yield mount.destination, bind_place(mount.source)
        elif mount.volume and not mount.anonymous:
            yield mount.destination, volume_place(mount.volume)
        elif mount.volume:
            for owner in {container.service or container.name, container.name}:
                yield mount.destination, anonymous_place(owner, mount.destination)


def compare(
    now: Iterable[SourceResult],
    before: Mapping[str, SourceResult],
    terms: Terms,
    names_before: Collection[str] = (),
) -> Compared:
    """Hold what a run stored against the last good restore point; the recipe is left alone.

    ``before`` is that point's tree by path. A source that has a fault already keeps it.
    ``names_before`` are the :class:`Terms` of that point: see :func:`renamed`.
    """
    sources = tuple(now)
    gone, new = changed(sources, before)
    same = renamed(gone, new, names_before, terms.names)
    found = [
        _held(source, before.get(same.get(source.path, source.path)), terms) for source in sources
    ]
    notes: list[str] = []
    for path in sorted(gone - set(same.values())):
        old = before[path]
        if path in terms.left_out:
            notes.append(
                f"{path} is left out from now on ({terms.left_out[path]}); "
                f"the restore point before held {_figures(old)} of it"
            )
        elif not old.files:
            notes.append(f"{path} is not mounted any more; it held no files")
        else:
            found.append(_refused(SourceResult(path), old, "vanished"))
    return Compared(tuple(found), tuple(notes))


def changed(
    now: Iterable[SourceResult], before: Mapping[str, SourceResult]
) -> tuple[set[str], set[str]]:
    """The paths that only the point before has, and those that only this run has."""
    today = {source.path for source in now}
    return before.keys() - today - {RECIPE}, today - before.keys() - {RECIPE}


def renamed(
    gone: Collection[str], new: Collection[str], before: Collection[str], now: Collection[str]
) -> dict[str, str]:
    """Volumes that are the same under a new name: the new path to the old one.

    Compose puts the project's name before a volume's own (``old_data``), and an anonymous volume
    goes by its container's. So two volumes are one if only a name of the unit then (``before``)
    and of today (``now``) stands in front of the same rest, and if that says so of no other.
    """
    found: dict[str, str] = {}
    for path in new:
        names = [name for name in now if path.startswith(f"volumes/{name}")]
        rests = {path.removeprefix(f"volumes/{name}") for name in names}
        candidates = {
            f"volumes/{name}{rest}"
            for name in before
            for rest in rests
            if rest[:1] in ("_", "-", ":")
        } & set(gone)
        if len(candidates) == 1:
            found[path] = candidates.pop()
    claims = Counter(found.values())
    return {path: old for path, old in found.items() if claims[old] == 1}


def _held(source: SourceResult, old: SourceResult | None, terms: Terms) -> SourceResult:
    if old is None or source.reason or source.path == RECIPE:
        return source
    if old.files and not source.files:
        return _refused(source, old, "empty")
    if (
        terms.collapse is not None
        and old.size >= FLOOR_BYTES
        and source.size * 100 < old.size * terms.collapse
    ):
        return _refused(source, old, "collapsed")
    return source


def _refused(source: SourceResult, old: SourceResult, reason: str) -> SourceResult:
    return msgspec.structs.replace(
        source, reason=reason, size_before=old.size, files_before=old.files
    )


def sentence(source: SourceResult) -> str:
    """What is wrong with one source, with the figures where there are any."""
    if source.size_before is None or source.files_before is None:
        return f"{source.path} is {source.reason}"
    before = f"{counted(source.files_before, 'file')}, {size(source.size_before)}"
    if source.reason == "vanished":
        why = "no label asks for it" if source.path.startswith("dumps/") else "nobody mounts it"
        return f"{source.path} has vanished: {before} before, and {why} now"
    verb = "is" if source.reason == "empty" else "has"
    return f"{source.path} {verb} {source.reason}: {before} → {_figures(source)}"


def hint(unit: str, sources: Iterable[SourceResult]) -> str:
    """What to do if it was meant: the command that accepts it."""
    refused = [source.path for source in sources if source.reason in IMPLAUSIBLE]
    one = f" {refused[0]}" if len(refused) == 1 else ""
    return f"if that was done on purpose: kopiwatch accept {unit}{one}"


def _figures(source: SourceResult) -> str:
    return f"{counted(source.files, 'file')}, {size(source.size)}"
