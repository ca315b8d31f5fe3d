"""What everybody outside expects of each container, and what has been seen to break a promise."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kopiwatch.backup.journal import Held
from kopiwatch.backup.result import RunResult
from kopiwatch.kopia.tree import RECIPE
from kopiwatch.restore.point import Point, points

if TYPE_CHECKING:
    from support.machine.world import World

Expected = Literal["running", "down", "gone", "any"]
BLINK_SECONDS = 0.05
"""Between a look and the start that follows from it: what happens in there, nobody can know."""
MODES = ("stop",)
"""What kopi.mode may be in this version; the machine draws from it."""


@dataclass(frozen=True)
class MemberSpec:
    """One container as it is before anything happens.

    ``health``: none, good, sick (it was healthy and will not be again after a start), or bad (it
    is unhealthy). ``loops``: it crashes again and again, and Docker restarts it. ``hooks``: it has
    a pre hook and a post hook.
    """

    name: str
    unit: str = "shop"
    state: str = "running"
    policy: str = "no"
    health: str = "none"
    stop_seconds: float = 0.2
    needs: str = ""
    loops: bool = False
    mode: str = "stop"
    hooks: bool = False


@dataclass
class Slot:
    """A place that a container takes; somebody may put another one there.

    ``expect`` is what everybody but kopiwatch wants of it, ``any`` where nobody could tell.
    ``begun``: a stop of ours has reached it. ``back``: we have started it since. ``taken`` is the
    StartedAt with which somebody else took over while we held it down. ``found_down``: our stop was
    told that it was down already. ``unknown``: somebody restarted it after the journal was written,
    before our stop.
    ``former`` is the id of the container that stood here before.
    """

    spec: MemberSpec
    id: str
    expect: Expected
    begun: bool = False
    back: bool = False
    taken: object = None
    found_down: bool = False
    unknown: bool = False
    former: str = ""
    ended_at: float = 0.0


class Oracle:
    """Keeps the expectations, and checks the promises. ``wrong`` lists what broke them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.slots: list[Slot] = []
        self.wrong: list[str] = []
        self.results: dict[str, RunResult] = {}
        self.judged: dict[str, tuple[str, ...]] = {}

    def slot(self, container: str) -> Slot | None:
        return next((slot for slot in self.slots if slot.id == container), None)

    def held(self, container: str) -> Held | None:
        """What a journal on the disk says of this container, or of whom it succeeds."""
        row = self.world.engine.all[container].row if container in self.world.engine.all else None
        for journal in self.world.journals().values():
            for member in journal.members:
                if member.id == container:
                    return member
                identity = (member.project, member.service, member.number)
                if row is not None and (
                    identity == (row.project, row.service, row.number)
                    if member.service
                    else member.name == row.name
                ):
                    return member
        return None

    # -- what we do ----------------------------------------------------------------------------

    def witness(self, operation: str, target: str) -> None:
        """A call is about to have its effect; it must be allowed."""
        now = self.world.time.passed
        name = next((s.spec.name for s in self.slots if s.id == target), target[:12])
        slot = self.slot(target)
        if operation in ("stop", "pause"):
            member = self.held(target)
            if member is None or member.id != target or member.how != operation:
                self.wrong.append(f"P1: {operation} of {name}, which no journal on the disk names")
            for successor in self.slots:
                # Recreated between our last look and the journal: nobody can know that.
                if successor.former == target and successor.expect == "down":
                    successor.expect = "any"
            if slot is not None:
                slot.begun, slot.back, slot.taken = True, False, None
                ran = self.world.engine.all[target].details.started_at
                slot.unknown = member is not None and member.started_at != ran
        elif operation in ("start", "unpause"):
            if self.held(target) is None:
                self.wrong.append(f"P1: {operation} of {name}, which no journal holds")
            for kopia in self.world.kopia.alive():
                # Where Docker will not end it, coming back goes before a read that counts nothing.
                if kopia.phase == "reading" and kopia.worker.id not in self.world.engine.unremoved:
                    self.wrong.append(f"P1: {operation} of {name} while a Kopia still reads")
            if slot is not None:
                slot.back = True
                if slot.expect == "down" and now - slot.ended_at < BLINK_SECONDS:
                    slot.expect = "any"

    def found_down(self, container: str) -> None:
        """A stop of ours was told 304."""
        if (slot := self.slot(container)) is not None:
            slot.found_down = True

    def ended(self, *, calm: bool, died: bool) -> None:
        """A process has ended; ``calm``: Docker and the disk did all it asked, and no signal.

        A journal that names another StartedAt than that of our stop, because we died before we
        could write it again, does not tell whether somebody came before or after us.
        """
        for slot in self.slots:
            held = self.held(slot.id)
            ran = self.world.engine.all[slot.id].details if slot.id else None
            if died and slot.unknown and held and ran and held.started_at != ran.started_at:
                by_itself = ran.restart_count > held.restarts
                slot.expect = slot.expect if by_itself else "any"
            slot.unknown = False
            slot.begun = slot.begun and held is not None
            if slot.found_down and slot.expect == "any" and calm:
                slot.expect = "down"
            slot.found_down = False

    # -- what others do ------------------------------------------------------------------------

    def stopped(self, slot: Slot) -> None:
        """Somebody stops it, or it ends for good by itself; it ran until now."""
        held = self.held(slot.id)
        taken = held is not None and slot.taken is not None and slot.taken != held.started_at
        if held is not None and taken:
            # Its policy restarted it since: who looks later takes that for a restart of before.
            count = self.world.engine.all[slot.id].details.restart_count
            taken = count <= held.restarts
        slot.expect = "any" if held is not None and not taken else "down"
        slot.ended_at = self.world.time.passed

    def started(self, slot: Slot) -> None:
        """Somebody else has started it."""
        slot.expect = "running"
        if self.held(slot.id) is not None:
            slot.taken = self.world.engine.all[slot.id].details.started_at

    def removed(self, slot: Slot) -> None:
        slot.expect, slot.id, slot.taken = "gone", "", None

    def recreated(self, slot: Slot, former: str, *, was_held: bool, running: bool) -> None:
        """There is a new container in this place."""
        if running:
            slot.expect = "running"
        else:
            # Who was held down runs again as its successor, if we were still to start it.
            ours = slot.begun and not slot.back
            slot.expect = ("running" if ours else "any") if was_held else "down"
        slot.back, slot.taken, slot.former = False, None, former

    # -- the promises --------------------------------------------------------------------------

    def complete(self) -> dict[str, Point]:
        """The restore points that count as complete now, by run."""
        unfinished = {j.run for j in self.world.journals().values() if not j.judged}
        snapshots = self.world.repository.real.contents.snapshots
        return {p.run: p for p in points(snapshots, unfinished=unfinished) if p.complete}

    def down(self, unit: str) -> tuple[str, ...]:
        """The members of a unit that should run and do not."""
        engine = self.world.engine
        return tuple(
            slot.spec.name
            for slot in self.slots
            if slot.spec.unit == unit and slot.expect == "running"
            if slot.id not in engine.all or not engine.all[slot.id].row.running
        )

    def concluded(self, run: str, result: RunResult, members: Iterable[str]) -> None:
        """A run has returned; ``members`` were in the unit as it began, each with its volume."""
        self.results[run] = result
        if result.verdict != "success":
            return
        if down := self.down(result.unit):
            self.wrong.append(f"P2: success of {run}, but {down} is down")
        if sick := [member.name for member in result.members if member.healthy is False]:
            self.wrong.append(f"P2: success of {run}, but {sick} is not healthy")
        paths = {RECIPE, *(f"volumes/{name}" for name in members)}
        if paths - {source.path for source in result.sources if not source.reason}:
            self.wrong.append(f"P2: success of {run}, but {paths} are not all there")
        if run not in self.complete():
            self.wrong.append(f"P2: success of {run}, but its point does not count as complete")

    def verdict_written(self, unit: str, run: str) -> None:
        """The journal says from now on that the verdict is durable."""
        self.judged.setdefault(run, self.down(unit))

    def check_points(self) -> None:
        """P2, at any time: what counts is what was earned, and what was earned counts."""
        complete = self.complete()
        for run in complete:
            truth = self.world.kopia.truths[run]
            result = self.results.get(run)
            if not truth.good:
                why = truth.flawed or f"disturbed by {sorted(truth.disturbed)}"
                self.wrong.append(f"P2: the point of {run} counts as complete and was {why}")
            if result is not None and result.verdict != "success":
                why = f"{result.verdict} ({result.reason})"
                self.wrong.append(f"P2: the point of {run} counts as complete, its run was {why}")
            if result is None and run not in self.judged:
                self.wrong.append(f"P2: the point of {run} counts as complete without a verdict")
            if result is None and self.judged.get(run):
                why = f"{self.judged[run]} was down"
                self.wrong.append(f"P2: the point of {run} counts as complete, but {why}")
        for run, result in self.results.items():
            if result.verdict == "success" and run not in complete:
                self.wrong.append(f"P3: the good point of {run} is lost or called bad")

    def check_members(self) -> None:
        """P1, when all is over."""
        engine = self.world.engine
        for slot in self.slots:
            row = engine.all[slot.id].row if slot.id in engine.all else None
            now = "gone" if row is None else "running" if row.running else "down"
            if slot.expect not in ("any", now):
                self.wrong.append(f"P1: {slot.spec.name} should be {slot.expect} and is {now}")

    def check_hooks(self) -> None:
        """When all is over: a post hook has run after each pre hook that began.

        Who was cut off as the pre hook was about to begin cannot know whether it did.
        """
        ran: dict[tuple[str, str], list[str]] = {}
        for each in self.world.engine.execs:
            if hook := each.env.get("KOPIWATCH_HOOK"):
                ran.setdefault((each.container, each.env["KOPIWATCH_RUN"]), []).append(hook)
        for (name, run), hooks in ran.items():
            result = self.results.get(run)
            good = result is not None and result.verdict == "success"
            if hooks.count("pre") > 1 or hooks[-1] != "post" or (good and len(hooks) != 2):
                self.wrong.append(f"hooks of {name} in {run}: {hooks}")

    def check_left_over(self) -> None:
        """Nothing of ours is left when all is over."""
        for row in (each.row for each in self.world.engine.all.values()):
            if row.worker:
                self.wrong.append(f"left over: worker {row.name}")
        for unit, journal in self.world.journals().items():
            self.wrong.append(f"left over: the journal of {unit}: {journal}")
