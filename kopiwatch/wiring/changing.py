"""The right to change something: the run lock, and what earlier runs owe, first."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio.to_thread

from kopiwatch.backup.dump.phase import sweep as sweep_dumps
from kopiwatch.backup.hook_debt import repay_hooks
from kopiwatch.backup.house import Listener
from kopiwatch.backup.settle import Replayed, bring_all_back, readable, settle_verdicts
from kopiwatch.backup.stage import sweep
from kopiwatch.backup.state import StateFolder
from kopiwatch.backup.stray import end_strays
from kopiwatch.clock import SYSTEM, Clock
from kopiwatch.config import Config
from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineUnreachable, UsageError
from kopiwatch.kopia.lock import FileLock
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.wiring.docker import Docker, docker
from kopiwatch.wiring.repository import repository_of


@asynccontextmanager
async def changing(
    config: Config, where: Docker, command: str, listener: Listener
) -> AsyncIterator[tuple[StateFolder, str]]:
    """The right to change something: run lock, own strays ended, interrupted runs replayed.

    In this order, which is that of the design's first promise, and before anything else that could
    fail. Raises BusyError at once when somebody else holds the run lock: that run is alive and
    nobody else touches anything.
    """
    state = StateFolder(config.state_dir)
    identity = await anyio.to_thread.run_sync(state.open)
    async with FileLock(state.run_lock, command=command).hold():
        await replay(where.engine, state, identity, listener)
        yield state, identity


async def replay(
    engine: Engine,
    state: StateFolder,
    identity: str,
    listener: Listener,
    clock: Clock = SYSTEM,
) -> tuple[Replayed, ...]:
    """End our strays and bring back what interrupted runs left down; needs the run lock."""
    strays = await end_strays(engine, identity)
    await anyio.to_thread.run_sync(sweep_dumps, state.staging)
    if strays.ended:
        names = ", ".join(strays.ended)
        listener.say("strays", f"ended workers that an interrupted run left: {names}")
    if strays.left:
        left = "; ".join(strays.left)
        listener.say(
            "strays", f"a worker of an earlier run hangs and is left behind: {left}", level="error"
        )
    done = await bring_all_back(engine, state.journals, clock)
    for replayed in done:
        trouble = bool(replayed.trouble or replayed.owed)
        listener.say(
            "replay", str(replayed), unit=replayed.unit, level="error" if trouble else "warning"
        )
    for repaid in await repay_hooks(engine, state.journals, clock):
        level = "warning" if repaid.good else "error"
        listener.say("replay-hooks", str(repaid), unit=repaid.unit, level=level)
    # After that: a stage that is hard to remove must keep nobody down, or in maintenance.
    swept = await sweep(engine, identity)
    if swept.removed:
        listener.say("strays", f"removed what an interrupted run had staged: {swept.text}")
    for why in swept.left:
        listener.say("strays", f"a stage is left behind: {why}", level="warning")
    return done


async def settle(repository: Repository, state: StateFolder, listener: Listener) -> None:
    """Make the verdicts of interrupted runs durable; needs the run lock."""
    for run in await settle_verdicts(repository, state.journals):
        listener.say(
            "settled",
            f"run {run} was interrupted before its verdict: not a restore point",
            level="warning",
        )


async def unfinished(config: Config) -> frozenset[str]:
    """Runs of this state whose verdict is not durable: alive, or interrupted. Reads only."""
    journals = await readable(StateFolder(config.state_dir).journals)
    return frozenset(journal.run for journal in journals.values() if not journal.judged)


async def refuse_owed(config: Config, unit: str) -> None:
    """Raise UsageError while containers of a unit are down, or half way through hooks, by us.

    Raises RunError where that is on record and cannot be read.
    """
    journals = StateFolder(config.state_dir).journals
    journal = await journals.read(unit) if unit in await journals.units() else None
    if journal is not None and journal.owed:
        raise UsageError(
            f"unit {unit} is still owed {journal.owed}",
            hint="start or remove them; the daemon, or `kopiwatch backup`, then clears it",
        )


@asynccontextmanager
async def repository_changing(
    config: Config, command: str, listener: Listener
) -> AsyncIterator[KopiaRepository]:
    """The repository for a command that changes its connection, with the run lock held."""
    async with without_docker(config, command, listener):
        info = None
        if not config.hostname:
            async with docker(config) as where:
                info = where.info
        yield repository_of(config, info, command)


@asynccontextmanager
async def without_docker(
    config: Config, command: str, listener: Listener
) -> AsyncIterator[StateFolder]:
    """The run lock for a command that needs Docker only if members are owed a start.

    A fresh machine restores files without any Docker on it, and so does one whose Docker is dead:
    what is owed stays on the books then, and is said.
    """
    state = StateFolder(config.state_dir)
    identity = await anyio.to_thread.run_sync(state.open)
    async with FileLock(state.run_lock, command=command).hold():
        journals = await readable(state.journals)
        if any(journal.members or journal.hooks for journal in journals.values()):
            try:
                async with docker(config) as where:
                    await replay(where.engine, state, identity, listener)
            except EngineUnreachable as error:
                down = ", ".join(unit for unit, journal in journals.items() if journal.members)
                late = ", ".join(unit for unit, journal in journals.items() if journal.hooks)
                words = [f"members of {down} are still down"] if down else []
                words += [f"post hooks of {late} are still to run"] if late else []
                listener.say("owed", f"{', '.join(words)}: {error.message}", level="error")
        yield state
