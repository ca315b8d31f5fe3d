"""One run of one unit: the phases in the order in which they happen, with undo beside do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import anyio
import msgspec

from kopiwatch import __version__
from kopiwatch.backup.access import WorkerPlan
from kopiwatch.backup.answer import failure, manifest
from kopiwatch.backup.bringing import (
    bring_back,
    longest_stop,
    still_running,
    wait_all_healthy,
    watch,
)
from kopiwatch.backup.gate import CONFIG_NAME, GatedKopia, Launch, SetUp, gated
from kopiwatch.backup.house import House
from kopiwatch.backup.interference import interference, taken_over
from kopiwatch.backup.journal import Held, Journal
from kopiwatch.backup.plan import parents_trusted, plan_hold, worker_plan
from kopiwatch.backup.recipe import write_recipe
from kopiwatch.backup.result import MemberResult, Phase, PhaseTime, RunResult, SourceResult, Verdict
from kopiwatch.backup.settle import make_durable
from kopiwatch.backup.stopping import HoldPlan, Stopping, as_stopped, refresh, stop_level
from kopiwatch.backup.verdict import judge, judge_source
from kopiwatch.errors import Cancelled, EngineError, KopiwatchError, RunError
from kopiwatch.kopia import argv
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.tree import RECIPE, parts
from kopiwatch.task import deadline, together
from kopiwatch.units.container import Container
from kopiwatch.units.unit import Unit

READY_SECONDS = 300.0
FLUSH_SECONDS = 3600.0
OBSERVE_SECONDS = 2.0
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
        self.phases: list[PhaseTime] = []
        self.phase: Phase = "check"
        self.hold = HoldPlan()
        self.stopping = Stopping()
        self.mountpoints: dict[str, str] = {}
        self.result: RunResult | None = None
        self.members: tuple[MemberResult, ...] = ()
        self.sources: tuple[SourceResult, ...] = ()
        self.snapshot: Snapshot | None = None
        self.window = 0.0
        self.launched = False
        self.kopia_lost = False
        self.interference = ""
        self.undisturbed = False
        self.up_at = 0.0

    async def execute(self) -> RunResult:
        """Run all phases; never raises an error of ours, it becomes the verdict.

        Cancellation brings back what is down, settles the verdict, and is raised on.
        """
        try:
            plan, trusted = await self._check()
            async with (
                self.house.access.open(plan) as session,
                gated(self.unit.name, session) as kopia,
            ):
                try:
                    await self._ready(kopia, plan, trusted=trusted)
                    await self._window(kopia)
                    await self._flush(kopia)
                except BaseException:
                    await self._end_kopia(kopia)
                    raise
            verdict, reason, message = await self._verify()
        except KopiwatchError as error:
            return await self._end_badly(error)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True), anyio.move_on_after(SETTLE_SECONDS):
                await self._end_badly(
                    Cancelled(
                        f"unit {self.unit.name}: cancelled", phase=self.phase, reason="cancelled"
                    )
                )
            raise
        # The verdict is known: a signal that comes now does not change it.
        with anyio.CancelScope(shield=True), anyio.move_on_after(SETTLE_SECONDS):
            await self._report(verdict, reason, message)
        result = self.result
        if result is None:
            return await self._end_badly(self._late())
        if reason == "interference":
            self.result = msgspec.structs.replace(result, hint=SHARED_HINT)
        return self.result or result

    async def _end_kopia(self, kopia: GatedKopia) -> None:
        """No Kopia lives on after a run that is no success: what it stored later would count."""
        with anyio.CancelScope(shield=True):
            try:
                await kopia.kill()
            except EngineError:
                self.kopia_lost = True

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
        with self._timed("check"):
            await self._refuse_debts()
            await house.repository.check_policy(self._source)
            earlier = await house.repository.snapshots(self._source)
            self.hold = await plan_hold(house.engine, unit, self.rows, own=house.own)
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
                inspected=self.hold.inspected,
                warnings=tuple(self._warnings()),
            )
            plan = self._plan(folder)
            await house.access.check(plan)
            names = {source.volume for source in unit.sources if source.volume}
            volumes = await together([partial(house.engine.volume, name) for name in names])
            self.mountpoints = {v.name: v.mountpoint for v in volumes if v is not None}
        return plan, parents_trusted(earlier)

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
            self.unit, run=self.run, instance=self.house.instance, recipe=str(recipe)
        )

    @property
    def _root(self) -> str:
        return self._plan(Path("/")).root

    @property
    def _source(self) -> str:
        return f"{argv.USER}@{self.house.host}:{self._root}"

    async def _ready(self, kopia: GatedKopia, plan: WorkerPlan, *, trusted: bool) -> None:
        """Kopia has opened the repository and waits at the gate."""
        house, places = self.house, self.house.access.places
        with self._timed("ready"), self._deadline(READY_SECONDS, "Kopia did not reach the gate"):
            files = await house.repository.worker_files(
                cache_dir=f"{places.cache}/kopia",
                storage_path=f"{places.repository}/kopia" if house.repository_is_folder else None,
            )
            own = (places.cache, *([places.repository] if house.repository_is_folder else []))
            await kopia.set_up(
                SetUp(
                    base=places.base,
                    files=files,
                    expect=tuple(f"{plan.root}/{entry.path}" for entry in plan.entries),
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
                    "mode": "stop",
                    "scope": self.unit.settings.scope,
                    "version": __version__,
                },
                force_hash=not trusted,
            )
            environment = house.environment | house.access.mark(plan) | {"HOME": places.base}
            # From here on there may be a manifest, so the run owes a verdict.
            await self._journal(HoldPlan())
            self.launched = True
            said = await kopia.launch(Launch((places.kopia, *arguments), environment))
            if said.say != "ready":
                raise failure(self.unit.name, said, "ready")

    # -- the window ----------------------------------------------------------------------------

    async def _window(self, kopia: GatedKopia) -> None:
        """Stop, one read, start. Whatever happens, what was stopped is started."""
        self.hold = await refresh(self.house.engine, self.hold)
        kopia.check_waiting()
        await self._journal(self.hold)
        opened = self.house.clock.seconds()
        try:
            limit = self.unit.settings.window_timeout.total_seconds()
            with self._deadline(limit, "the window took longer than kopi.window-timeout"):
                await self._stop()
                await self._read(kopia)
        except BaseException:
            # No second writer beside a living Kopia: it is dead before the first start.
            with anyio.CancelScope(shield=True):
                await kopia.kill()
            raise
        finally:
            with anyio.CancelScope(shield=True):
                await self._start()
            # Downtime lasts until the last start has returned, and then until all are healthy.
            self.window = max(0.0, self.up_at - opened)
        await kopia.flush()
        if self.hold.held:
            await self._health()
            self.up_at = self.house.clock.seconds()
            self.window = self.up_at - opened

    async def _stop(self) -> None:
        if not self.hold.held:
            return
        names = ", ".join(stop.name for level in self.hold.levels for stop in level)
        self._say("stop", f"stopping {names}")
        with self._timed("stop"):
            for level in self.hold.levels:
                await stop_level(self.house.engine, level, self.stopping)
                seen = as_stopped(self.hold, self.stopping)
                if seen.held != self.hold.held:
                    # It was down before our stop came, or restarted by itself: for the record.
                    await self._journal(seen)
                    self.hold = seen

    async def _read(self, kopia: GatedKopia) -> None:
        with self._timed("read"):
            said = await kopia.read()
            if said.say != "read":
                raise failure(self.unit.name, said, "read")
            self.interference = await interference(
                self.house.engine, self.unit, self.hold, self.mountpoints, self.house.own
            )
            self.undisturbed = not self.interference

    async def _start(self) -> None:
        """Bring back exactly what we stopped; the journal keeps whoever does not come."""
        engine, clock, stopping = self.house.engine, self.house.clock, self.stopping
        held = [member for member in self.hold.held if member.id in stopping.begun]
        held = [member for member in held if member.id not in stopping.not_ours]
        theirs = set() if self.undisturbed else await taken_over(engine, held)
        held = [member for member in held if member.id not in theirs]
        if held:
            with self._timed("start"):
                self.members = await bring_back(engine, held, clock)
                self.up_at = clock.seconds()
                await self._watch(held)
        failed = {member.name for member in self.members if member.state == "failed"}
        still = tuple(member for member in held if member.name in failed)
        await self._journal(msgspec.structs.replace(self.hold, held=still))
        for member in self.members:
            if member.state == "failed":
                self._say("start-failed", f"{member.name} does not start: {member.detail}")

    async def _watch(self, held: list[Held]) -> None:
        """Undo the stops that Docker still carries out after our call for them was cut off."""
        uncertain = [member for member in held if member.id in self.stopping.uncertain]
        if not uncertain:
            return
        names = ", ".join(member.name for member in uncertain)
        seconds = longest_stop(uncertain)
        self._say("watch", f"up to {seconds:.0f} s more: Docker may still be stopping {names}")
        before = self.members
        self.members = await watch(
            self.house.engine,
            held,
            before,
            self.house.clock,
            watched=self.stopping.uncertain,
            seconds=seconds,
        )
        if self.members != before:
            self.up_at = self.house.clock.seconds()

    async def _health(self) -> None:
        """Who was healthy must be healthy again; Kopia writes meanwhile."""
        with self._timed("health"):
            self.members = await wait_all_healthy(
                self.house.engine, self.hold.held, self.members, self.house.clock
            )

    # -- after the window ----------------------------------------------------------------------

    async def _flush(self, kopia: GatedKopia) -> None:
        """Kopia writes what it read, then the manifest."""
        with self._timed("flush"), self._deadline(FLUSH_SECONDS, "Kopia did not end in time"):
            said = await kopia.finish()
            if said.code != 0 or said.killed:
                raise failure(self.unit.name, said, "flush")
            self.snapshot = manifest(self.unit.name, said)

    async def _verify(self) -> tuple[Verdict, str, str]:
        """Read the stored tree back, look at the members again, and judge."""
        with self._timed("verify"):
            snapshot = self.snapshot
            assert snapshot is not None  # noqa: S101 - the flush has set it or raised
            self.sources = await self._stored(snapshot)
            if self.hold.held:
                since = self.house.clock.seconds() - self.up_at
                await self.house.clock.sleep(max(0.0, OBSERVE_SECONDS - since))
                self.members = await still_running(self.house.engine, self.hold.held, self.members)
            if self.interference:
                return "partial", "interference", self.interference
            return judge(snapshot, self.sources, self.members)

    async def _stored(self, snapshot: Snapshot) -> tuple[SourceResult, ...]:
        """What the tree holds of each expected source, read from the repository."""
        root = snapshot.root_entry.obj if snapshot.root_entry else ""
        tree = await parts(self.house.repository, root) if root else {}
        results = (
            judge_source(path, tree.get(path))
            for path in (RECIPE, *(source.path for source in self.unit.sources))
        )
        return tuple(results)

    async def _end_badly(self, error: KopiwatchError) -> RunResult:
        reason = error.reason if isinstance(error, RunError) else error.code
        message = error.message.removeprefix(f"unit {self.unit.name}: ")
        result = await self._report("failed", reason, message)
        self.result = msgspec.structs.replace(
            result, hint=error.hint, tail=error.tail, exit_code=error.exit_code
        )
        return self.result

    async def _report(self, verdict: Verdict, reason: str, message: str) -> RunResult:
        """Make the verdict durable, then clear what the journal no longer owes."""
        warnings = self._warnings()
        identity = self.snapshot.id if self.snapshot else ""
        unrecorded: KopiwatchError | None = None
        with self._timed("report"):
            if self.launched:
                try:
                    pinned = await make_durable(
                        self.house.repository,
                        self.house.state.journals,
                        unit=self.unit.name,
                        source=self._source,
                        run=self.run,
                        reason=reason,
                        ended=not self.kopia_lost,
                    )
                    identity = pinned or identity
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
            window=self.window,
            phases=tuple(self.phases),
            sources=self.sources,
            members=self.members,
            warnings=tuple(warnings),
            exit_code=0 if verdict == "success" else 1,
            data_at=self.snapshot.start_time if self.snapshot else None,
        )
        return self.result

    # -- small helpers -------------------------------------------------------------------------

    def _warnings(self) -> list[str]:
        return list(dict.fromkeys((*self.unit.warnings, *self.hold.warnings)))

    async def _journal(self, plan: HoldPlan) -> None:
        await self.house.state.journals.write(
            Journal(self.unit.name, self.run, self.house.clock.now(), self._source, plan.held)
        )

    def _say(self, action: str, message: str, **facts: object) -> None:
        self.house.listener.say(action, f"{self.unit.name}: {message}", **facts)

    @contextmanager
    def _timed(self, phase: Phase) -> Iterator[None]:
        self.phase = phase
        began, start = self.house.clock.now(), self.house.clock.seconds()
        self.house.listener.say("phase", phase, unit=self.unit.name, run=self.run)
        try:
            yield
        finally:
            self.phases.append(PhaseTime(phase, began, self.house.clock.seconds() - start))

    def _deadline(self, seconds: float, sentence: str) -> AbstractContextManager[None]:
        def late() -> RunError:
            return RunError(
                f"unit {self.unit.name}: {sentence} ({timedelta(seconds=seconds)})",
                phase=self.phase,
                reason="deadline",
            )

        return deadline(seconds, late)
