"""One run of one unit: the phases in the order in which they happen, with undo beside do."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import anyio
import msgspec

from kopiwatch import __version__
from kopiwatch.backup.access import WorkerPlan
from kopiwatch.backup.answer import failure, manifest
from kopiwatch.backup.course import Course
from kopiwatch.backup.dump.phase import Dumps
from kopiwatch.backup.earlier import held_against, last_good
from kopiwatch.backup.gate import CONFIG_NAME, GatedKopia, Launch, SetUp, gated
from kopiwatch.backup.house import House
from kopiwatch.backup.keep import NOTHING, Kept, keep
from kopiwatch.backup.plan import parents_trusted, plan_hold, worker_plan
from kopiwatch.backup.plausible import REFUSALS, hint, terms_of
from kopiwatch.backup.recipe import write_recipe
from kopiwatch.backup.result import RunResult, SourceResult, Verdict
from kopiwatch.backup.settle import make_durable
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.backup.verdict import judge, judge_source, remarks
from kopiwatch.backup.window import Window
from kopiwatch.errors import Cancelled, KopiwatchError, RunError
from kopiwatch.kopia import argv
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.tree import RECIPE, parts
from kopiwatch.task import together
from kopiwatch.units.container import Container
from kopiwatch.units.group import tree_path
from kopiwatch.units.unit import Unit
from kopiwatch.words import counted

READY_SECONDS = 300.0
SETTLE_SECONDS = 120.0
SHARED_HINT = (
    "containers that write to the same data belong into one unit (kopi.unit); or let the other "
    "mount it read-only, or leave the source out (kopi.exclude)"
)


class Run:
    """One attempt to back up one unit. Call :meth:`execute` once, with the run lock held."""

    def __init__(self, house: House, unit: Unit, rows: tuple[Container, ...], run: str) -> None:
        self.house = house
        self.unit = unit
        self.rows = rows
        self.run = run
        self.began = house.clock.now()
        self.course = Course(house, unit.name, run, self._source)
        self.window = Window(self.course, unit, HoldPlan(), paths=())
        self.dumps = Dumps(self.course, unit)
        self.result: RunResult | None = None
        self.sources: tuple[SourceResult, ...] = ()
        self.snapshot: Snapshot | None = None
        self.last_good: Snapshot | None = None
        self.terms = terms_of(unit)
        self.notes: tuple[str, ...] = ()
        self.launched = False
        self.kept = NOTHING
        self.kopia_lost = False
        self.unrecorded: KopiwatchError | None = None
        self.settled = False
        self.left_behind: list[str] = []

    async def execute(self) -> RunResult:
        """Run all phases; never raises an error of ours, it becomes the verdict.

        Cancellation brings back what is down, settles the verdict, and is raised on.
        """
        try:
            limit = self.house.run_timeout.total_seconds()
            with self.course.deadline(limit, "the run took longer than KOPIWATCH_RUN_TIMEOUT"):
                plan, trusted = await self._check()
                await self.dumps.take()
                async with (
                    self.house.access.open(plan) as session,
                    gated(self.unit.name, session) as kopia,
                ):
                    try:
                        await self._ready(kopia, plan, trusted=trusted)
                        await self.window.open(kopia, self._window_limit)
                        await self._flush(kopia)
                    finally:
                        await self._end_kopia(kopia)
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
        elif reason in REFUSALS:
            told = hint(self.unit.name, self.sources)
            self.result = msgspec.structs.replace(result, hint=told)
        return self.result or result

    async def _end_kopia(self, kopia: GatedKopia) -> None:
        """No Kopia lives on after a run that is no success: what it stored later would count."""
        with anyio.CancelScope(shield=True):
            await kopia.kill()
        self.kopia_lost = kopia.lost
        self.left_behind += filter(None, [kopia.remains])

    def _late(self, why: str = "it took too long", hint: str = "") -> RunError:
        return RunError(
            f"unit {self.unit.name}: the verdict could not be recorded: {why}",
            phase="report",
            reason="report",
            hint=hint,
        )

    # -- before the window ---------------------------------------------------------------------

    async def _check(self) -> tuple[WorkerPlan, bool]:
        """Nothing is touched here: whatever is wrong is found before anybody is stopped."""
        unit, house = self.unit, self.house
        with self.course.timed("check"):
            await self._refuse_debts()
            await house.state.journals.reserve()
            await house.repository.check_policy(self._source)
            earlier = await house.repository.snapshots(self._source)
            self.last_good = last_good(earlier)
            hold = await plan_hold(house.engine, unit, self.rows, own=house.own)
            # Dumps are at rest in a folder of our own: nobody writes to them in the window.
            paths = tuple(f"{self._root}/{s.path}" for s in unit.sources if s.kind != "dump")
            self.window = Window(self.course, unit, hold, paths=paths)
            await self.dumps.prepare(hold.inspected, self.last_good)
            expected = (RECIPE, *(source.path for source in unit.sources))
            folder = await write_recipe(
                house.engine,
                house.state,
                unit,
                run=self.run,
                at=self.began,
                host=house.host,
                info=house.info,
                expected=expected,
                inspected=hold.inspected,
                warnings=tuple(self._warnings()),
                plausibility=self.terms,
            )
            plan = self._plan(folder)
            await house.access.check(plan)
            names = {source.volume for source in unit.sources if source.volume}
            volumes = await together([partial(house.engine.volume, name) for name in names])
            self.window.mountpoints = {v.name: v.mountpoint for v in volumes if v is not None}
        return plan, parents_trusted(earlier, hold.reading)

    async def _refuse_debts(self) -> None:
        """What an earlier run owes is on record; a run of ours would write over it."""
        journal = await self.house.state.journals.read(self.unit.name)
        if journal is None:
            return
        names = ", ".join(member.name for member in journal.members)
        raise RunError(
            f"unit {self.unit.name}: run {journal.run} still owes "
            + (f"a start of {names}" if names else "its verdict"),
            phase="check",
            reason="owed",
            hint="see why with `docker start`; every command that changes something tries again",
        )

    def _plan(self, recipe: Path) -> WorkerPlan:
        return worker_plan(
            self.unit,
            run=self.run,
            instance=self.house.instance,
            recipe=str(recipe),
            dumps=self.dumps.mount,
        )

    @property
    def _root(self) -> str:
        return tree_path(self.unit.name, self.house.instance)

    @property
    def _source(self) -> str:
        return f"{argv.USER}@{self.house.host}:{self._root}"

    async def _ready(self, kopia: GatedKopia, plan: WorkerPlan, *, trusted: bool) -> None:
        """Kopia has opened the repository and waits at the gate."""
        house, places = self.house, self.house.access.places
        with (
            self.course.timed("ready"),
            self.course.deadline(READY_SECONDS, "Kopia did not reach the gate"),
        ):
            files = await house.repository.worker_files(
                cache_dir=f"{places.cache}/kopia",
                storage_path=f"{places.repository}/kopia" if house.repository_is_folder else None,
            )
            own = (places.cache, *([places.repository] if house.repository_is_folder else []))
            volatile = await kopia.set_up(
                SetUp(
                    base=places.base,
                    files=files,
                    expect=tuple(f"{plan.root}/{entry.path}" for entry in plan.entries),
                    sources=self.window.paths,
                    probe=own,
                    lock=f"{places.locks}/kopia.lock",
                    owner=house.owner,
                )
            )
            arguments = argv.snapshot_argv(
                f"{places.base}/{CONFIG_NAME}",
                plan.root,
                log_dir=f"{places.cache}/logs",
                tags={
                    "run": self.run,
                    "mode": self.window.hold.reading,
                    "scope": self.unit.settings.scope,
                    "version": __version__,
                },
                # A file system in memory tells nobody when a program writes by mmap.
                force_hash=not trusted or bool(volatile),
            )
            environment = house.environment | house.access.mark(plan) | {"HOME": places.base}
            # From here on there may be a manifest, so the run owes a verdict.
            await self.course.journal((), early=True)
            self.launched = True
            said = await kopia.launch(Launch((places.kopia, *arguments), environment))
            if said.say != "ready":
                raise failure(self.unit.name, said, "ready")
            if self.window.hold.reading != "stop":
                # Now, so that there is little left to be written in the window.
                await kopia.sync(self.window.paths, "ready")

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

    async def _verify(self) -> tuple[Verdict, str, str]:
        """Read the stored tree back, look at the members again, and judge."""
        with self.course.timed("verify"):
            snapshot = self.snapshot
            assert snapshot is not None  # noqa: S101 - the flush has set it or raised
            await self._confirm(snapshot)
            self.sources = await self._stored(snapshot)
            await self.window.observe()
            return judge(snapshot, self.sources, self.window.members, self.window.disturbance.text)

    async def _confirm(self, snapshot: Snapshot) -> None:
        """The manifest that Kopia named is in the repository: its word alone is not enough."""
        found = await self.house.repository.snapshots(self._source)
        if (snapshot.id, self.run) not in {(each.id, each.tag("run")) for each in found}:
            raise RunError(
                f"unit {self.unit.name}: Kopia named a snapshot that is not in the repository",
                phase="verify",
                reason="no-manifest",
            )

    async def _stored(self, snapshot: Snapshot) -> tuple[SourceResult, ...]:
        """What the tree holds of each expected source, beside what the last good one holds."""
        root = snapshot.root_entry.obj if snapshot.root_entry else ""
        tree = await parts(self.house.repository, root) if root else {}
        results = (
            judge_source(path, tree.get(path))
            for path in (RECIPE, *(source.path for source in self.unit.sources))
        )
        compared = await held_against(self.house.repository, results, self.terms, self.last_good)
        self.notes = (*remarks(compared.sources), *compared.notes)
        return compared.sources

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
            try:
                self.kept = await keep(
                    house.repository, self._source, unit.name, unit.settings, house.clock.now()
                )
            except KopiwatchError as error:
                hint = f" ({error.hint})" if error.hint else ""
                self.kept = Kept(warning=f"retention: {error.message}{hint}", failed=True)
            if self.kept.deleted:
                self.course.say(
                    "keep", f"retention deleted {counted(self.kept.deleted, 'manifest')}"
                )

    async def _settle(self, reason: str) -> str:
        """Make the verdict durable; the new id of a manifest that was pinned as bad, or empty."""
        return await make_durable(
            self.house.repository,
            self.house.state.journals,
            unit=self.unit.name,
            source=self._source,
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
            if self.launched and unrecorded is None and not self.settled:
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
        )
        return self.result

    # -- small helpers -------------------------------------------------------------------------

    def _warnings(self) -> list[str]:
        window = self.window
        told = (
            *(*self.unit.warnings, *window.hold.warnings, *window.remarks, *self.notes),
            *(window.disturbance.doubt, *self.left_behind),
        )
        return list(dict.fromkeys(filter(None, told)))
