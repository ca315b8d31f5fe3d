"""The window: everybody stopped or frozen, one read, everybody back. Nothing else happens in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import msgspec

from kopiwatch.backup.answer import failure
from kopiwatch.backup.approach import Approach
from kopiwatch.backup.bringing import (
    bring_back,
    longest_stop,
    still_running,
    wait_all_healthy,
    watch,
)
from kopiwatch.backup.course import Course
from kopiwatch.backup.gate import GatedKopia
from kopiwatch.backup.interference import Disturbance, Observer, taken_over
from kopiwatch.backup.journal import Held
from kopiwatch.backup.result import MemberResult
from kopiwatch.backup.stopping import (
    HoldPlan,
    Stopping,
    as_held,
    freeze,
    refresh,
    restarted,
    stop_level,
)
from kopiwatch.task import together
from kopiwatch.units.unit import Unit

OBSERVE_SECONDS = 2.0


class Window:
    """The window of one run. ``seconds`` is its downtime, ``members`` how they came back.

    ``hold`` is who is held, as of now. ``disturbance`` is who disturbed the read. ``paths`` are
    the places of the sources for the worker, ``mountpoints`` where volumes lie on the host, by
    name; the phase *check* fills these in. ``approach`` is what makes it short; ``staged`` says
    that Kopia reads a stage after it.
    """

    def __init__(self, course: Course, unit: Unit) -> None:
        self.course = course
        self.unit = unit
        self.hold = HoldPlan()
        self.paths: tuple[str, ...] = ()
        self.mountpoints: dict[str, str] = {}
        self.stopping = Stopping()
        self._planned: tuple[Held, ...] = ()
        self.owed: tuple[Held, ...] = ()
        self.members: tuple[MemberResult, ...] = ()
        self.disturbance = Disturbance()
        self.undisturbed = False
        self.seconds = 0.0
        self.up_at = 0.0
        self.approach = Approach(course, unit)
        self.staged = False
        self._observer: Observer | None = None

    async def open(self, kopia: GatedKopia, limit: float) -> None:
        """Hold, read within ``limit`` seconds, bring back; whatever happens, all are brought back.

        Kopia is at its gate before. After it, Kopia has read everything, or reads what is staged.
        Raises what went wrong.
        """
        house = self.course.house
        observer = Observer(house.engine, self.unit, self.mountpoints, house.own)
        self._observer = observer
        await observer.begin(self.hold)
        self.hold = await refresh(house.engine, self.hold)
        self._planned = self.hold.held
        kopia.check_waiting()
        self.approach.check(kopia)
        await self.course.journal(self.hold.held, early=True)
        opened = house.clock.seconds()
        undone = True
        try:
            with self.course.deadline(limit, "the window took longer than kopi.window-timeout"):
                await self._stop(kopia)
                await self._read(kopia, observer)
            undone = False
        except BaseException:
            # No second writer beside a living Kopia: it is dead before the first start.
            with anyio.CancelScope(shield=True):
                await kopia.kill()
            raise
        finally:
            try:
                with anyio.CancelScope(shield=True):
                    await self._start()
                    if undone:
                        await self._write_off()
            finally:
                # Downtime lasts until the last start has returned, then until all are healthy.
                self.seconds = max(0.0, self.up_at - opened)
        # Side by side: who waits for its health does not wait for the disk of the journal.
        after: list[Callable[[], Awaitable[None]]]
        after = [
            *(self._write_off, partial(self._health, kopia, opened)),
            partial(self._look_back, observer),
        ]
        await together(after)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What is to be known of members that ran as the window opened, and were not ours then."""
        ended = (m.name for m in self._planned if m.id in self.stopping.not_ours)
        return tuple(
            f"{n} ended by itself before it could be held, and is left down" for n in ended
        )

    async def look_late(self) -> None:
        """What is not in the stage was read beside running members: look for others once more."""
        late = self.approach.unstaged if self.staged else ()
        if late and self._observer is not None and not self.disturbance.text:
            self._add(await self._observer.look_late(late))

    async def observe(self) -> None:
        """Look again a moment after the last start: who came back may have fallen over since."""
        if not self.hold.held:
            return
        house = self.course.house
        since = house.clock.seconds() - self.up_at
        await house.clock.sleep(max(0.0, OBSERVE_SECONDS - since))
        self.members = await still_running(house.engine, self.hold.held, self.members)

    async def _stop(self, kopia: GatedKopia) -> None:
        if not self.hold.held:
            return
        engine = self.course.house.engine
        self.course.say("stop", self.hold.announcement)
        with self.course.timed("stop"):
            for place, level in enumerate(self.hold.levels):
                if place:
                    now = await restarted(engine, self.hold, {stop.id for stop in level})
                    await self._put(now)
                await stop_level(engine, level, self.stopping)
                await self._note()
            if self.hold.pauses:
                if self.hold.levels:
                    await self._put(await restarted(engine, self.hold, set(self.hold.pauses)))
                await freeze(engine, self.hold.pauses, self.stopping)
                await self._note()
            if self.hold.reading == "pause":
                # What a frozen program wrote by mmap gets its times only now.
                await kopia.sync(self.approach.unflushed(self.paths), "stop")

    async def _note(self) -> None:
        """For the record: who was down before we came, or has restarted by itself since."""
        await self._put(as_held(self.hold, self.stopping))

    async def _put(self, seen: HoldPlan) -> None:
        if seen.held != self.hold.held:
            await self.course.journal(seen.held)
            self.hold = seen

    async def _read(self, kopia: GatedKopia, observer: Observer) -> None:
        with self.course.timed("read"):
            self.staged = await self._stage(kopia, observer)
            if not self.staged:
                said = await kopia.read()
                if said.say != "read":
                    raise failure(self.unit.name, said, "read")
                self.disturbance = await observer.look(self.hold)
            self.undisturbed = not self.disturbance.text

    async def _look_back(self, observer: Observer) -> None:
        """What cannot be asked of a frozen member is asked when it runs again."""
        if not self.disturbance.text:
            self._add(await observer.look_back(self.hold))

    def _add(self, found: Disturbance) -> None:
        """Take in what a later look has found."""
        doubts = dict.fromkeys(filter(None, [self.disturbance.doubt, found.doubt]))
        self.disturbance = msgspec.structs.replace(found, doubt="; ".join(doubts))

    async def _stage(self, kopia: GatedKopia, observer: Observer) -> bool:
        """Take everything into the stage; False where Kopia has to read the live tree, as it is."""
        intended = bool(self.approach.root)
        if await self.approach.stage(kopia):
            self.disturbance = await observer.look(self.hold)
            kopia.check_waiting("read")
            self.approach.check(kopia)
        if intended and not self.approach.root and self.hold.reading == "pause":
            # What was cloned needed no such thing.
            await kopia.sync(self.paths, "read")
        return bool(self.approach.root)

    async def _start(self) -> None:
        """Bring back exactly whom we held."""
        house, stopping = self.course.house, self.stopping
        held = [member for member in self.hold.held if member.id in stopping.begun]
        held = [member for member in held if member.id not in stopping.not_ours]
        theirs = set() if self.undisturbed else await taken_over(house.engine, held)
        held = [member for member in held if member.id not in theirs]
        if held:
            with self.course.timed("start"):
                self.members = await bring_back(house.engine, held, house.clock)
                self.up_at = house.clock.seconds()
                await self._watch(held)
        failed = {member.name for member in self.members if member.state == "failed"}
        self.owed = tuple(member for member in held if member.name in failed)

    async def _write_off(self) -> None:
        """The journal keeps whoever does not come, and nobody else. Not to be interrupted."""
        with anyio.CancelScope(shield=True):
            await self.course.journal(self.owed)
        for member in self.members:
            if member.state == "failed":
                self.course.say("start-failed", f"{member.name} does not start: {member.detail}")

    async def _watch(self, held: list[Held]) -> None:
        """Undo what Docker still carries out after our calls for it were cut off."""
        uncertain = [member for member in held if member.id in self.stopping.uncertain]
        if not uncertain:
            return
        house = self.course.house
        names = ", ".join(member.name for member in uncertain)
        seconds = longest_stop(uncertain)
        self.course.say("watch", f"up to {seconds:.0f} s more: Docker may still be holding {names}")
        before = self.members
        self.members = await watch(
            house.engine,
            held,
            before,
            house.clock,
            watched=self.stopping.uncertain,
            seconds=seconds,
        )
        if self.members != before:
            self.up_at = house.clock.seconds()

    async def _health(self, kopia: GatedKopia, opened: float) -> None:
        """Who was healthy must be healthy again; Kopia writes meanwhile."""
        house = self.course.house
        if self.staged:
            await kopia.read_staged(self.approach.root)
        else:
            await kopia.flush()
        if not self.hold.held:
            return
        with self.course.timed("health"):
            self.members = await wait_all_healthy(
                house.engine, self.hold.held, self.members, house.clock
            )
        self.up_at = house.clock.seconds()
        self.seconds = self.up_at - opened
