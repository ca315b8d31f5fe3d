"""Settling what earlier runs left: members that are down, verdicts that are not durable yet.

Only whoever holds the run lock may call :func:`replay`.
"""

from __future__ import annotations

import re

import anyio
import msgspec

from kopiwatch.backup.bringing import bring_back, longest_stop, watch
from kopiwatch.backup.interference import started_since
from kopiwatch.backup.journal import Held, Journal, JournalStore
from kopiwatch.backup.result import MemberResult, MemberState
from kopiwatch.clock import Clock
from kopiwatch.engine.port import Engine
from kopiwatch.errors import ContainerGone, EngineError, RunError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import BAD_PIN


class Replayed(msgspec.Struct, frozen=True):
    """What the replay of one journal did."""

    unit: str
    run: str
    members: tuple[MemberResult, ...] = ()
    owed: tuple[str, ...] = ()
    trouble: str = ""

    def __str__(self) -> str:
        if self.trouble and not self.run:
            return f"unit {self.unit}: {self.trouble}"
        told = ", ".join(f"{m.name}: {_WORDS[m.state]}" for m in self.members)
        text = f"unit {self.unit}: run {self.run} left members down; {told or 'nothing was down'}"
        text += f". STILL DOWN: {', '.join(self.owed)}" if self.owed else ""
        return f"{text}; {self.trouble}" if self.trouble else text


_WORDS = {
    "started": "started again",
    "ran-already": "runs already",
    "taken-over": "somebody else started it since (running or not), left alone",
    "gone": "somebody removed it, left alone",
    "failed": "does not start",
}


async def bring_all_back(
    engine: Engine, journals: JournalStore, clock: Clock
) -> tuple[Replayed, ...]:
    """Start what the journals say we hold down. One sick member never blocks another unit.

    Not to be interrupted once begun. A journal that cannot be read or written is part of the
    answer; its unit is refused by its next run. Raises EngineError when Docker does not answer.
    """
    done: list[Replayed] = []
    with anyio.CancelScope(shield=True):
        for unit in await journals.units():
            try:
                journal = await journals.read(unit)
            except RunError as error:
                done.append(Replayed(unit, "", trouble=f"{error.message}; {error.hint}"))
                continue
            if journal is None or not journal.members:
                continue
            results = await _replay(engine, journal, clock)
            failed = {result.name for result in results if result.state == "failed"}
            still = tuple(member for member in journal.members if member.name in failed)
            owed = tuple(member.name for member in still)
            trouble = ""
            try:
                await journals.write(msgspec.structs.replace(journal, members=still))
            except RunError as error:  # it stays as it was: who runs by then is left alone
                trouble = f"{error.message}; {error.hint}"
            done.append(Replayed(unit, journal.run, results, owed, trouble))
    return tuple(done)


async def _replay(engine: Engine, journal: Journal, clock: Clock) -> tuple[MemberResult, ...]:
    """Bring back who is still as we left it; who was started since is somebody else's.

    Raises EngineError when Docker does not answer.
    """
    ours: list[Held] = []
    running: set[str] = set()
    results: list[MemberResult] = []
    states = {row.id: row.state for row in await engine.containers()}
    for member in journal.members:
        if member.how == "pause" and states.get(member.id) == "paused":
            ours.append(member)  # not looked at, see freeze()
            continue
        try:
            now = await engine.inspect(member.id)
        except ContainerGone:
            ours.append(member)
            continue
        except EngineError as error:  # stays owed; the others are not kept waiting
            results.append(MemberResult(member.name, "failed", detail=error.message))
            continue
        if started_since(member, now):
            state: MemberState = "ran-already" if now.running else "taken-over"
            results.append(MemberResult(member.name, state, detail="somebody started it since"))
            continue
        ours.append(member)
        if now.running:
            running.add(member.id)
    back = await bring_back(engine, ours, clock)
    # A stop of the process that died may still be under way: levels stop one after another.
    passed = (clock.now() - journal.since).total_seconds()
    longest = longest_stop(journal.members)
    left = min(longest, longest - passed)
    back = await watch(engine, ours, back, clock, watched=running, seconds=left)
    return (*back, *results)


async def settle_verdicts(repository: Repository, journals: JournalStore) -> tuple[str, ...]:
    """Quarantine the manifests of runs that nobody judged; returns the runs.

    Raises RepositoryError if the repository does not answer; the journals stay then.
    """
    settled = []
    for unit, journal in (await readable(journals)).items():
        if journal.judged:
            continue
        await quarantine(repository, journal.source, journal.run, journal.reason or "interrupted")
        await journals.write(msgspec.structs.replace(journal, judged=True))
        settled.append(f"{journal.run} of unit {unit}")
    return tuple(settled)


async def make_durable(
    repository: Repository,
    journals: JournalStore,
    *,
    unit: str,
    source: str,
    run: str,
    reason: str,
    ended: bool = True,
) -> str:
    """Make the verdict of a run durable and clear its debt; ``reason`` is empty for a success.

    ``ended`` says that no Kopia of this run lives any more: one that does may store its manifest
    after the verdict. Returns the new id of its manifest if that was pinned as bad, else empty.
    Raises RepositoryError when the repository does not take it, RunError when the disk does not or
    the run has not ended; the journal then keeps the reason for whoever settles the run.
    """
    journal = await journals.read(unit)
    identity = ""
    try:
        _require_end(ended=ended)
        if reason:
            identity = await quarantine(repository, source, run, reason)
    except BaseException:
        if journal is not None:
            await journals.write(msgspec.structs.replace(journal, reason=reason))
        raise
    if journal is not None:
        await journals.write(msgspec.structs.replace(journal, judged=True))
    return identity


def _require_end(*, ended: bool) -> None:
    if not ended:
        raise RunError("its Kopia may still be at work", phase="report", reason="worker-lost")


async def quarantine(repository: Repository, source: str, run: str, reason: str) -> str:
    """Pin the manifests of a run as bad, so that every host sees what it was.

    Returns the new id of the last one (pinning changes it), or empty when the run left none.
    """
    mine = [s for s in await repository.snapshots(source) if s.tag("run") == run]
    unmarked = [snapshot for snapshot in mine if not snapshot.quarantine]
    for snapshot in unmarked:
        await repository.pin(snapshot.id, BAD_PIN + _slug(reason))
    if unmarked:
        mine = [s for s in await repository.snapshots(source) if s.tag("run") == run]
    return mine[-1].id if mine else ""


def _slug(reason: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", reason.lower()).strip("-") or "failed"


async def readable(journals: JournalStore) -> dict[str, Journal]:
    """The journals by unit, those that cannot be read left out. Reads only."""
    found: dict[str, Journal] = {}
    for unit in await journals.units():
        try:
            journal = await journals.read(unit)
        except RunError:
            continue  # told by bring_all_back, and by the unit's own next run
        if journal is not None:
            found[unit] = journal
    return found


async def refuse_debts(journals: JournalStore, unit: str) -> None:
    """Raise RunError if an earlier run of the unit is on record: a new one would write over it."""
    journal = await journals.read(unit)
    if journal is None:
        return
    raise RunError(
        f"unit {unit}: run {journal.run} still owes {journal.owed or 'its verdict'}",
        phase="check",
        reason="owed",
        hint="see why with `docker start`; every command that changes something tries again",
    )
