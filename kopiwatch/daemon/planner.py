"""The loop that looks at the clock: what is due goes into the queue."""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from kopiwatch.daemon.census import standings
from kopiwatch.daemon.desk import Desk
from kopiwatch.watch.agenda import WRONG_CLOCK, Run, Skip, Standing, Wait, decide
from kopiwatch.watch.queue import Ask

LOOK_SECONDS = 15.0
"""The wall clock is looked at this often: it may jump while we sleep."""
STEP_BACK = timedelta(seconds=1)
AT_LEAST = 0.05


class Planner:
    """Decides for each unit when its time has come; asks again only then, or when it changed."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._standings: dict[str, Standing] = {}
        self._until: dict[str, datetime | None] = {}
        self._decided: dict[str, datetime] = {}
        self.last_tick: datetime | None = None

    def next_run(self, unit: str) -> datetime | None:
        """When a unit is expected to run next: the time that it waits for."""
        return self._until.get(unit)

    async def run(self) -> None:
        """Plan until cancelled."""
        while True:
            wait = await self.tick()
            await self._desk.plan.wait(max(AT_LEAST, min(wait, LOOK_SECONDS)))

    async def tick(self) -> float:
        """Queue what is due now; returns in how many seconds something may be due next."""
        desk = self._desk
        now = desk.clock.now()
        if self.last_tick is not None and now < self.last_tick - STEP_BACK:
            self._until.clear()  # the clock was set back: every plan is made anew
            self._decided = {k: due for k, due in self._decided.items() if due <= now + WRONG_CLOCK}
        self.last_tick = now
        if desk.found is None or not desk.ready or desk.stopping:
            return LOOK_SECONDS
        fresh = standings(desk.found, desk.ledger.records)
        invalid = {unit.name for unit in desk.found.units if not unit.valid}
        for name in self._until.keys() - fresh.keys():
            del self._until[name]
            self._decided.pop(name, None)
            if not desk.jobs.of(name):  # whoever follows a command hears from its run
                desk.queue.drop(name)
        for name, standing in fresh.items():
            if not self._asks_again(name, standing, now):
                continue
            until = await self._decide(standing, now, invalid=name in invalid)
            self._until[name] = until
            desk.changed()
        self._standings = standings(desk.found, desk.ledger.records)
        moments = [until for until in self._until.values() if until is not None]
        return min(((until - now).total_seconds() for until in moments), default=LOOK_SECONDS)

    def _asks_again(self, name: str, standing: Standing, now: datetime) -> bool:
        if name not in self._until or self._standings.get(name) != standing:
            return True
        until = self._until[name]
        return until is not None and now >= until

    async def _decide(self, standing: Standing, now: datetime, *, invalid: bool) -> datetime | None:
        """Act on one unit; returns until when it needs no other look."""
        desk = self._desk
        decided = self._decided.get(standing.unit)
        if decided is not None and (standing.served is None or standing.served < decided):
            standing = msgspec.structs.replace(standing, served=decided)
        decision = decide(standing, now)
        while not isinstance(decision, Wait):
            reason = "labels" if invalid else "missed" if isinstance(decision, Skip) else ""
            if reason:
                await self._skip(standing.unit, decision.due, reason)
            elif isinstance(decision, Run):
                desk.queue.add(
                    Ask(standing.unit, decision.due, now, decision.trigger, standing.priority)
                )
                desk.work.ring()
                if decision.trigger == "catch-up":
                    desk.listener.say(
                        "catch-up",
                        f"{standing.unit}: due at {decision.due:%Y-%m-%d %H:%M} UTC and missed; "
                        "making up for it",
                        unit=standing.unit,
                    )
            # The ledger remembers it when its run begins, which may have to wait for the run lock.
            self._decided[standing.unit] = decision.due
            standing = msgspec.structs.replace(standing, served=decision.due)
            decision = decide(standing, now)
        return decision.until

    async def _skip(self, unit: str, due: datetime, reason: str) -> None:
        desk = self._desk
        words = {
            "labels": "its labels are broken",
            "missed": "it was missed, and kopi.catch-up is false",
        }
        desk.skipped[reason] += 1
        desk.listener.say(
            "skip",
            f"{unit}: not backed up as of {due:%Y-%m-%d %H:%M} UTC: {words[reason]}",
            unit=unit,
            reason=reason,
            level="warning",
        )
        await desk.ledger.skip(unit, due, reason)
