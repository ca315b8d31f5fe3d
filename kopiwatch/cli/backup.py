"""``kopiwatch backup``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import click
import msgspec

from kopiwatch.backup.house import House
from kopiwatch.backup.plan import plan_hold
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.run import Run
from kopiwatch.backup.run_id import new_run_id
from kopiwatch.backup.stopping import HoldPlan
from kopiwatch.cli import wiring
from kopiwatch.cli.output import Follower, print_json, print_text
from kopiwatch.cli.report import exit_code, print_result
from kopiwatch.cli.running import run
from kopiwatch.config import Config
from kopiwatch.errors import ConfigError, KopiwatchError, LabelError, UnknownUnit, UsageError
from kopiwatch.units.container import Container
from kopiwatch.units.group import Discovery
from kopiwatch.units.unit import Unit

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


def require_units(found: Discovery, names: tuple[str, ...]) -> tuple[Unit, ...]:
    """The units that are wanted. Raises UnknownUnit, and ConfigError if there are none at all."""
    chosen = wiring.choose(found, names) if names else found.units
    if not chosen:
        raise ConfigError(
            'no container carries kopi.enable: "true", so there is nothing to back up',
            hint="label a service, recreate its container, and see `kopiwatch units`",
        )
    return chosen


async def dry_backup(names: tuple[str, ...], *, everything: bool, as_json: bool) -> int:
    """Show the plan of each unit; nothing is locked, written or stopped."""
    require_choice(names, everything=everything)
    config = wiring.configuration()
    records = []
    async with wiring.docker(config) as where:
        found, rows = await wiring.look(config, where)
        for unit in require_units(found, names):
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
    """Back up the units one after the other, the run lock held throughout."""
    require_choice(names, everything=everything)
    config = wiring.configuration()
    command = "backup " + (" ".join(names) or "--all")
    results: list[RunResult] = []
    async with wiring.docker(config) as where, wiring.changing(config, where, command) as mine:
        state, identity = mine
        found, _ = await wiring.look(config, where)
        chosen = [unit.name for unit in require_units(found, names)]
        with Follower() as follower:
            house = await wiring.house(
                config, where, command, follower, state=state, identity=identity
            )
            try:
                for name in chosen:
                    await back_up_one(config, where, house, name, results)
                    follower.rest()
                    if not as_json:
                        print_result(results[-1])
            finally:
                follower.rest()
                if as_json:
                    print_json({"runs": results})
                elif results and results[-1].reason == "cancelled":
                    print_result(results[-1])
    return exit_code(results)


async def back_up_one(
    config: Config, where: wiring.Docker, house: House, name: str, results: list[RunResult]
) -> None:
    """Run one unit as it is now and add its result, also that of a run that is cancelled.

    A unit that cannot be looked at, or is gone, is a result like any other: the next one follows.
    """
    identity = new_run_id(datetime.now(UTC))
    try:
        found, rows = await wiring.look(config, where)
        (unit,) = wiring.choose(found, (name,))
    except UnknownUnit:
        results.append(no_run(identity, name, "gone", "its containers are gone", 1))
        return
    except KopiwatchError as error:
        results.append(no_run(identity, name, error.code, error.message, error.exit_code))
        return
    if not unit.valid:
        why = "; ".join(str(problem) for problem in unit.problems)
        results.append(no_run(identity, name, "labels", why, LabelError.exit_code))
        return
    attempt = Run(house, unit, rows, identity)
    try:
        await attempt.execute()
    finally:
        if attempt.result is not None:
            results.append(attempt.result)


def no_run(run_id: str, unit: str, reason: str, message: str, code: int) -> RunResult:
    """The result of a unit that was not run at all."""
    now = datetime.now(UTC)
    return RunResult(
        run=run_id,
        unit=unit,
        verdict="skipped",
        began=now,
        ended=now,
        reason=reason,
        message=message,
        exit_code=code,
    )
