"""Settling what earlier runs left: members that are down, verdicts that are not durable yet.

Only whoever holds the run lock may call :func:`replay`.
"""

from __future__ import annotations

import re

import msgspec

from kopiwatch.backup import hold
from kopiwatch.backup.journal import Journal, JournalStore
from kopiwatch.backup.result import MemberResult
from kopiwatch.clock import Clock
from kopiwatch.engine.port import Engine
from kopiwatch.errors import RunError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import BAD_PIN

WATCH_SECONDS = 0.25


class Replayed(msgspec.Struct, frozen=True):
    """What the replay of one journal did."""

    unit: str
    run: str
    members: tuple[MemberResult, ...]
    owed: tuple[str, ...]

    def __str__(self) -> str:
        told = ", ".join(f"{m.name}: {_WORDS[m.state]}" for m in self.members)
        text = f"unit {self.unit}: run {self.run} was interrupted; {told or 'nothing was down'}"
        return f"{text}. STILL DOWN: {', '.join(self.owed)}" if self.owed else text


_WORDS = {
    "started": "started again",
    "ran-already": "runs already",
    "replaced": "somebody replaced it, left alone",
    "gone": "somebody removed it, left alone",
    "failed": "does not start",
}


async def bring_all_back(
    engine: Engine, journals: JournalStore, clock: Clock
) -> tuple[Replayed, ...]:
    """Start what the journals say we hold down. One sick member never blocks another unit.

    Raises RunError for a journal that cannot be read, after all others have been replayed.
    """
    done: list[Replayed] = []
    unreadable: RunError | None = None
    for unit in await journals.units():
        try:
            journal = await journals.read(unit)
        except RunError as error:  # raised below, once everybody else is up
            unreadable = error
            continue
        if journal is None or not journal.members:
            continue
        results = await _bring_back_for_good(engine, journal, clock)
        failed = {result.name for result in results if result.state == "failed"}
        still = tuple(member for member in journal.members if member.name in failed)
        await journals.write(msgspec.structs.replace(journal, members=still))
        owed = tuple(member.name for member in still)
        done.append(Replayed(unit, journal.run, results, owed))
    if unreadable is not None:
        raise unreadable
    return tuple(done)


async def _bring_back_for_good(
    engine: Engine, journal: Journal, clock: Clock
) -> tuple[MemberResult, ...]:
    """Start the members, and again those that a late stop takes down after all.

    Docker may still be carrying out a stop of the process that died: the container runs, a start
    says so, and then it ends. Who runs already is watched until that stop must be over.
    """
    results = await hold.bring_back(engine, journal.members, clock)
    running = {result.name for result in results if result.state == "ran-already"}
    watched = tuple(member for member in journal.members if member.name in running)
    if not watched:
        return results
    longest = max(member.stop_timeout for member in watched) + hold.STOP_MARGIN_SECONDS
    left = min(longest, longest - (clock.now() - journal.since).total_seconds())
    end = clock.seconds() + left
    while clock.seconds() < end:
        await clock.sleep(WATCH_SECONDS)
        rows = {row.id: row for row in await engine.containers()}
        fallen = [m for m in watched if m.id in rows and not rows[m.id].running]
        if fallen:
            again = {r.name: r for r in await hold.bring_back(engine, fallen, clock)}
            results = tuple(again.get(result.name, result) for result in results)
    return results


async def settle_verdicts(repository: Repository, journals: JournalStore) -> tuple[str, ...]:
    """Quarantine the manifests of runs that nobody judged; returns the runs.

    Raises RepositoryError if the repository does not answer; the journals stay then.
    """
    settled = []
    for unit in await journals.units():
        journal = await journals.read(unit)
        if journal is None or journal.judged:
            continue
        await quarantine(repository, journal.source, journal.run, "interrupted")
        await journals.write(msgspec.structs.replace(journal, judged=True))
        settled.append(journal.run)
    return tuple(settled)


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


async def owed(journals: JournalStore) -> dict[str, Journal]:
    """The journals of units with members that we hold down. Reads only."""
    found = {unit: await journals.read(unit) for unit in await journals.units()}
    return {unit: journal for unit, journal in found.items() if journal and journal.members}
