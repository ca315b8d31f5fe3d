"""``kopiwatch history``."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import partial

import anyio.to_thread
import click
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.state import StateFolder
from kopiwatch.cli.history_text import print_detail, print_runs, print_stats
from kopiwatch.cli.output import note, print_json, print_text
from kopiwatch.cli.running import run as execute
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config, nearest
from kopiwatch.daemon.probe import rebuilt
from kopiwatch.errors import UnknownUnit, UsageError
from kopiwatch.kopia.lock import holder
from kopiwatch.report.history import History
from kopiwatch.report.history_record import RebuildResult, RebuiltRun, RunRow
from kopiwatch.restore.point import Point, points
from kopiwatch.units.value import Bad, read_duration
from kopiwatch.words import counted

LAST = 20
EXAMPLE = """\b
Examples:
  kopiwatch history                          the last 20 runs
  kopiwatch history --unit shop --since 7d   those of one unit, of the last week
  kopiwatch history --failed                 those that fell short
  kopiwatch history 20261124T020000Z-3f9a1c  one run, phase by phase
  kopiwatch history --stats                  success rates, windows and lengths per unit
"""


class Wanted(msgspec.Struct, frozen=True):
    """What to show: one run, or those that fit. Empty or None means that it was not said."""

    run: str = ""
    unit: str = ""
    failed: bool = False
    last: int | None = None
    since: str = ""
    stats: bool = False
    rebuild: bool = False

    def check(self) -> None:
        """Raise UsageError for options that do not go together."""
        filters = bool(self.unit or self.failed or self.last or self.since or self.stats)
        why = ""
        if self.rebuild and (self.run or filters):
            why = "--rebuild is always of everything and stands alone"
        elif self.run and filters:
            why = "a run is shown in detail without any other option"
        elif self.stats and (self.failed or self.last):
            why = "--stats counts all runs, or those --since a time"
        if why:
            raise UsageError(why, hint="`kopiwatch history --help` has examples")


@click.command(epilog=EXAMPLE)
@click.argument("run", required=False, default="")
@click.option("--unit", default="", help="Only runs of this unit.")
@click.option("--failed", is_flag=True, help="Only runs that were partial or failed.")
@click.option(
    "--last",
    type=click.IntRange(min=1),
    help=f"Only so many, the newest. Default: {LAST}, or all with --since.",
)
@click.option(
    "--since", default="", help="Only from this time on (UTC unless it says else), or 7d."
)
@click.option("--stats", is_flag=True, help="Figures per unit instead of single runs.")
@click.option("--rebuild", is_flag=True, help="Add what the repository knows; mends a lost file.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def history(
    run: str,
    *,
    unit: str,
    failed: bool,
    last: int | None,
    since: str,
    stats: bool,
    rebuild: bool,
    as_json: bool,
) -> None:
    """Show past runs, or one of them in detail.

    Reads the state folder only: it needs neither Docker nor the daemon nor the repository.
    --rebuild lists the restore points in the repository and adds the runs that made them; what was
    recorded here stands, and a damaged file is set aside.
    """
    wanted = Wanted(run, unit, failed, last, since, stats, rebuild)
    execute(partial(show_history, wanted, as_json=as_json), json=as_json)


async def show_history(wanted: Wanted, *, as_json: bool) -> int:
    """Show it, or rebuild it."""
    wanted.check()
    config = wiring.configuration()
    if wanted.rebuild:
        return await rebuild_history(config, as_json=as_json)
    since = read_since(wanted.since, SYSTEM.now()) if wanted.since else None
    async with await History.read_only(config.state_dir) as records:
        if wanted.run:
            return await _show_run(records, wanted.run, as_json=as_json)
        await _require_unit(records, wanted.unit)
        if wanted.stats:
            figures = await records.stats(unit=wanted.unit, since=since)
            if as_json:
                print_json({"stats": figures})
            elif figures:
                print_stats(figures)
            else:
                note(await _nothing(records))
            return 0
        found = await records.runs(
            unit=wanted.unit,
            failed=wanted.failed,
            since=since,
            last=wanted.last or (None if since else LAST),
        )
        if as_json:
            print_json({"runs": found})
        elif found:
            print_runs(found)
            await _say_dead(config, found)
        else:
            note(await _nothing(records))
    return 0


def read_since(text: str, now: datetime) -> datetime:
    """A length of time before ``now``, or a time; without a zone it is UTC. Raises UsageError."""
    length = read_duration(text)
    try:
        if not isinstance(length, Bad):
            return now - length
        moment = datetime.fromisoformat(text)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise UsageError(
            f"--since {text[:100]!r} is neither a time nor a length of time",
            hint="such as 2026-11-24, 2026-11-24T02:00Z, 36h or 7d",
        ) from error


async def _require_unit(records: History, unit: str) -> None:
    names = await records.names() if unit else ()
    if unit not in names and unit:
        close = nearest(unit, names)
        raise UnknownUnit(
            f"the history knows no unit {unit!r}",
            hint=(f"did you mean {close!r}? " if close else "")
            + "units: "
            + (", ".join(names) or "none yet"),
        )


async def _nothing(records: History) -> str:
    if await records.runs(last=1):
        return "no run fits"
    return "there is no run on record yet; `kopiwatch backup --all` makes the first"


async def _show_run(records: History, name: str, *, as_json: bool) -> int:
    detail = await records.run(name)
    if detail is None:
        known = [row.run for row in await records.runs() if row.run]
        inside = [run for run in known if name in run]
        close = inside[-1] if inside else nearest(name, known[-2000:])
        hint = f"did you mean {close!r}?" if close else "`kopiwatch history` lists them"
        if name in await records.names():
            hint = f"that is a unit: `kopiwatch history --unit {name}`"
        raise UsageError(f"there is no run {name!r} on record", hint=hint)
    if as_json:
        print_json({"run": detail})
    else:
        print_detail(detail)
    return 0


async def _say_dead(config: Config, found: Iterable[RunRow]) -> None:
    """A run on record as running is alive if somebody holds the run lock."""
    running = [row.run for row in found if row.verdict == "running"]
    lock = StateFolder(config.state_dir).run_lock
    if running and await anyio.to_thread.run_sync(holder, lock) is None:
        note(
            f"nobody holds the run lock: the process of {', '.join(running)} died; the next command"
            " that changes something brings back what it left down"
        )


async def rebuild_history(config: Config, *, as_json: bool) -> int:
    """Merge what the repository knows into the history; says what it did."""
    repository = await wiring.reading(config, "history --rebuild")
    unfinished = await wiring.unfinished(config)
    everything = points(await repository.snapshots(), unfinished=unfinished)
    mine, others = of_here(everything, repository.host, config.instance)
    opened = await History.open(config.state_dir, clock=SYSTEM)
    async with opened.history as records:
        done = await records.rebuild(mine)
    if as_json:
        print_json({"rebuilt": done, "fresh": opened.fresh, "set_aside": opened.set_aside})
        return 0
    if opened.set_aside is not None:
        note(f"the history was damaged; it is set aside as {opened.set_aside}")
    for line in told(done):
        print_text(line)
    if not mine and others:
        places = sorted({f"host {p.host}, instance {p.instance}" for p in others})
        note(
            f"the repository holds restore points of {'; '.join(places)}, but none of host"
            f" {repository.host}, instance {config.instance}"
            " (KOPIWATCH_HOSTNAME, KOPIWATCH_INSTANCE)"
        )
    return 0


def of_here(
    found: Iterable[Point], host: str, instance: str
) -> tuple[tuple[RebuiltRun, ...], tuple[Point, ...]]:
    """What the points of this host and instance tell of their runs; and the points of others.

    A run without a verdict yet is nobody's past, and what no run made tells of none.
    """
    mine: list[RebuiltRun] = []
    others: list[Point] = []
    for point in found:
        if (point.host, point.instance) != (host, instance):
            others.append(point)
        elif point.run and point.state != "unfinished":
            mine.append(rebuilt(point))
    return tuple(mine), tuple(others)


def told(done: RebuildResult) -> list[str]:
    """What a rebuild did, for people."""
    counts = f"{done.completed} completed, {done.known} known already"
    lines = [f"{counted(done.added, 'run')} added from the repository, {counts}"]
    if done.units:
        lines.append(f"units that were not known before: {', '.join(done.units)}")
    if done.differing:
        lines.append(
            "the repository judges these runs otherwise than they were recorded, and the record"
            f" stands: {', '.join(done.differing)}"
        )
    return lines
