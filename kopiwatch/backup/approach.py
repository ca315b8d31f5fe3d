"""The strategy of one run at work: probed and chosen, warmed up, staged, cleared away.

Whatever goes wrong with it ends at the gate on the live path, which needs nothing of it. Only what
a label asks for and the file system cannot do fails the run, before anybody is stopped.
"""

from __future__ import annotations

from collections.abc import Iterable

import anyio
import msgspec

from kopiwatch.backup.access import WorkerPlan
from kopiwatch.backup.course import Course
from kopiwatch.backup.gate import GatedKopia, Launch
from kopiwatch.backup.result import PhaseTime
from kopiwatch.backup.strategy import (
    DEFAULT_RATE,
    GIB,
    Choice,
    Impossible,
    SourceFacts,
    StageFacts,
    choose,
    measured_rate,
    worth_a_clone,
)
from kopiwatch.backup.survey import Survey
from kopiwatch.errors import KopiwatchError, RunError
from kopiwatch.kopia.port import Repository
from kopiwatch.units.unit import Source, Unit
from kopiwatch.words import counted, seconds, size

LABEL = "kopi.strategy"
CLEAN_SECONDS = 120.0


class Clonable(msgspec.Struct, frozen=True):
    """Whether a source can be cloned into a stage, and why not."""

    path: str
    clonable: bool
    why: str = ""


class Probed(msgspec.Struct, frozen=True):
    """One stage, as the worker found it. ``free`` and ``total`` are bytes."""

    stage: str
    writable: bool
    why: str = ""
    free: int = 0
    total: int = 0
    sources: tuple[Clonable, ...] = ()


class ProbedStages(msgspec.Struct, frozen=True):
    """The answer to ``probe-stage``."""

    stages: tuple[Probed, ...] = ()


class Staged(msgspec.Struct, frozen=True):
    """What came of one pass: files in the stage, and how many of them this pass made."""

    files: int = 0
    bytes: int = 0
    fresh: int = 0
    seconds: float = 0.0


class Approach:
    """What one run does to keep its window short. ``choice`` is what was chosen last, and why.

    ``notes`` are warnings for the result. Call :meth:`choose`, then :meth:`warm`, before the
    window; :meth:`stage` in it; :meth:`clear` and :meth:`prune` afterwards.
    """

    def __init__(self, course: Course, unit: Unit) -> None:
        self.course = course
        self.unit = unit
        self.choice = Choice("", "")
        self.notes: list[str] = []
        self._plan: WorkerPlan | None = None
        self._stage: StageFacts | None = None
        self._facts: dict[str, SourceFacts] = {}
        self._warmed = False

    @property
    def warmed(self) -> bool:
        """A hot pass was begun, which leaves a manifest of its own."""
        return self._warmed

    @property
    def root(self) -> str:
        """What Kopia reads in place of the live tree; empty where it reads that."""
        return self.choice.stage

    @property
    def unstaged(self) -> tuple[Source, ...]:
        """The sources that Kopia reads where they lie, though there is a stage."""
        staged = {*self.choice.cloned, *self.choice.copied}
        return tuple(source for source in self.unit.sources if source.path not in staged)

    # -- before the window ---------------------------------------------------------------------

    async def choose(
        self,
        kopia: GatedKopia,
        plan: WorkerPlan,
        survey: Survey,
        *,
        held: bool,
        rate: float = DEFAULT_RATE,
    ) -> None:
        """Probe what there is to be probed, and choose. Raises RunError for an impossible label."""
        label = self.unit.settings.strategy
        facts = tuple(
            SourceFacts(
                path=each.path,
                files=each.files,
                size=each.bytes,
                changed_files=each.changed_files,
                changed_size=each.changed_bytes,
                written=each.path in plan.written,
            )
            for each in survey.sources
        )
        await self._clear_old(kopia, plan)
        wanted = held and worth_a_clone(label, facts, rate)
        stages = await self._probe(kopia, plan) if wanted and plan.stages else ()
        chosen = choose(label, facts, stages, held=held, rate=rate)
        if isinstance(chosen, Impossible):
            reason = "; ".join([chosen.reason, *self.notes])
            raise RunError(
                f"unit {self.unit.name}: {self._carrier}{LABEL}={label}: {reason}",
                phase="check",
                reason="strategy",
                hint=chosen.hint,
            )
        self._plan = plan
        self._facts = {each.path: each for each in facts}
        self._stage = next((each for each in stages if each.root == chosen.stage), None)
        self._take(chosen)

    async def _clear_old(self, kopia: GatedKopia, plan: WorkerPlan) -> None:
        """Delete what a run that was killed has left in folders of the operator.

        Whatever the strategy will be: it takes room there, which may be why there is no clone.
        """
        stages = [stage for stage in plan.stages if not stage.own]
        if not stages:
            return
        try:
            roots = [stage.root for stage in stages]
            await kopia.ask("unstage", "check", "unstaged", stages=roots)
        except RunError as error:
            if error.reason == "worker-lost":
                raise
            names = ", ".join(stage.name for stage in stages)
            self.notes.append(
                f"what an earlier run may have staged in {names} is left behind: "
                f"{self._words(error)}"
            )

    @property
    def _carrier(self) -> str:
        """The container whose label it is, where it is a label."""
        for member in self.unit.members:
            for each in member.effective:
                if each.label == LABEL and each.origin == "label":
                    return f"{member.container.name}: "
        return ""

    def _take(self, chosen: Choice) -> None:
        self.choice = chosen
        if chosen.warning:
            self.notes.append(f"{LABEL}: {chosen.warning}")
        self.course.say("strategy", f"{chosen.strategy}: {chosen.reason}")

    async def _probe(self, kopia: GatedKopia, plan: WorkerPlan) -> tuple[StageFacts, ...]:
        live = {f"{plan.root}/{path}": path for path in sorted(plan.written)}
        answer = await kopia.ask(
            "probe-stage",
            "check",
            "probed",
            stages=[stage.root for stage in plan.stages],
            sources=[{"path": path} for path in live],
        )
        names = {stage.root: stage.name for stage in plan.stages}
        found = []
        for probed in msgspec.json.decode(answer, type=ProbedStages).stages:
            name = names[probed.stage]
            if not probed.writable:
                self.notes.append(f"the stage {name} cannot be used: {probed.why}")
                continue
            refused = {live[s.path]: s.why for s in probed.sources if not s.clonable}
            found.append(StageFacts(probed.stage, name, probed.free, probed.total, refused))
        return tuple(found)

    async def warm(self, kopia: GatedKopia, hot: Launch) -> None:
        """What can be done while everybody runs: the hot pass (``hot``), or the first clone."""
        if self.choice.strategy not in ("hot", "clone", "copy"):
            return
        with self.course.timed("hot"):
            if self.choice.strategy == "hot":
                await self._hot_pass(kopia, hot)
            else:
                await self._first_pass(kopia)

    async def _hot_pass(self, kopia: GatedKopia, hot: Launch) -> None:
        """Its exit code is its own: nothing of it counts but what it has uploaded."""
        self._warmed = True
        try:
            said = await kopia.warm(hot)
        except RunError as error:
            if error.reason == "worker-lost":
                raise
            self.notes.append(f"the hot pass was not possible: {self._words(error)}")
            return
        if said.code != 0:
            last = said.err.strip().rpartition("\n")[2]
            self.notes.append(
                f"the hot pass did not read everything (exit code {said.code}): {last}"
            )

    async def _first_pass(self, kopia: GatedKopia) -> None:
        try:
            answer = await kopia.ask("pre-stage", "hot", "pre-staged", **self._order)
        except RunError as error:
            await self.fall_back(error)
            return
        self._tell(answer, "staged")

    @property
    def _order(self) -> dict[str, object]:
        plan, choice = self._plan, self.choice
        assert plan is not None  # noqa: S101 - chosen before
        how = dict.fromkeys(choice.cloned, "clone") | dict.fromkeys(choice.copied, "copy")
        parts = [
            {"source": f"{plan.root}/{path}", "target": path, "how": how[path]}
            for path in sorted(how)
        ]
        return {"stage": choice.stage, "parts": parts, "reserve": self._reserve}

    @property
    def _reserve(self) -> int:
        """Bytes below which the stage is given up, so that applications do not run out of room."""
        if self._stage is None:
            return 0
        copied = sum(self._facts[path].size for path in self.choice.copied)
        return min(max(self._stage.total // 20, GIB), max(0, self._stage.free - copied) // 2)

    def _tell(self, answer: msgspec.Raw, what: str) -> None:
        done = msgspec.json.decode(answer, type=Staged)
        self.course.say(
            "stage",
            f"{what} {counted(done.fresh, 'file')} of {done.files} ({size(done.bytes)}) "
            f"in {seconds(done.seconds)}",
        )

    def check(self, kopia: GatedKopia) -> None:
        """Fall back if the stage was dropped meanwhile."""
        if self.root and kopia.dropped:
            self._fall(f"its stage was dropped: {kopia.dropped}")

    # -- in the window -------------------------------------------------------------------------

    def unflushed(self, paths: tuple[str, ...]) -> tuple[str, ...]:
        """Those of the sources' places whose pages must be written back while they are frozen.

        A program that maps a file goes on writing into pages that are dirty already without its
        times changing. A clone flushes and write-protects what it is made of; a copy does not, and
        neither does Kopia.
        """
        if not self.root or self._plan is None:
            return paths
        return tuple(f"{self._plan.root}/{path}" for path in self.choice.copied)

    async def stage(self, kopia: GatedKopia) -> bool:
        """Bring the stage up to date; False if there is none, or it fails: read the live tree."""
        self.check(kopia)
        if not self.root:
            return False
        try:
            answer = await kopia.ask("stage", "read", "staged")
        except RunError as error:
            if error.reason == "worker-lost":
                raise
            await self.fall_back(error)
            return False
        self._tell(answer, "brought up to date")
        return True

    async def fall_back(self, error: RunError) -> None:
        """Go on with the gate on the live path."""
        self._fall(self._words(error))

    def _fall(self, why: str) -> None:
        was = self.choice.strategy
        warning = f"the {was} failed, and the gate was used instead: {why}"
        self._take(Choice("gate", f"the {was} failed: {why}", warning=warning))

    def _words(self, error: KopiwatchError) -> str:
        return error.message.removeprefix(f"unit {self.unit.name}: ")

    # -- afterwards ----------------------------------------------------------------------------

    async def clear(self, kopia: GatedKopia) -> None:
        """Delete what lies in folders of the operator; our own volume is removed as a whole."""
        stages = [stage.root for stage in self._plan.stages if not stage.own] if self._plan else []
        if not stages or self._stage is None or self._stage.root not in stages:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(CLEAN_SECONDS) as scope:
            try:
                await kopia.ask("unstage", "flush", "unstaged", stages=[self._stage.root])
            except KopiwatchError as error:
                self.notes.append(
                    f"what was staged in {self._stage.name} is left behind: {self._words(error)}; "
                    "the next run of this unit deletes it"
                )
        if scope.cancelled_caught:
            self.notes.append(f"deleting what was staged in {self._stage.name} takes too long")

    def measured(self, times: Iterable[PhaseTime]) -> float:
        """How fast this run has uploaded, in bytes per second; 0 where it does not tell."""
        # What a hot pass has uploaded is not uploaded again.
        phases = ("hot",) if self.choice.strategy == "hot" else ("read", "flush")
        taken = sum(time.seconds for time in times if time.phase in phases)
        return measured_rate(self._facts.values(), taken)

    async def prune(self, repository: Repository, source: str) -> None:
        """Keep only the newest manifest of the hot pass (``source`` is its identity)."""
        if not self._warmed:
            return
        found = await repository.snapshots(source)
        newest = max((s.start_time for s in found), default=None)
        await repository.delete(tuple(s.id for s in found if s.start_time != newest))
