"""The phase *keep*: what the unit's retention lets go is deleted, after a success only."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.retention import fates
from kopiwatch.units.setting import UnitSettings
from kopiwatch.units.zone import zone

MOST_AT_ONCE = 10
"""A run that would delete more deletes nothing: a rule or a clock may have gone wrong."""

LONGEST_GAP = timedelta(days=60)
"""A clock that leaps ahead makes every restore point old at once."""


class Kept(msgspec.Struct, frozen=True):
    """What the phase did: how many manifests went, or why none did.

    ``failed`` says that the repository could not be listed, or did not delete.
    """

    deleted: int = 0
    warning: str = ""
    failed: bool = False


NOTHING = Kept()


def may_delete(known: Iterable[Snapshot], settings: UnitSettings, now: datetime) -> bool:
    """Whether the rule of a unit may let one of its manifests go, by those known from before."""
    told = fates(known, settings.retention, zone=zone(settings.timezone), now=now)
    return any(fate.goes for fate in told)


async def keep(
    repository: Repository,
    source: str,
    *,
    unit: str,
    settings: UnitSettings,
    now: datetime,
) -> Kept:
    """Delete those manifests of ``source`` that the rule of this unit lets go: one call, by id.

    They are listed anew: what somebody deleted meanwhile must not count as kept. Call it when the
    verdict of the run that just ended is durable, with the run lock held: every run of this source
    has its verdict then. Raises RepositoryError or BusyError; Kopia deletes all of them or, if one
    of the ids is unknown, none.
    """
    found = await repository.snapshots(source)
    told = fates(found, settings.retention, zone=zone(settings.timezone), now=now)
    going = tuple(fate.snapshot.id for fate in told if fate.goes)
    whole = sorted(fate.snapshot.start_time for fate in told if fate.state == "complete")
    losing = any(fate.goes and fate.state == "complete" for fate in told)
    if losing and len(whole) > 1 and whole[-1] - whole[-2] > LONGEST_GAP:
        return Kept(
            warning=f"the newest restore point is {(whole[-1] - whole[-2]).days} days younger than"
            f" the one before, so retention deleted none: is the clock right? If it is,"
            f" `kopiwatch repo retention apply {unit}`"
        )
    if len(going) > MOST_AT_ONCE:
        return Kept(
            warning=f"retention would delete {len(going)} restore points at once, so it deleted"
            f" none: look at `kopiwatch repo retention show {unit}`, and do it with"
            f" `kopiwatch repo retention apply {unit} --yes`"
        )
    await repository.delete(going)
    return Kept(deleted=len(going))
