"""Restore points: the manifests of runs, and what they are worth."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from datetime import UTC, datetime, timedelta

import msgspec

from kopiwatch.errors import RunError, UsageError
from kopiwatch.kopia.argv import USER
from kopiwatch.kopia.record import Entry, Snapshot, SourceIdentity
from kopiwatch.kopia.worth import State, worth

ROOT = "/mnt/"
SLACK = timedelta(seconds=1)


class Point(msgspec.Struct, frozen=True):
    """One restore point. ``at`` is UTC, ``size`` bytes.

    ``state`` is what it is worth, see :data:`kopiwatch.kopia.worth.State`, and ``reason`` why it is
    not ``complete``; ``accepted`` is what its verdict refused and somebody took as good.
    """

    unit: str
    instance: str
    host: str
    run: str
    at: datetime
    snapshot: str
    state: State
    reason: str = ""
    mode: str = ""
    scope: str = ""
    size: int = 0
    files: int = 0
    root: str = ""
    accepted: str = ""

    @property
    def complete(self) -> bool:
        """Fit to be restored without asking."""
        return self.state == "complete"


def points(
    snapshots: Iterable[Snapshot], *, host: str = "", unfinished: Collection[str] = ()
) -> tuple[Point, ...]:
    """The restore points among these manifests, oldest first per unit.

    ``host`` empty means all hosts. ``unfinished`` are runs whose verdict is not durable yet.
    Manifests of other tools in the same repository are left out.
    """
    found = [
        _point(snapshot, *place, unfinished)
        for snapshot in snapshots
        if (place := unit_of(snapshot.source)) is not None
    ]
    chosen = (point for point in found if not host or point.host == host)
    return tuple(sorted(chosen, key=lambda p: (p.unit, p.instance, p.host, p.at, p.run)))


def of_host(found: Iterable[Point], host: str, instance: str) -> tuple[Point, ...]:
    """The points of one host (empty: of all) and one instance.

    Raises UsageError that says where there are points, if there are none there but elsewhere.
    """
    everything = tuple(found)
    mine = tuple(p for p in everything if p.instance == instance and host in ("", p.host))
    if everything and not mine:
        places = sorted({(p.host, p.instance) for p in everything})
        told = ", ".join(
            f"host {h}" + (f", instance {i}" if i != instance else "") for h, i in places
        )
        raise UsageError(
            f"there are no restore points of host {host or '(any)'}"
            + (f", instance {instance}" if instance != "default" else ""),
            hint=f"there are some of: {told} (--host, KOPIWATCH_INSTANCE)",
        )
    return mine


def unit_of(source: SourceIdentity) -> tuple[str, str] | None:
    """The unit and the instance whose points a source holds; None for any other source.

    It is ``/mnt/<unit>`` or ``/mnt/@<instance>/<unit>``; what starts with a dot is our own.
    """
    path = source.path
    parts = path.removeprefix(ROOT).split("/")
    if source.user_name != USER or not path.startswith(ROOT):
        return None
    if not parts[0] or parts[0].startswith("."):
        return None
    if parts[0].startswith("@"):
        return (parts[1], parts[0].removeprefix("@")) if len(parts) == 2 else None
    return (parts[0], "default") if len(parts) == 1 else None


def _point(snapshot: Snapshot, unit: str, instance: str, unfinished: Collection[str]) -> Point:
    root = snapshot.root_entry
    summary = root.summ if root else None
    state, reason = worth(snapshot, unfinished)
    return Point(
        unit=unit,
        instance=instance,
        host=snapshot.source.host,
        run=snapshot.tag("run"),
        at=snapshot.start_time.astimezone(UTC),
        snapshot=snapshot.id,
        state=state,
        reason=reason,
        mode=snapshot.tag("mode"),
        scope=snapshot.tag("scope"),
        size=summary.size if summary else 0,
        files=summary.files if summary else 0,
        root=root.obj if root else "",
        accepted=snapshot.accepted if state == "complete" else "",
    )


def select(unit: str, found: Iterable[Point], at: str) -> Point:
    """The point of one unit that ``at`` names: ``latest``, a time, a run, or a snapshot id.

    A time means the newest complete point that is not younger. Raises UsageError that names what
    there is.
    """
    mine = [point for point in found if point.unit == unit]
    if not mine:
        raise UsageError(
            f"there is no restore point of unit {unit!r}",
            hint="`kopiwatch points` lists what there is",
        )
    complete = [point for point in mine if point.complete]
    if at == "latest":
        if complete:
            return complete[-1]
        raise UsageError(
            f"unit {unit} has no complete restore point: {_shortcomings(mine)}",
            hint=f"`kopiwatch points {unit}` lists them",
        )
    named = [point for point in mine if at in (point.run, point.snapshot)]
    if named:
        return _fit(named[-1])
    moment = _moment(at)
    if moment is None:
        raise UsageError(
            f"unit {unit} has no restore point {at!r}, and it is no time",
            hint=f"give a run from `kopiwatch points {unit}`, or a time like 2026-11-24T02:00Z",
        )
    older = [point for point in complete if point.at - SLACK <= moment]
    if not older:
        raise UsageError(
            f"unit {unit} has no complete restore point from {at} or before",
            hint=f"the oldest is from {complete[0].at:%Y-%m-%dT%H:%M:%SZ}"
            if complete
            else _shortcomings(mine),
        )
    return older[-1]


def _fit(point: Point) -> Point:
    if not point.complete:
        raise UsageError(
            f"restore point {point.run or point.snapshot} is {point.state} ({point.reason})",
            hint=f"`kopiwatch points {point.unit}` shows which are complete",
        )
    return point


def _shortcomings(found: Iterable[Point]) -> str:
    return ", ".join(f"{p.run or p.snapshot} is {p.state} ({p.reason})" for p in found)


def _moment(text: str) -> datetime | None:
    """A time as people and programs write it, without a zone in UTC.

    A day, an hour or a minute means its end: who asks for a day wants what that day had.
    """
    try:
        moment = datetime.fromisoformat(text)
        if re.fullmatch(r"\d{4}-?\d{2}-?\d{2}", text):
            moment += timedelta(days=1, seconds=-1)
        elif re.search(r"[T ]\d{2}:\d{2}(Z|[+-]\d{2}:?\d{2})?$", text):
            moment += timedelta(seconds=59)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def part(tree: dict[str, Entry], volume: str) -> str:
    """The path in the tree of one volume, by Docker's name or the Compose file's.

    Raises UsageError that lists the volumes of this point.
    """
    volumes = sorted(path.removeprefix("volumes/") for path in tree if path.startswith("volumes/"))
    exact = [name for name in volumes if name == volume]
    short = [name for name in volumes if name.endswith(f"_{volume}")]
    candidates = exact or short
    if len(candidates) == 1:
        return f"volumes/{candidates[0]}"
    raise UsageError(
        f"{volume!r} is no volume of this restore point"
        if not candidates
        else f"{volume!r} fits several volumes of this restore point: {', '.join(candidates)}",
        hint="volumes: " + (", ".join(volumes) or "none"),
    )


def ensure_complete(point: Point, expected: Iterable[str], tree: dict[str, Entry]) -> None:
    """Raise RunError if the tree lacks what its recipe expects."""
    missing = sorted(set(expected) - set(tree))
    if missing:
        raise RunError(
            f"restore point {point.run} lacks {', '.join(missing)}",
            phase="check",
            reason="incomplete-point",
            hint=f"choose another from `kopiwatch points {point.unit}`",
        )
