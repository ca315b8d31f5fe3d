"""One run of one unit: the phases in the order in which they happen, with undo beside do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial

import anyio
import msgspec

from kopiwatch.backup.access import WorkerPlan
from kopiwatch.backup.answer import failure, manifest
from kopiwatch.backup.course import Course
from kopiwatch.backup.dump.phase import Dumps
from kopiwatch.backup.earlier import last_good
from kopiwatch.backup.gate import GatedKopia, gated
from kopiwatch.backup.hooking import MemberHooks
from kopiwatch.backup.house import House
from kopiwatch.backup.keep import NOTHING, Kept, keep, may_delete
from kopiwatch.backup.launching import Launching, names_of
from kopiwatch.backup.plan import parents_trusted, plan_hold
from kopiwatch.backup.plausible import REFUSALS, hint, terms_of
from kopiwatch.backup.recipe_run import RunRecipe
from kopiwatch.backup.result import RunResult, SourceResult, Verdict
from kopiwatch.backup.settle import make_durable, refuse_debts
from kopiwatch.backup.stage import staged
from kopiwatch.backup.stored import compare, read_back
from kopiwatch.backup.strategy import DEFAULT_RATE
from kopiwatch.backup.survey import Survey
from kopiwatch.backup.turn import Turn
from kopiwatch.backup.verdict import HOOK, judge, remarks
from kopiwatch.backup.window import Window
from kopiwatch.errors import Cancelled, KopiwatchError, RunError
from kopiwatch.kopia.record import Snapshot
from kopiwatch.task import beside, halted, together
from kopiwatch.units.container import Container
from kopiwatch.units.unit import Unit
from kopiwatch.words import counted

SETTLE_SECONDS = 120.0
SHARED_HINT = (
    "containers that write to the same data belong into one unit (kopi.unit); or let the other "
    "mount it read-only, or leave the source out (kopi.exclude)"
)


class Run:
    """One attempt to back up one unit. Call :meth:`execute` once, with the run lock held.

    ``rate`` is how fast data is uploaded, in bytes per second, as far as anybody knows.
    ``turn`` is this run's among those of a batch; when the run begins, it may prepare. ``listed``
    are the snapshots of the repository as listed since the run lock is held; without, they are
    asked for.
    """

    def __init__(
        self,
        house: House,
        unit: Unit,
        rows: tuple[Container, ...],
        run: str,
        *,
        rate: float = DEFAULT_RATE,
        turn: Turn | None = None,
        listed: tuple[Snapshot, ...] | None = None,
    ) -> None:
        self.house = house
        self.unit = unit
        self.rows = rows
        self.run = run
        self.rate = rate
        self.turn = turn or Turn()
        self.listed = listed
        self.began = house.clock.now()
        self.recipe = RunRecipe(house, unit)
        self.names = names_of(unit.name, host=house.host, instance=house.instance)
        self.course = Course(house, unit.name, run, self.names.source)
        self.window = Window(self.course, unit)
        self.launching = Launching(self.course, unit, self.window, self.recipe, self.names)
        self.hooks = MemberHooks(self.course, unit)
        self.dumps = Dumps(self.course, unit)
        self.result: RunResult | None = None
        self.sources: tuple[SourceResult, ...] = ()
        self.snapshot: Snapshot | None = None
        self.earlier: tuple[Snapshot, ...] = ()
        self.last_good: Snapshot | None = None
        self.terms = terms_of(unit)
        self.notes: tuple[str, ...] = ()
        self.kept = NOTHING
        self.kopia_lost = False
        self.unrecorded: KopiwatchError | None = None
        self.settled = False
        self.left_behind: list[str] = []
        self.limit: anyio.CancelScope

    async def execute(self) -> RunResult:
        """Run all phases; never raises an error of ours, it becomes the verdict.

        Cancellation brings back what is down, settles the verdict, and is raised on.
        """
        try:
            limit = self.house.run_timeout.total_seconds()
            late = "the run took longer than KOPIWATCH_RUN_TIMEOUT"
            with self.course.deadline(limit, late) as self.limit:
                with self.course.timed("check"):
                    await refuse_debts(self.house.state.journals, self.unit.name)
                async with beside(self._judge_policy) as policy:
                    wanted, trusted = await self._check(policy)
                    await self._store(wanted, trusted=trusted, policy=policy)
                verdict, reason, message = await self._verify()
        except KopiwatchError as error:
            return await self._end_badly(error)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(SETTLE_SECONDS):
                await self._end_badly(
                    Cancelled(
                        f"unit {self.unit.name}: cancelled",
                        phase=self.course.phase,
                        reason="cancelled",
                    )
                )
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self.dumps.clear()
        try:
            if verdict == "success":
                await self._keep()
            else:
                await self.turn.take()  # for its report, which must not wait: it may take hours
        finally:
            # The verdict is known: a signal that comes now does not change it.
            with anyio.CancelScope(shield=True), anyio.move_on_after(SETTLE_SECONDS):
                await self._report(verdict, reason, message)
        result = self.result
        if result is None and verdict == "success" and not self.settled:
            return await self._end_badly(self._late())
        if result is None:
            result = await self._report(verdict, reason, message)
        if reason == "interference" and self.window.disturbance.foreign:
            self.result = msgspec.structs.replace(result, hint=SHARED_HINT)
        elif reason == HOOK:
            self.result = msgspec.structs.replace(
                result, hint=self.hooks.hint, tail=self.hooks.tail
            )
        elif reason in REFUSALS:
            told = hint(self.unit.name, self.sources)
            self.result = msgspec.structs.replace(result, hint=told)
        return self.result or result

    async def refuse(self, error: KopiwatchError) -> RunResult:
        """End it before it has begun: nothing was touched, and the error is its verdict."""
        return await self._end_badly(error)

    async def _store(
        self, wanted: WorkerPlan, *, trusted: bool, policy: Callable[[], Awaitable[None]]
    ) -> None:
        """All that a worker does, from its start to its end.

        ``trusted`` says that files that look unchanged need not be read. ``policy`` is awaited
        before the worker takes the Kopia lock; it raises what speaks against the policy in effect.
        """
        launching = self.launching
        await self.dumps.take()
        async with (
            staged(self.house, wanted, self.left_behind) as plan,
            self.house.access.open(plan) as session,
            gated(self.unit.name, session) as kopia,
        ):
            try:
                await self._wait()
                with self.course.timed("check"):
                    await policy()
                volatile = await launching.set_up(kopia, plan, last=self.last_good)
                await launching.choose(kopia, plan, rate=self.rate)
                await self.window.approach.warm(kopia, launching.hot_pass(plan))
                await launching.ready(kopia, plan, force_hash=volatile or not trusted)
                await self.turn.unwatched({m.id for m in self.window.hold.held})
                async with self.hooks.around(self.window.hold.sequence):
                    await self.window.open(kopia, self._window_limit)
                await self._flush(kopia)
                self.turn.leave()
            finally:
                await self._end_kopia(kopia)

    async def _wait(self) -> None:
        """Wait for the turn: what others need of it is not this run's time."""
        with halted(self.limit):
            await self.turn.take()

    async def _end_kopia(self, kopia: GatedKopia) -> None:
        """No Kopia lives on after a run that is no success: what it stored later would count."""
        with anyio.CancelScope(shield=True):
            await kopia.kill()
            await self.window.approach.clear(kopia)
        self.kopia_lost = kopia.lost
        self.left_behind += filter(None, [kopia.remains])

    def _late(self, why: str = "it took too long", hint: str = "") -> RunError:
        return RunError(
            f"unit {self.unit.name}: the verdict could not be recorded: {why}",
            phase="report",
            reason="report",
            hint=hint,
        )

    @property
    def survey(self) -> Survey:
        """What the walk of the sources found, empty before it has ended."""
        return self.launching.survey

    # -- before the window ---------------------------------------------------------------------

    async def _judge_policy(self) -> None:
        await self.turn.take()  # it takes Kopia, which the run before may need for longer
        await self.house.repository.check_policy(self.names.source)

    async def _check(self, policy: Callable[[], Awaitable[None]]) -> tuple[WorkerPlan, bool]:
        """Nothing is touched here: whatever is wrong is found before anybody is stopped.

        ``policy`` is awaited where Kopia is needed, or containers are, as for a dump.
        """
        unit, house = self.unit, self.house
        with self.course.timed("check"):
            await house.state.journals.reserve()
            if self.listed is None or self.dumps.mount:
                await self._wait()
                await policy()
            self.earlier = await self._earlier()
            self.last_good = last_good(self.earlier)
            hold = await plan_hold(house.engine, unit, self.rows, own=house.own)
            # Dumps are at rest in a folder of our own: nobody writes to them in the window.
            root = self.names.root
            paths = tuple(f"{root}/{s.path}" for s in unit.sources if s.kind != "dump")
            self.window.hold, self.window.paths = hold, paths
            await self.dumps.prepare(hold.inspected, self.last_good)
            folder = await self.recipe.begin(
                self.run,
                self.began,
                inspected=hold.inspected,
                warnings=self._warnings(),
                plausibility=self.terms,
            )
            names = {source.volume for source in unit.sources if source.volume}
            volumes = await together([partial(house.engine.volume, name) for name in names])
            self.window.mountpoints = {v.name: v.mountpoint for v in volumes if v is not None}
            plan = self.launching.plan(folder, self.rows, dumps=self.dumps.mount)
            await house.access.check(plan)
        return plan, parents_trusted(self.earlier, hold.reading)

    async def _earlier(self) -> tuple[Snapshot, ...]:
        if self.listed is None:
            return await self.house.repository.snapshots(self.names.source)
        return tuple(each for each in self.listed if str(each.source) == self.names.source)

    @property
    def _window_limit(self) -> float:
        """Seconds for the window; where nobody is held, there is no downtime to be limited."""
        longest = self.unit.settings.window_timeout if self.window.hold.held else None
        return (longest or self.house.run_timeout).total_seconds()

    # -- after the window ----------------------------------------------------------------------

    async def _flush(self, kopia: GatedKopia) -> None:
        """Kopia writes what it read, then the manifest."""
        with self.course.timed("flush"):
            said = await kopia.finish()
            if said.code != 0 or said.killed:
                raise failure(self.unit.name, said, "flush")
            self.snapshot = manifest(self.unit.name, said)
            await self.window.look_late()

    async def _verify(self) -> tuple[Verdict, str, str]:
        """Read the stored tree back, look at the members again, and judge."""
        with self.course.timed("verify"):
            snapshot = self.snapshot
            assert snapshot is not None  # noqa: S101 - the flush has set it or raised
            repository, unit = self.house.repository, self.unit
            tree = await read_back(
                repository, snapshot, unit=unit.name, source=self.names.source, run=self.run
            )
            compared = await compare(repository, tree, unit, self.terms, self.last_good)
            self.sources = compared.sources
            self.notes = (*remarks(compared.sources), *compared.notes)
            with self._watching():
                await self.window.observe()
            return judge(
                snapshot,
                self.sources,
                self.window.members,
                self.window.disturbance.text,
                self.hooks.faults(),
            )

    def _watching(self) -> AbstractContextManager[None]:
        """The next unit of a batch may have its turn while there is only looking to be done."""
        held = {member.id for member in self.window.hold.held}
        return self.turn.watching(held) if held else nullcontext()

    async def _keep(self) -> None:
        """Delete what the unit's retention lets go; trouble with it is not the run's."""
        house, unit = self.house, self.unit
        with self.course.timed("keep"):
            try:
                # First, for a run that dies here would else be none, and what it replaced be gone.
                await self._settle("")
            except KopiwatchError as error:
                self.unrecorded = error
                return
            self.settled = True
            known, now = (*self.earlier, *filter(None, [self.snapshot])), house.clock.now()
            leaving, approach = may_delete(known, unit.settings, now), self.window.approach
            if not leaving and not approach.warmed:
                return
            await self.turn.take()
            try:
                if leaving:
                    self.kept = await keep(
                        house.repository,
                        self.names.source,
                        unit=unit.name,
                        settings=unit.settings,
                        now=now,
                    )
                await approach.prune(house.repository, self.names.hot)
            except KopiwatchError as error:
                hint = f" ({error.hint})" if error.hint else ""
                self.kept = Kept(warning=f"retention: {error.message}{hint}", failed=True)
            if self.kept.deleted:
                self.course.say(
                    "keep", f"retention deleted {counted(self.kept.deleted, 'manifest')}"
                )

    async def _settle(self, reason: str) -> str:
        """Make the verdict durable; the new id of a manifest that was pinned as bad, or empty."""
        if reason:
            await self.turn.take()  # it takes Kopia to pin a manifest
        return await make_durable(
            self.house.repository,
            self.house.state.journals,
            unit=self.unit.name,
            source=self.names.source,
            run=self.run,
            reason=reason,
            ended=not self.kopia_lost,
        )

    async def _end_badly(self, error: KopiwatchError) -> RunResult:
        reason = error.reason if isinstance(error, RunError) else error.code
        self.left_behind += getattr(error, "__notes__", [])
        message = error.message.removeprefix(f"unit {self.unit.name}: ")
        result = await self._report("failed", reason, message)
        self.result = msgspec.structs.replace(
            result, hint=error.hint, tail=error.tail, exit_code=error.exit_code
        )
        return self.result

    async def _report(self, verdict: Verdict, reason: str, message: str) -> RunResult:
        """Make the verdict durable, then clear what the journal no longer owes."""
        warnings = self._warnings()
        warnings += [self.kept.warning] if self.kept.warning else []
        identity = self.snapshot.id if self.snapshot else ""
        unrecorded, self.unrecorded = self.unrecorded, None
        with self.course.timed("report"):
            if self.launching.launched and unrecorded is None and not self.settled:
                try:
                    identity = await self._settle(reason) or identity
                except KopiwatchError as error:
                    unrecorded = error
                    warnings.append(
                        f"the verdict could not be made durable ({error.message}); "
                        "the next command that changes something does it"
                    )
        if unrecorded and verdict == "success":
            # Whoever settles the run would call it interrupted: a success is on record or is none.
            return await self._end_badly(self._late(unrecorded.message, unrecorded.hint))
        self.result = RunResult(
            run=self.run,
            unit=self.unit.name,
            verdict=verdict,
            began=self.began,
            ended=self.house.clock.now(),
            reason=reason,
            message=message,
            snapshot=identity,
            window=self.window.seconds,
            phases=tuple(self.course.times),
            sources=self.sources,
            members=self.window.members,
            warnings=tuple(warnings),
            exit_code=0 if verdict == "success" else 1,
            data_at=self.snapshot.start_time if self.snapshot else None,
            broke_in=self.course.failed_in,
            deleted=self.kept.deleted,
            keep_failed=self.kept.failed,
            hooks=tuple(self.hooks.results),
            strategy=self.window.approach.choice.strategy,
            strategy_reason=self.window.approach.choice.reason,
            upload_rate=self.window.approach.measured(self.course.times),
        )
        return self.result

    # -- small helpers -------------------------------------------------------------------------

    def _warnings(self) -> list[str]:
        window = self.window
        told = (
            *(*self.unit.warnings, *window.hold.warnings, *window.remarks),
            *(*self.survey.remarks, *self.recipe.missing, *self.notes, *self.hooks.remarks),
            *(window.disturbance.doubt, *window.approach.notes, *self.left_behind),
        )
        return list(dict.fromkeys(filter(None, told)))
