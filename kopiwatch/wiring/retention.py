"""What retention makes of the restore points of this host, unit by unit."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from datetime import datetime

import anyio.to_thread
import msgspec

from kopiwatch.backup.journal import JournalStore
from kopiwatch.config import Config, nearest
from kopiwatch.errors import ConfigError, UnknownUnit
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.retention import Fate, fates
from kopiwatch.restore.point import unit_of
from kopiwatch.units.agree import without_members
from kopiwatch.units.default import check_defaults
from kopiwatch.units.group import Discovery
from kopiwatch.units.retention import Retention
from kopiwatch.units.setting import UnitSettings
from kopiwatch.units.zone import zone

GONE = "its containers are gone: left alone unless it is named"


class Standing(msgspec.Struct, frozen=True):
    """One unit: its rule, and what becomes of its manifests, oldest first.

    ``rule`` is None where nothing may be deleted; ``trouble`` says why. ``gone`` says that its
    containers are gone; a rule is the configuration's then, since its labels are gone, too.
    ``count`` is how many manifests there are.
    """

    unit: str
    count: int
    rule: Retention | None = None
    timezone: str = "UTC"
    gone: bool = False
    invalid: bool = False
    trouble: str = ""
    fates: tuple[Fate, ...] = ()

    @property
    def going(self) -> tuple[Fate, ...]:
        """What goes."""
        return tuple(fate for fate in self.fates if fate.goes)


async def standings(
    config: Config,
    found: Discovery,
    snapshots: Iterable[Snapshot],
    *,
    host: str,
    name: str,
    now: datetime,
    unfinished: Collection[str],
) -> tuple[Standing, ...]:
    """All units with points of this host and instance, or the one of this ``name``.

    Raises UnknownUnit for a name that neither has points nor containers, and ConfigError where the
    configuration's numbers are needed and cannot be used.
    """
    mine = _by_unit(snapshots, host, config.instance)
    present = {unit.name: unit for unit in found.units}
    known = mine.keys() | present.keys()
    if name and name not in known:
        close = nearest(name, known)
        raise UnknownUnit(
            f"there is no unit {name!r}, and there are no restore points of one",
            hint=(f"did you mean {close!r}? " if close else "")
            + "there are: "
            + (", ".join(sorted(known)) or "none"),
        )
    told = []
    for unit in [name] if name else sorted(mine):
        manifests = mine.get(unit, [])
        here = present.get(unit)
        start = Standing(unit, len(manifests), gone=here is None)
        if here is not None and not here.valid:
            why = "; ".join(str(problem) for problem in here.problems)
            told.append(msgspec.structs.replace(start, invalid=True, trouble=f"disabled: {why}"))
        elif here is None and not name:
            told.append(msgspec.structs.replace(start, trouble=GONE))
        else:
            settings = here.settings if here is not None else _configured(config)
            # In a thread: time zones are files.
            told.append(
                await anyio.to_thread.run_sync(_judged, start, settings, manifests, now, unfinished)
            )
    return tuple(told)


async def let_go(repository: Repository, journals: JournalStore, standing: Standing) -> None:
    """Delete what nothing keeps of one unit, in one call; needs the run lock.

    Raises RepositoryError, and RunError if the unit's journal cannot be read: a run without verdict
    may stand in it, whose manifest looks like a good one.
    """
    await journals.read(standing.unit)
    await repository.delete(tuple(fate.snapshot.id for fate in standing.going))


def _judged(
    start: Standing,
    settings: UnitSettings,
    manifests: list[Snapshot],
    now: datetime,
    unfinished: Collection[str],
) -> Standing:
    rule, where = settings.retention, zone(settings.timezone)
    return msgspec.structs.replace(
        start,
        rule=rule,
        timezone=settings.timezone,
        fates=fates(manifests, rule, zone=where, now=now, unfinished=unfinished),
    )


def _configured(config: Config) -> UnitSettings:
    problems = check_defaults(config.defaults)
    if problems:
        raise ConfigError(
            "the configuration's retention cannot be used: " + "; ".join(problems),
            hint="docs/configuration.md lists every setting",
        )
    return without_members(config.defaults)


def _by_unit(snapshots: Iterable[Snapshot], host: str, instance: str) -> dict[str, list[Snapshot]]:
    found: dict[str, list[Snapshot]] = {}
    for snapshot in snapshots:
        place = unit_of(snapshot.source)
        if place is not None and snapshot.source.host == host and place[1] == instance:
            found.setdefault(place[0], []).append(snapshot)
    return found
