"""``kopiwatch backup``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import anyio
import anyio.abc
import click
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.plan import plan_hold
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.backup.turn import Turn, Turns
from kopiwatch.cli import daemon_client
from kopiwatch.cli.output import Follower, note, print_json, print_text
from kopiwatch.cli.report import exit_code, print_result
from kopiwatch.cli.running import run
from kopiwatch.config import Config
from kopiwatch.daemon.job import Complete, Ended, Said
from kopiwatch.daemon.message import BackupOrder
from kopiwatch.errors import KopiwatchError, LabelError, UsageError
from kopiwatch.task import unwrapped
from kopiwatch.units.container import Container
from kopiwatch.units.unit import Unit
from kopiwatch.wiring.attempt import Attempt, Order
from kopiwatch.wiring.recording import recording

Deliver = Callable[[RunResult], None]
"""Takes each result as soon as there is one."""

EXAMPLE = """\b
Examples:
  kopiwatch backup shop            back up one unit
  kopiwatch backup --all           back up every unit
  kopiwatch backup shop --dry-run  show who would be stopped and what would be stored
"""


@click.command(epilog=EXAMPLE)
@click.argument("units", nargs=-1, metavar="[UNIT]...")
@click.option("--all", "everything", is_flag=True, help="Back up every unit.")
@click.option("--dry-run", is_flag=True, help="Say what would happen; never opens the repository.")
@click.option("--json", "as_json", is_flag=True, help="The results as JSON on stdout.")
def backup(units: tuple[str, ...], *, everything: bool, dry_run: bool, as_json: bool) -> None:
    """Back up units now: stop, read, start, and say honestly how it went.

    Exits 0 only if every run was a success. A unit with bad labels is skipped and counts as a
    failure; the others go on.
    """
    task = dry_backup if dry_run else real_backup
    run(partial(task, units, everything=everything, as_json=as_json), json=as_json)


def require_choice(names: tuple[str, ...], *, everything: bool) -> None:
    """Raise UsageError unless units are named, or all are wanted, but not both."""
    if bool(names) == everything:
        raise UsageError(
            "name the units to back up, or say --all", hint="`kopiwatch units` lists them"
        )


async def dry_backup(names: tuple[str, ...], *, everything: bool, as_json: bool) -> int:
    """Show the plan of each unit; nothing is locked, written or stopped."""
    require_choice(names, everything=everything)
    config = wiring.configuration()
    records = []
    async with wiring.docker(config) as where:
        found, rows = await wiring.look(config, where)
        for unit in wiring.require_units(found, names):
            record = await plan_record(config, where, unit, rows)
            records.append(record)
            if not as_json:
                for line in plan_lines(record):
                    print_text(line)
    if as_json:
        print_json({"dry_run": True, "units": records})
    return 0 if not any(record.problems for record in records) else LabelError.exit_code


class PlanRecord(msgspec.Struct, frozen=True):
    """What a backup of a unit would do: levels of stops, sources; or why it would not."""

    unit: str
    problems: tuple[str, ...] = ()
    stop: tuple[tuple[str, ...], ...] = ()
    sources: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


async def plan_record(
    config: Config, where: wiring.Docker, unit: Unit, rows: tuple[Container, ...]
) -> PlanRecord:
    """The plan of one unit, with whatever a run would refuse before it touches anything."""
    problems = [str(problem) for problem in unit.problems]
    hold = HoldPlan()
    if not problems:
        try:
            hold = await plan_hold(where.engine, unit, rows, own=where.own_id)
            await wiring.check_access(config, where, unit)
        except KopiwatchError as error:
            problems.append(error.message + (f" ({error.hint})" if error.hint else ""))
    return PlanRecord(
        unit=unit.name,
        problems=tuple(problems),
        stop=tuple(tuple(stop.name for stop in level) for level in hold.levels),
        sources=tuple(source.path for source in unit.sources),
        warnings=tuple(dict.fromkeys((*unit.warnings, *hold.warnings))),
    )


def plan_lines(record: PlanRecord) -> list[str]:
    """The plan of one unit for people."""
    lines = [f"{record.unit}:"]
    if record.problems:
        return [*lines, *(f"  would be refused: {problem}" for problem in record.problems)]
    order = ", then ".join(" and ".join(level) for level in record.stop)
    lines.append(f"  would stop: {order or 'nobody'}")
    stored = ", ".join(record.sources) or "its recipe only (no volumes)"
    lines.append(f"  would store: {stored}")
    return [*lines, *(f"  warning: {warning}" for warning in record.warnings)]


async def real_backup(names: tuple[str, ...], *, everything: bool, as_json: bool) -> int:
    """Back up the units one after the other: by the living daemon, else here."""
    require_choice(names, everything=everything)
    config = wiring.configuration()
    results: list[RunResult] = []
    with Follower() as follower:

        def deliver(result: RunResult) -> None:
            results.append(result)
            follower.rest()
            if not as_json:
                print_result(result)

        work = by_daemon if await daemon_client.find(config.state_dir) else inline
        try:
            await work(config, names, follower, deliver)
        finally:
            follower.rest()
            if as_json and results:
                print_json({"runs": results})
    return exit_code(results)


async def by_daemon(
    config: Config, names: tuple[str, ...], follower: Follower, deliver: Deliver
) -> None:
    """Order the backups from the daemon and follow them; they go on if we are cut off."""
    order = BackupOrder(names, repository=config.repository, instance=config.instance)
    try:
        async with daemon_client.backup(config.state_dir, order) as news:
            async for each in news:
                match each:
                    case Said(action, message, facts):
                        follower.say(action, message, **facts)
                    case Ended(result):
                        deliver(result)
                    case Complete():
                        return
    except anyio.get_cancelled_exc_class():
        note("the daemon goes on with it; see `kopiwatch status` and `kopiwatch history`")
        raise
    raise daemon_client.DaemonLost(
        "the daemon left before every unit had its turn",
        hint="it brings back what it stopped; `kopiwatch history` shows what was done",
    )


async def inline(
    config: Config, names: tuple[str, ...], follower: Follower, deliver: Deliver
) -> None:
    """Back up here, the run lock held throughout, and write it into the history.

    A unit prepares when the one before has stored everything, and has its turn when that one only
    looks at its members any more.
    """
    command = "backup " + (" ".join(names) or "--all")
    async with (
        wiring.docker(config) as where,
        wiring.changing(config, where, command, follower) as (state, identity),
        recording(state.path, follower) as recorder,
    ):
        found, _ = await wiring.look(config, where)
        chosen = [unit.name for unit in wiring.require_units(found, names)]
        house = await wiring.house(config, where, command, follower, state=state, identity=identity)
        # Nobody else stores anything of these units while the run lock is held: one list for all.
        listed = await house.repository.snapshots() if len(chosen) > 1 else None
        # What after_run undoes may be what the next before_run has just done.
        turns = Turns(whole=house.host_side.around_runs)

        async def back_up(name: str, *, task_status: anyio.abc.TaskStatus[None]) -> None:
            turn = Turn(turns)
            attempt = Attempt(config, where, house, Order(name), turn=turn, listed=listed)
            try:
                await turn.prepare()
                task_status.started()
                await attempt.execute(recorder)
            finally:
                turn.give()
                if attempt.result is not None:
                    deliver(attempt.result)

        with unwrapped():
            async with anyio.create_task_group() as tasks:
                for name in chosen:
                    await tasks.start(back_up, name)
