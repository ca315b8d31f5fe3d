"""The hooks of a run's members: pre hooks as late as possible, post hooks whatever happens.

A post hook undoes what its pre hook did (a maintenance mode, a lock). So who owes one stands in the
journal before the pre hook begins, and stays there until the post hook has run.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio

from kopiwatch.backup.course import Course
from kopiwatch.backup.hook import Place, Tools, last_lines, not_run, run_hook
from kopiwatch.backup.hook_debt import owed_of, run_owed
from kopiwatch.backup.journal import OwedHook
from kopiwatch.backup.result import HookResult
from kopiwatch.backup.verdict import HOOK
from kopiwatch.errors import ContainerGone, KopiwatchError, RunError
from kopiwatch.units.hook import Hook, HookKind
from kopiwatch.units.unit import Member, Unit


class MemberHooks:
    """The hooks of one run. ``results`` are in the order in which they ran."""

    def __init__(self, course: Course, unit: Unit) -> None:
        house = course.house
        self.course = course
        self.unit = unit
        self.tools = Tools(house.engine, house.clock, house.mask)
        self.results: list[HookResult] = []
        self.notes: list[str] = []
        self._judged = False

    @asynccontextmanager
    async def around(self, sequence: Iterable[str]) -> AsyncIterator[None]:
        """Pre hooks, the block, post hooks: in the order of stops, and of starts.

        ``sequence`` are the members' ids in the order of starts. A pre hook that fails raises
        RunError, and the block is not entered. Post hooks are shielded from cancellation; each is
        bounded by its own timeout.
        """
        by_id = {member.container.id: member for member in self.unit.members}
        members = [by_id[id_] for id_ in sequence]
        members = [m for m in members if m.settings.hooks.pre or m.settings.hooks.post]
        if not members:
            yield
            return
        try:
            await self._before(members)
            yield
        except BaseException:
            with anyio.CancelScope(shield=True):
                await self._after(waits=True)
            raise
        with anyio.CancelScope(shield=True):
            await self._after(waits=False)

    def faults(self) -> tuple[str, ...]:
        """The post hooks that fail the run, in words."""
        self._judged = True
        return tuple(each.sentence for each in self._failed())

    @property
    def remarks(self) -> tuple[str, ...]:
        """Failures that are only warnings: their labels say so, or the run had failed before."""
        told = [each.sentence for each in self.results if each.reason and each.tolerated]
        if not self._judged:
            told += [each.sentence for each in self._failed()]
        return (*told, *self.notes)

    @property
    def hint(self) -> str:
        """What to do about the first one that failed."""
        return next((each.hint for each in self._failed() if each.hint), "")

    @property
    def tail(self) -> str:
        """The end of what the first one that failed has printed."""
        return next((last_lines(each.output) for each in self._failed()), "")

    def _failed(self) -> list[HookResult]:
        return [r for r in self.results if r.hook == "post" and r.reason and not r.tolerated]

    # -- before the window ---------------------------------------------------------------------

    async def _before(self, members: list[Member]) -> None:
        """Run the pre hooks; then whoever has only a post hook owes it, too."""
        owed: dict[str, OwedHook] = {}
        order = [member.container.id for member in members]

        def in_order() -> tuple[OwedHook, ...]:
            return tuple(owed[id_] for id_ in order if id_ in owed)

        if any(member.settings.hooks.pre for member in members):
            with self.course.timed("hooks-pre"):
                for member in reversed(members):
                    pre, post = member.settings.hooks.pre, member.settings.hooks.post
                    if pre is None or await self._absent(member, "pre"):
                        continue
                    if post is not None:
                        owed[member.container.id] = owed_of(member, post)
                        await self.course.owe(in_order(), early=True)
                    await self._run_pre(member, pre)
        for member in members:
            post = member.settings.hooks.post
            if not member.settings.hooks.pre and post and not await self._absent(member, "post"):
                owed[member.container.id] = owed_of(member, post)
        self.course.hooks = in_order()  # the window puts it on the disk before it stops anybody

    async def _absent(self, member: Member, kind: HookKind) -> bool:
        """Whether the member does not run, so that its hooks do not either; it is said."""
        name, engine = member.container.name, self.tools.engine
        try:
            now = await engine.inspect(member.container.id)
            why = "it is paused" if now.paused else "" if now.running else "it is not running"
        except ContainerGone:
            why = "somebody removed it"
        if why:
            at = self.tools.clock.now()
            self.results.append(not_run(kind, name, why, at, tolerated=True))
        return bool(why)

    async def _run_pre(self, member: Member, hook: Hook) -> None:
        """Run a pre hook. Raises RunError if it fails, unless its label lets it."""
        name = member.container.name
        began = self.tools.clock.now()
        self.course.say("hook", f"the pre hook in {name}")
        place = Place(member.container.id, name, self.unit.name, self.course.run)
        try:
            result = await run_hook(self.tools, place, "pre", hook)
        except BaseException as error:
            ours = isinstance(error, KopiwatchError)
            detail = f"could not be run: {error}" if ours else "was ended, as the run was cancelled"
            reason = "failed" if ours else "cancelled"
            self.results.append(HookResult("pre", name, began, reason=reason, detail=detail))
            raise
        self.results.append(result)
        if result.reason and not result.tolerated:
            raise RunError(
                f"unit {self.unit.name}: {result.sentence}",
                phase="hooks-pre",
                reason=HOOK,
                hint=result.hint,
                tail=last_lines(result.output),
            )

    # -- after the window ----------------------------------------------------------------------

    async def _after(self, *, waits: bool) -> None:
        """Run the post hooks that are owed; each is off the books as soon as it has run."""
        if not self.course.hooks:
            return
        down = {held.id for held in self.course.held}
        kept: list[OwedHook] = []
        with self.course.timed("hooks-post"):
            pending = list(self.course.hooks)
            while pending:
                owed = pending.pop(0)
                self.course.say("hook", f"the post hook in {owed.name}")
                result, over = await run_owed(
                    self.tools,
                    owed,
                    unit=self.unit.name,
                    run=self.course.run,
                    down=down,
                    waits=waits,
                )
                self.results.append(result)
                kept += [] if over else [owed]
                await self._note((*kept, *pending))

    async def _note(self, owed: tuple[OwedHook, ...]) -> None:
        try:
            await self.course.owe(owed)
        except RunError as error:
            # It has run; that it runs once more is better than that the run ends here.
            self.notes.append(f"post hooks will run once more: {error.message}")
