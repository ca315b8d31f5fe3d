"""What the watcher sees becomes units: found, changed, gone, back, each said once."""

from __future__ import annotations

import anyio
import anyio.to_thread

from kopiwatch import wiring
from kopiwatch.config.duration import write_duration
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.differ import differences
from kopiwatch.engine.own import Own, Unknown, whoami
from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineError
from kopiwatch.report.history_record import UnitRecord, UnitSeen
from kopiwatch.units.container import Container
from kopiwatch.units.unit import Unit
from kopiwatch.watch.watcher import Sighting


class Sight:
    """Takes each list of containers, and keeps the desk's units and the ledger true to it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._own: Own = Unknown("not asked yet")
        self._rows: tuple[Container, ...] = ()
        self._turn = anyio.Lock()

    async def seen(self, engine: Engine, sighting: Sighting) -> None:
        """One good list. Idempotent: an equal one changes nothing."""
        if sighting.reason == "connect":
            try:
                self._own = await whoami(engine)
            except EngineError as error:
                # The connection is breaking; who we were is still right, and the next one asks.
                self._desk.listener.say("whoami", error.message, level="warning")
        self._rows = sighting.rows
        await self.look_again()

    async def look_again(self) -> None:
        """Turn the last list into units, by the configuration of now."""
        async with self._turn:
            await self._look()

    async def _look(self) -> None:
        desk = self._desk
        # Parsing a thousand labels takes a while, and time zones are files.
        found = await anyio.to_thread.run_sync(wiring.units_of, desk.config, self._own, self._rows)
        before, desk.found = desk.found, found
        known = desk.ledger.records
        for line in differences(before, found, known):
            desk.listener.say(
                line.action, line.message, unit=line.unit, level=line.level, **line.facts
            )
        seen = [seen_of(unit, known.get(unit.name)) for unit in found.units]
        if changed := [each for each in seen if _news(each, known.get(each.unit))]:
            for each in changed:
                record = known.get(each.unit)
                if record is not None and _rescheduled(record, each):
                    # What the new schedule would have wanted earlier is not owed.
                    await desk.ledger.serve(each.unit, desk.clock.now())
            await desk.ledger.seen(changed)
        names = {unit.name for unit in found.units}
        gone = [r.unit for r in known.values() if r.unit not in names and r.gone_since is None]
        if gone:
            await desk.ledger.gone(gone)
        desk.changed()
        desk.plan.ring()

    async def expire(self) -> None:
        """Forget units that are gone for longer than the operator wants to hear of them."""
        limit = self._desk.config.forget_after
        if limit is None or self._desk.found is None:
            return
        now = self._desk.clock.now()
        for record in list(self._desk.ledger.records.values()):
            if record.gone_since is not None and now - record.gone_since > limit:
                self._desk.listener.say(
                    "forgotten",
                    f"unit {record.unit}: gone since {record.gone_since:%Y-%m-%d %H:%M} UTC, "
                    "forgotten as KOPIWATCH_FORGET_AFTER says",
                    unit=record.unit,
                    level="warning",
                )
                await self._desk.ledger.forget(record.unit)

    @staticmethod
    def relevant(row: Container) -> bool:
        """Whether a container can be a member: what else comes and goes is no drift."""
        return "kopi.enable" in row.labels and not row.oneoff and not row.worker


def seen_of(unit: Unit, known: UnitRecord | None) -> UnitSeen:
    """What must be known of a unit when it is gone.

    While its labels are broken, what they said last still counts: a typo moves no deadline.
    """
    if not unit.valid and known is not None and known.schedule:
        return UnitSeen(
            unit.name, known.kind, known.schedule, known.timezone, known.mode, known.max_age
        )
    settings = unit.settings
    modes = sorted({member.settings.mode for member in unit.members})
    return UnitSeen(
        unit=unit.name,
        kind=unit.origin,
        schedule=str(settings.schedule),
        timezone=settings.timezone,
        mode="+".join(modes),
        max_age=write_duration(int(settings.max_age.total_seconds())) if settings.max_age else "",
    )


def _rescheduled(record: UnitRecord, seen: UnitSeen) -> bool:
    then, now = (record.schedule, record.timezone), (seen.schedule, seen.timezone)
    return bool(record.schedule) and then != now


def _news(seen: UnitSeen, known: UnitRecord | None) -> bool:
    """Whether the ledger does not know this yet."""
    if known is None or known.last_seen is None or known.gone_since is not None:
        return True
    told = UnitSeen(
        known.unit, known.kind, known.schedule, known.timezone, known.mode, known.max_age
    )
    return told != seen
