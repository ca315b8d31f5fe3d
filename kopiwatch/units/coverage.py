"""Sources and coverage: what happens to every mount of every member, and why."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from fnmatch import fnmatchcase

import msgspec

from kopiwatch.config import nearest
from kopiwatch.units.container import Container, Mount
from kopiwatch.units.dump import places as dump_places
from kopiwatch.units.place import (
    anonymous_place,
    bind_place,
    clean,
    inside,
    normal,
    overlap,
    volume_place,
)
from kopiwatch.units.refusal import NOTHING_REFUSED, RefusedPaths, belongs_to_host, refusal
from kopiwatch.units.unit import Coverage, CoverageState, Member, Problem, Source

__all__ = ["NOTHING_REFUSED", "NOT_KEPT", "Covered", "RefusedPaths", "cover", "writes_to"]

NOT_KEPT = {
    "tmpfs": "a tmpfs lives in memory and is gone with every stop",
    "image": "an image mount is read-only and comes back with its image",
    "npipe": "a Windows pipe holds no data",
    "cluster": "a cluster volume can be mounted only where Swarm puts it",
    "other": "kopiwatch does not know this kind of mount",
}
"""Why the other kinds of mounts are not kept."""


class Covered(msgspec.Struct, frozen=True):
    """The sources of a unit, the fate of each mount, and what was asked for in vain."""

    sources: tuple[Source, ...]
    coverage: tuple[Coverage, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


class _Fate(msgspec.Struct, frozen=True):
    """What one member wants for one mount; ``key`` names the data behind the mount."""

    member: Member
    mount: Mount
    key: tuple[str, str]
    wanted: bool
    state: CoverageState
    reason: str = ""


def cover(members: Sequence[Member], refused: RefusedPaths = NOTHING_REFUSED) -> Covered:
    """Sources and coverage of the unit that ``members`` are.

    A volume or folder that several members mount is one source, protected if any of them wants it.
    """
    fates = [
        _fate(member, mount, refused)
        for member in sorted(members, key=lambda m: (m.container.name, m.container.id))
        for mount in sorted(member.container.mounts, key=lambda m: (m.destination, m.volume))
    ]
    by_key = defaultdict(list)
    for fate in fates:
        by_key[fate.key].append(fate)
    wanted = {key: group for key, group in by_key.items() if any(f.wanted for f in group)}
    places = _places(wanted)
    sources = [_source(places[key], group, fates) for key, group in wanted.items()]
    sources += _dumps(members)
    problems = [*_unmet(fates, members), *_same_place(places)]
    return Covered(
        tuple(sorted(sources)),
        tuple(_coverage(fate, wanted, places) for fate in fates),
        tuple(sorted(set(problems))),
        tuple(sorted(set(_idle_excludes(members)))),
    )


def writes_to(mount: Mount, source: Source, mountpoint: str = "") -> bool:
    """Whether ``mount`` can change what ``source`` holds.

    ``mountpoint`` is where the source's volume lies on the host, empty if that is not known.
    Management tools that mount the whole host, or all of Docker's volumes, do not count: they
    would make every unit of the host look written to, all day.
    """
    if not mount.writable:
        return False
    if source.volume and mount.volume:
        return mount.volume == source.volume
    if not mount.source.startswith("/") or normal(mount.source) == "/":
        return False
    if source.host_path:
        return overlap(mount.source, source.host_path)
    return bool(mountpoint) and inside(mount.source, mountpoint)


# --- what a member wants ------------------------------------------------------------------------


def _fate(member: Member, mount: Mount, refused: RefusedPaths) -> _Fate:
    if mount.kind == "bind":
        return _bind_fate(member, mount, refused)
    if mount.kind == "volume":
        return _volume_fate(member, mount, refused)
    reason = NOT_KEPT.get(mount.kind, NOT_KEPT["other"])
    key = (mount.kind, f"{member.container.id} {mount.destination}")
    return _Fate(member, mount, key, False, "not-supported", reason)


def _volume_fate(member: Member, mount: Mount, refused: RefusedPaths) -> _Fate:
    key, names = ("volume", mount.volume), _names(member.container, mount)
    settings = member.settings
    if not mount.volume:
        return _Fate(member, mount, key, False, "not-supported", "Docker gives it no name")
    if reason := refused.refusal(mount.source):
        return _Fate(member, mount, key, False, "not-supported", reason)
    if _matched(settings.exclude, names):
        return _Fate(member, mount, key, False, "left-out", "kopi.exclude names it")
    if settings.include and not _matched(settings.include, names):
        return _Fate(member, mount, key, False, "left-out", "kopi.include does not name it")
    return _Fate(member, mount, key, True, "protected")


def _bind_fate(member: Member, mount: Mount, refused: RefusedPaths) -> _Fate:
    key, names = ("bind", clean(mount.source)), _names(member.container, mount)
    settings = member.settings
    if reason := refusal(mount.source, refused):
        return _Fate(member, mount, key, False, "not-supported", reason)
    if _matched(settings.exclude, names):
        return _Fate(member, mount, key, False, "left-out", "kopi.exclude names it")
    asked = _matched(settings.binds, names)
    if asked and not any(_named(pattern, names) for pattern in settings.binds):
        if belongs_to_host(mount.source):
            reason = "it belongs to the host; kopi.binds protects it if it names it exactly"
            return _Fate(member, mount, key, False, "opt-in", reason)
    elif not asked:
        reason = "bind mounts are protected only where kopi.binds names them"
        return _Fate(member, mount, key, False, "opt-in", reason)
    return _Fate(member, mount, key, True, "protected")


def _names(container: Container, mount: Mount) -> tuple[str, ...]:
    """What a label may call this mount: its destination, its volume, Compose's short name."""
    destination = mount.destination.rstrip("/") or "/"
    names = [destination]
    if mount.volume:
        names.append(mount.volume)
        short = mount.volume.removeprefix(f"{container.project}_")
        if container.project and short and short != mount.volume:
            names.append(short)
    return tuple(names)


def _named(pattern: str, names: Iterable[str]) -> bool:
    return (pattern.rstrip("/") or "/") in names


def _matches(pattern: str, names: Sequence[str]) -> bool:
    return _named(pattern, names) or any(fnmatchcase(name, pattern) for name in names)


def _matched(patterns: Iterable[str], names: Sequence[str]) -> bool:
    return any(_matches(pattern, names) for pattern in patterns)


# --- sources ------------------------------------------------------------------------------------


def _places(wanted: dict[tuple[str, str], list[_Fate]]) -> dict[tuple[str, str], str]:
    """The path of each source. Replicas of a service share its name, so they go by their own."""
    places = {}
    anonymous = defaultdict(list)
    for key, group in wanted.items():
        first = group[0].mount
        if key[0] == "bind":
            places[key] = bind_place(key[1])
        elif not first.anonymous:
            places[key] = volume_place(key[1])
        else:
            owner, destination, _ = min(map(_owner, group))
            anonymous[owner, destination].append(key)
    for (owner, destination), keys in anonymous.items():
        for key in keys:
            mine = owner if len(keys) == 1 else min(map(_owner, wanted[key]))[2]
            places[key] = anonymous_place(mine, destination)
    return places


def _owner(fate: _Fate) -> tuple[str, str, str]:
    container = fate.member.container
    return (container.service or container.name, fate.mount.destination, container.name)


def _source(place: str, group: Sequence[_Fate], fates: Sequence[_Fate]) -> Source:
    first = group[0]
    source = Source(
        place,
        "bind" if first.key[0] == "bind" else "volume",
        volume=first.mount.volume if first.key[0] == "volume" else "",
        host_path=first.key[1] if first.key[0] == "bind" else "",
        anonymous=first.mount.anonymous,
        users=_members(group),
        destinations=tuple(sorted({fate.mount.destination for fate in group})),
    )
    mountpoint = next((fate.mount.source for fate in group if fate.mount.source), "")
    # A member that binds a folder above or below this one writes to it without mounting it.
    writers = _members(fate for fate in fates if writes_to(fate.mount, source, mountpoint))
    users = tuple(sorted({*source.users, *writers}))
    return msgspec.structs.replace(source, users=users, writers=writers)


def _dumps(members: Iterable[Member]) -> Iterator[Source]:
    """Nobody writes to a dump: it is at rest long before the window."""
    asked = [(m.container, m.settings.dump) for m in members if m.settings.dump is not None]
    names = {container.id: container.name for container, _ in asked}
    for identity, place in dump_places(asked).items():
        yield Source(place, "dump", users=(names[identity],))


def _members(fates: Iterable[_Fate]) -> tuple[str, ...]:
    return tuple(sorted({fate.member.container.name for fate in fates}))


def _same_place(places: dict[tuple[str, str], str]) -> Iterator[Problem]:
    by_place = defaultdict(list)
    for key, place in places.items():
        by_place[place].append(key[1])
    for place, names in sorted(by_place.items()):
        if len(names) > 1:
            both = " and ".join(sorted(names))
            reason = f"{both} would both be kept as {place}"
            yield Problem("unit", "", "", reason, "name one of the volumes, or rename a container")


def _coverage(
    fate: _Fate,
    wanted: dict[tuple[str, str], list[_Fate]],
    places: dict[tuple[str, str], str],
) -> Coverage:
    name, mount = fate.member.container.name, fate.mount
    what = mount.volume or mount.source or mount.kind
    if fate.key not in wanted:
        return Coverage(name, mount.destination, what, fate.state, fate.reason)
    place, reason = places[fate.key], ""
    if not fate.wanted:
        others = ", ".join(_members(other for other in wanted[fate.key] if other.wanted))
        reason = f"{fate.reason} here, but {others} protects it"
    return Coverage(name, mount.destination, what, "protected", reason, place)


# --- what was asked for in vain -----------------------------------------------------------------


def _unmet(fates: Sequence[_Fate], members: Iterable[Member]) -> Iterator[Problem]:
    for member in members:
        own = [fate for fate in fates if fate.member is member]
        for pattern in member.settings.include:
            yield from _unmet_pattern("kopi.include", pattern, member, own, "volume")
        for pattern in member.settings.binds:
            yield from _unmet_pattern("kopi.binds", pattern, member, own, "bind")


def _unmet_pattern(
    label: str, pattern: str, member: Member, own: Sequence[_Fate], kind: str
) -> Iterator[Problem]:
    container = member.container
    right = [fate for fate in own if fate.mount.kind == kind]
    hits = [fate for fate in right if _matches(pattern, _names(container, fate.mount))]
    if not hits and pattern.strip("*"):
        reason = f"matches no {'volume' if kind == 'volume' else 'bind mount'} of this container"
        hint = _hint(pattern, container, own, right)
        yield Problem(container.name, label, pattern, reason, hint)
    for fate in hits:
        # Swept up by a glob, it is merely not covered; asked for by name, it is a broken promise.
        if fate.state == "not-supported" and _named(pattern, _names(container, fate.mount)):
            yield Problem(container.name, label, pattern, f"cannot be protected: {fate.reason}")


def _hint(pattern: str, container: Container, own: Sequence[_Fate], right: Sequence[_Fate]) -> str:
    for fate in own:
        mount = fate.mount
        if fate not in right and _matches(pattern, _names(container, mount)):
            if mount.kind == "bind":
                return f"{mount.destination} is a bind mount: name it in kopi.binds"
            if mount.kind == "volume":
                return f"{mount.destination} is a volume: protected without kopi.binds"
            return f"{mount.destination}: {fate.reason}"
        if mount.source and clean(mount.source) == clean(pattern):
            return f"that is the path on the host; did you mean {mount.destination!r}?"
    names = [name for fate in right for name in _names(container, fate.mount)]
    near = nearest(pattern, sorted(names))
    if near:
        return f"did you mean {near!r}?"
    return f"there are {', '.join(sorted(names))}" if names else "there are none"


def _idle_excludes(members: Iterable[Member]) -> Iterator[str]:
    for member in members:
        container = member.container
        names = [_names(container, mount) for mount in container.mounts]
        # A profile is written for many containers; not each of them has what it leaves out.
        if any(e.label == "kopi.exclude" and e.origin != "label" for e in member.effective):
            continue
        for pattern in member.settings.exclude:
            if not any(_matches(pattern, candidates) for candidates in names):
                near = nearest(pattern, sorted(name for group in names for name in group))
                hint = f" (did you mean {near!r}?)" if near else ""
                yield f"{container.name}: kopi.exclude={pattern!r} matches no mount{hint}"
