"""Post hooks that are owed: run by the run itself, or by whoever finds them in its journal."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from functools import partial

import msgspec

from kopiwatch.backup.bringing import is_successor
from kopiwatch.backup.hook import Place, Tools, end_hook, not_run, run_hook
from kopiwatch.backup.journal import Journal, JournalStore, OwedHook
from kopiwatch.backup.result import HookResult
from kopiwatch.clock import Clock
from kopiwatch.engine.health import wait_healthy
from kopiwatch.engine.port import Engine
from kopiwatch.errors import ContainerGone, EngineError, RunError
from kopiwatch.task import outcomes
from kopiwatch.units.hook import Hook
from kopiwatch.units.unit import Member


def owed_of(member: Member, hook: Hook) -> OwedHook:
    """The post hook of a member, as the journal keeps it."""
    row = member.container
    return OwedHook(
        id=row.id,
        name=row.name,
        project=row.project,
        service=row.service,
        number=row.number,
        command=hook.command,
        user=hook.user,
        timeout=hook.timeout.total_seconds(),
        tolerated=hook.on_error == "continue",
    )


async def run_owed(
    tools: Tools, owed: OwedHook, *, unit: str, run: str, down: Collection[str], waits: bool
) -> tuple[HookResult, bool]:
    """Run a post hook; its result, and whether it is owed no more.

    It stays owed while Docker cannot be asked, and while its container is in ``down`` (ids):
    whoever brings that back runs it. A container that somebody else stopped or removed is past
    help. ``waits``: nobody has seen the container healthy since, so that is waited for, no longer
    than the hook itself may take.
    """
    began = tools.clock.now()
    missed = partial(not_run, "post", owed.name, at=began, tolerated=owed.tolerated)
    try:
        place = await _place(tools.engine, owed, unit, run)
        if isinstance(place, str):
            return missed(place), owed.id not in down
        if waits:
            await _health(tools, place, owed.timeout)
        return await run_hook(tools, place, "post", _hook(owed)), True
    except ContainerGone:
        return missed("somebody removed it"), True
    except EngineError as error:
        return missed(error.message), False


def _hook(owed: OwedHook) -> Hook:
    return Hook(
        owed.command,
        owed.user,
        timedelta(seconds=owed.timeout),
        "continue" if owed.tolerated else "fail",
    )


async def _place(engine: Engine, owed: OwedHook, unit: str, run: str) -> Place | str:
    """The container that runs in its place now, or why there is none."""
    try:
        now = await engine.inspect(owed.id)
    except ContainerGone:
        for row in await engine.containers():
            if row.state == "running" and is_successor(row, owed):
                return Place(row.id, row.name, unit, run)
        return "somebody removed it"
    if now.paused or not now.running:
        return "it is paused" if now.paused else "it is not running"
    return Place(owed.id, owed.name, unit, run)


async def _health(tools: Tools, place: Place, seconds: float) -> None:
    """Wait until a container is healthy; one that stays sick gets its hook all the same."""
    check = (await tools.engine.inspect(place.id)).healthcheck
    if check is not None:
        wait = partial(
            wait_healthy,
            tools.engine,
            place.id,
            check,
            seconds=seconds,
            sleep=tools.clock.sleep,
            clock=tools.clock.seconds,
        )
        await outcomes([wait])


class Repaid(msgspec.Struct, frozen=True):
    """What became of the post hooks that a run which died had left in its journal."""

    unit: str
    run: str
    results: tuple[HookResult, ...]
    owed: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def good(self) -> bool:
        """All of them ran and exited 0."""
        return not (self.owed or self.trouble or any(result.reason for result in self.results))

    def __str__(self) -> str:
        words = (r.sentence if r.reason else f"{r.target}: done" for r in self.results)
        text = f"unit {self.unit}: run {self.run} left post hooks to run; {', '.join(words)}"
        text += f". STILL TO RUN: {', '.join(self.owed)}" if self.owed else ""
        return f"{text}; {self.trouble}" if self.trouble else text


async def repay_hooks(
    engine: Engine, journals: JournalStore, clock: Clock, mask: Callable[[str], str] = str
) -> tuple[Repaid, ...]:
    """Run the post hooks that journals say are owed, once their containers are back.

    Call it after the members were brought back, with the run lock held. Each runs at least once:
    one that ran, however it ended, is not tried again, and one whose container is still down stays
    owed. It may be interrupted: what was not done by then stays owed, too.
    """
    tools = Tools(engine, clock, mask)
    done: list[Repaid] = []
    for unit in await journals.units():
        try:
            journal = await journals.read(unit)
        except RunError:
            continue  # told by bring_all_back
        if journal is not None and journal.hooks:
            done.append(await _repay(tools, journals, journal))
    return tuple(done)


async def _repay(tools: Tools, journals: JournalStore, journal: Journal) -> Repaid:
    down = {member.id for member in journal.members}
    results: list[HookResult] = []
    kept: list[OwedHook] = []
    trouble = ""
    for place, owed in enumerate(journal.hooks):
        # The pre hook may be at it still: Docker does not end an exec whose caller died.
        await end_hook(
            tools.engine, Place(owed.id, owed.name, journal.unit, journal.run), owed.user
        )
        result, over = await run_owed(
            tools, owed, unit=journal.unit, run=journal.run, down=down, waits=True
        )
        results.append(result)
        kept += [] if over else [owed]
        rest = (*kept, *journal.hooks[place + 1 :])
        try:
            await journals.write(msgspec.structs.replace(journal, hooks=rest))
        except RunError as error:
            trouble = f"{error.message}; {error.hint}"
    owed_names = tuple(owed.name for owed in kept)
    return Repaid(journal.unit, journal.run, tuple(results), owed_names, trouble)
