"""The loop that works: one run at a time, and between runs what repository and journal need.

Everything that starts Kopia or stops containers happens here, one after the other.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime, timedelta

import anyio
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.settle import readable
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.phase_writer import Heard, PhaseWriter
from kopiwatch.daemon.probe import Found, probe
from kopiwatch.daemon.tee import Tee
from kopiwatch.errors import (
    BusyError,
    EngineUnreachable,
    KopiwatchError,
    RepositoryError,
)
from kopiwatch.kopia.lock import FileLock
from kopiwatch.report.board import Queued
from kopiwatch.watch.queue import Ask
from kopiwatch.wiring.attempt import DOCKER_AWAY, Attempt, Order, refuse

PROBE_EVERY = timedelta(minutes=15)
DOCKER_PAUSE = timedelta(minutes=1)
GONE_PAUSE = timedelta(seconds=15)
OWED_PAUSE = (30.0, 600.0)
SETTLE_PAUSE_SECONDS = 5.0
LOOK_SECONDS = 15.0
"""How long the loop sleeps at most: a wall clock that jumps is noticed within that time."""


class Executor:
    """Takes what is due from the queue and carries it out. Made once; :meth:`run` ends never."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.phases = PhaseWriter(desk)
        self.attempt: Attempt | None = None
        self.scope: anyio.CancelScope | None = None
        self._probe_at: datetime | None = None
        self._owed_at: datetime | None = None
        self._owed_pause = OWED_PAUSE[0]

    async def run(self) -> None:
        """Settle what an earlier life left; then work until the desk says that we are leaving.

        Whatever it does just now can be cut short through ``scope``.
        """
        while not self.desk.stopping:
            with anyio.CancelScope() as self.scope:
                await (self._turn() if self.desk.settled else self._settle())
        self.scope = None

    async def _turn(self) -> None:
        """One thing at a time: a run, else a probe, else what is owed, else a rest."""
        now = self.desk.clock.now()
        ask = None if self.desk.held else self.desk.queue.take(now)
        if ask is not None:
            await self._back_up(ask)
        elif self._owed_at is not None and now >= self._owed_at:
            await self._bring_back()  # first: a probe of a repository that hangs takes minutes
        elif self._probe_at is None or now >= self._probe_at:
            await self._probe()
        else:
            await self.desk.work.wait(self._pause(now))

    def _pause(self, now: datetime) -> float:
        moments = (self._probe_at, self._owed_at, self.desk.queue.next_at(now))
        waits = [(moment - now).total_seconds() for moment in moments if moment is not None]
        return min([LOOK_SECONDS, *(max(0.1, wait) for wait in waits)])

    # -- an earlier life -----------------------------------------------------------------------

    async def _settle(self) -> None:
        """Replay the journal before anything else; wait for Docker as long as it takes."""
        if await self._bring_back():
            await self.desk.ledger.interrupted()
            self.desk.settled = True
            self.desk.changed()
        else:
            await self.desk.work.wait(SETTLE_PAUSE_SECONDS)

    async def _bring_back(self) -> bool:
        """Under the run lock: end strays, start what is owed. False if Docker does not answer."""
        desk = self.desk
        try:
            async with wiring.docker(desk.config) as where, self._lock("run: replay"):
                done = await wiring.replay(where.engine, desk.state, desk.identity, desk.listener)
        except KopiwatchError as error:
            if not isinstance(error, EngineUnreachable):  # the watcher says that
                desk.say_once("replay", error)
            await self.count_owed()
            return False
        desk.said_well("replay")
        started = sum(member.state == "started" for each in done for member in each.members)
        desk.recoveries += started
        await self.count_owed()
        return True

    def docker_is_back(self) -> None:
        """What is down because of us comes back now, not after the pause of a long outage."""
        self._owed_pause = OWED_PAUSE[0]
        if self._owed_at is not None:
            self._owed_at = self.desk.clock.now()

    def hasten(self) -> None:
        """Somebody waits: an open breaker is probed now."""
        if self.desk.breaker.open:
            self._probe_at = self.desk.clock.now()

    async def count_owed(self) -> dict[str, tuple[str, ...]]:
        """Who is still down because of us, now that nothing runs; by unit."""
        desk = self.desk
        try:
            journals = await readable(desk.state.journals)
        except KopiwatchError as error:
            # A folder that cannot be read is not an empty one: what was known still counts.
            desk.say_once("journal", error)
            self._owed_at = desk.clock.now() + timedelta(seconds=self._owed_pause)
            return desk.left_stopped
        desk.said_well("journal", "the journals can be read again")
        left = {
            unit: tuple(member.name for member in journal.members)
            for unit, journal in journals.items()
            if journal.members
        }
        if left or any(journal.hooks for journal in journals.values()):
            self._owed_at = desk.clock.now() + timedelta(seconds=self._owed_pause)
            self._owed_pause = min(self._owed_pause * 2, OWED_PAUSE[1])
        else:
            self._owed_at, self._owed_pause = None, OWED_PAUSE[0]
        if left != desk.left_stopped:
            desk.left_stopped = left
            desk.changed()
        return left

    # -- a run ---------------------------------------------------------------------------------

    async def _back_up(self, ask: Ask) -> None:
        """One run of one unit, to its end; a retry or the breaker follows from its result."""
        desk = self.desk
        order = Order(ask.unit, ask.trigger, ask.serves)
        jobs = desk.jobs.of(ask.unit)
        desk.running = Queued(ask.unit, ask.due, ask.since, ask.trigger, ask.priority)
        desk.changed()
        result: RunResult | None = None
        try:
            result = await self._attempt(order, Tee((desk.listener, *jobs)))
        finally:
            if result is None and self.attempt is not None:
                result = self.attempt.result  # cut short, and recorded all the same
            self.attempt = None
            desk.running = None
            with anyio.CancelScope(shield=True):
                await self.count_owed()
            if result is not None:
                for job in jobs:
                    job.end(result)
                desk.jobs.sweep()
                self._conclude(ask, result)
            desk.changed()

    async def _attempt(self, order: Order, listener: Tee) -> RunResult:
        desk = self.desk
        now = desk.clock.now
        try:
            async with (
                wiring.docker(desk.config) as where,
                self._lock(f"run: backup {order.unit}"),
            ):
                heard = Heard(self.phases, order.unit, listener)
                await wiring.replay(where.engine, desk.state, desk.identity, desk.listener)
                try:
                    house = await wiring.house(
                        desk.config,
                        where,
                        f"run: backup {order.unit}",
                        heard,
                        state=desk.state,
                        identity=desk.identity,
                    )
                except KopiwatchError as error:
                    return await refuse(order, error, desk.ledger, now(), verdict="failed")
                self.attempt = Attempt(desk.config, where, house, order)
                return await self.attempt.execute(desk.ledger)
        except EngineUnreachable as error:
            return await refuse(order, error, desk.ledger, now(), verdict="skipped")
        except KopiwatchError as error:
            return await refuse(order, error, desk.ledger, now(), verdict="failed")

    def _conclude(self, ask: Ask, result: RunResult) -> None:
        """Tell, count, and decide what follows."""
        desk = self.desk
        desk.tell(result)
        desk.observe(result)
        now = desk.clock.now()
        if result.verdict == "skipped":
            wanted = _of_the_schedule(ask)
            if result.reason in DOCKER_AWAY and wanted is not None:
                desk.queue.again(wanted, now + DOCKER_PAUSE)
            elif result.reason == "gone":
                # Perhaps being recreated; the planner drops it when it stays away.
                desk.plan.ring()
                if wanted is not None:
                    desk.queue.again(wanted, now + GONE_PAUSE)
            return
        if result.verdict == "success":
            desk.breaker.succeeded()
            desk.more_points(result)
            if result.deleted:
                self._probe_at = now  # which points are left, the repository tells
            return
        if result.exit_code == RepositoryError.exit_code:
            desk.breaker.failed()
            self._probe_at = desk.breaker.probe_at(now) if desk.breaker.open else now
        elif result.snapshot:
            desk.breaker.succeeded()  # it took a manifest; what failed was not the repository
        if result.before_window and result.reason != "cancelled":
            desk.queue.retry(ask, now)

    # -- the repository ------------------------------------------------------------------------

    async def _probe(self) -> None:
        """Look whether the repository is there; seed a lost history from it."""
        desk = self.desk
        found = await probe(desk.config, desk.clock)
        await desk.probed(found)
        self._probe_at = self._next_probe(found)

    def _next_probe(self, found: Found) -> datetime:
        now = self.desk.clock.now()
        if found.error is None:
            return now + PROBE_EVERY
        if isinstance(found.error, BusyError):
            return now + timedelta(minutes=1)
        return self.desk.breaker.probe_at(now)

    # -- the run lock --------------------------------------------------------------------------

    @asynccontextmanager
    async def _lock(self, command: str) -> AsyncIterator[None]:
        """The run lock, waited for as long as another process holds it; says for whom."""
        desk = self.desk
        lock = FileLock(desk.state.run_lock, command=command)
        began = desk.clock.seconds()
        try:
            await lock.acquire()
        except BusyError as error:
            desk.listener.say("wait", f"{error.message}; waiting", level="info")
            await self._acquire_patiently(lock)
        desk.waited(desk.clock.seconds() - began)
        desk.lock_held = True
        try:
            yield
        finally:
            lock.release()
            desk.lock_held = False

    async def _acquire_patiently(self, lock: FileLock) -> None:
        while True:
            try:
                return await lock.acquire(wait=3600.0)
            except BusyError as error:
                self.desk.listener.say("wait", f"{error.message}; still waiting", level="warning")


def _of_the_schedule(ask: Ask) -> Ask | None:
    """What is still wanted of a run that was skipped: its follower has seen a command end."""
    if ask.trigger != "command":
        return ask
    if ask.also is None:
        return None
    return msgspec.structs.replace(ask, trigger="schedule", due=ask.also, also=None)
