"""``kopiwatch backup``."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

import click

from kopiwatch.backup.plan import plan_hold
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.run import Run
from kopiwatch.backup.run_id import new_run_id
from kopiwatch.cli import wiring
from kopiwatch.cli.output import Follower, note, print_error, print_json, print_text
from kopiwatch.cli.report import exit_code, print_result
from kopiwatch.cli.running import run
from kopiwatch.errors import ConfigError, LabelError, UsageError
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
    if bool(units) == everything:
        print_error(UsageError("name the units to back up, or say --all", hint=EXAMPLE_HINT))
        raise SystemExit(UsageError.exit_code)
    task = dry_backup if dry_run else real_backup
    run(partial(task, units, as_json=as_json), json=as_json)


EXAMPLE_HINT = "`kopiwatch units` lists them"


async def dry_backup(names: tuple[str, ...], *, as_json: bool) -> int:
    """Show the plan of each unit; nothing is locked, written or stopped."""
    config = wiring.configuration()
    records = []
    async with wiring.docker(config) as where:
        found, rows = await wiring.look(config, where)
        chosen = wiring.choose(found, names) if names else found.units
        if not chosen:
            note(NO_UNITS)
            return ConfigError.exit_code
        for unit in chosen:
            record: dict[str, object] = {"unit": unit.name, "valid": unit.valid}
            if unit.valid:
                hold = await plan_hold(where.engine, unit, rows, own=where.own_id)
                record |= {
                    "stop": [[stop.name for stop in level] for level in hold.levels],
                    "sources": [source.path for source in unit.sources],
                    "warnings": list(dict.fromkeys((*unit.warnings, *hold.warnings))),
                }
            else:
                record["problems"] = list(unit.problems)
            records.append(record)
            if not as_json:
                for line in plan_lines(unit.name, record):
                    print_text(line)
    if as_json:
        print_json({"dry_run": True, "units": records})
    return 0 if all(record["valid"] for record in records) else LabelError.exit_code


def plan_lines(name: str, record: dict[str, object]) -> list[str]:
    """The plan of one unit for people."""
    lines = [f"{name}:"]
    problems, stops = record.get("problems", []), record.get("stop", [])
    sources, warnings = record.get("sources", []), record.get("warnings", [])
    assert isinstance(problems, list)  # noqa: S101 - built above
    assert isinstance(stops, list)  # noqa: S101
    assert isinstance(sources, list)  # noqa: S101
    assert isinstance(warnings, list)  # noqa: S101
    if not record["valid"]:
        return [*lines, *(f"  disabled: {problem}" for problem in problems)]
    order = ", then ".join(" and ".join(level) for level in stops)
    lines.append(f"  would stop: {order or 'nobody'}")
    lines.append(f"  would store: {', '.join(sources) or 'its recipe only (no volumes)'}")
    return [*lines, *(f"  warning: {warning}" for warning in warnings)]


NO_UNITS = 'no container carries kopi.enable: "true", so there is nothing to back up'


async def real_backup(names: tuple[str, ...], *, as_json: bool) -> int:
    """Back up the units one after the other, the run lock held throughout."""

    def refused(unit: Unit, run: str) -> RunResult:
        now = datetime.now(UTC)
        return RunResult(
            run=run,
            unit=unit.name,
            verdict="skipped",
            began=now,
            ended=now,
            reason="labels",
            message="; ".join(str(problem) for problem in unit.problems),
            hint="mend the labels and recreate the container; `kopiwatch check` shows them all",
            exit_code=LabelError.exit_code,
        )

    config = wiring.configuration()
    command = "backup " + (" ".join(names) or "--all")
    results: list[RunResult] = []
    async with wiring.docker(config) as where:
        found, _ = await wiring.look(config, where)
        chosen = wiring.choose(found, names) if names else found.units
        if not chosen:
            note(NO_UNITS)
            return ConfigError.exit_code
        with Follower() as follower:
            async with wiring.house(config, where, command, follower) as house:
                for name in [unit.name for unit in chosen]:
                    found, rows = await wiring.look(config, where)
                    run = new_run_id(datetime.now(UTC))
                    (unit,) = wiring.choose(found, (name,))
                    if unit.valid:
                        results.append(await Run(house, unit, rows, run).execute())
                    else:
                        results.append(refused(unit, run))
                    follower.rest()
                    if not as_json:
                        print_result(results[-1])
    if as_json:
        print_json({"runs": results})
    return exit_code(results)
