"""``kopiwatch check``."""

from __future__ import annotations

from functools import partial

import click

from kopiwatch.backup.plan import plan_hold
from kopiwatch.cli import wiring
from kopiwatch.cli.output import note, print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.errors import ConfigError, RunError
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.units.parse import check_profiles

EXAMPLE = """\b
Example:
  kopiwatch check && echo "every labelled container will be backed up"
"""


@click.command(epilog=EXAMPLE)
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def check(*, as_json: bool) -> None:
    """Check configuration and labels. Exits 3 if anything is wrong; opens no repository."""
    run(partial(run_check, as_json=as_json), json=as_json)


async def run_check(*, as_json: bool) -> int:
    """Check; reads only."""
    config = wiring.configuration()
    parse_repository(config.repository)
    problems = [str(problem) for problem in check_profiles(config.profiles)]
    warnings: list[str] = []
    async with wiring.docker(config) as where:
        found, rows = await wiring.look(config, where)
        warnings += [f"not a member: {ignored}" for ignored in found.ignored]
        for unit in found.units:
            problems += [f"unit {unit.name} is disabled: {problem}" for problem in unit.problems]
            warnings += [f"unit {unit.name}: {warning}" for warning in unit.warnings]
            if unit.valid:
                try:
                    hold = await plan_hold(where.engine, unit, rows, own=where.own_id)
                except RunError as error:
                    problems.append(error.message)
                else:
                    warnings += [f"unit {unit.name}: {warning}" for warning in hold.warnings]
    warnings = list(dict.fromkeys(warnings))
    valid = sum(unit.valid for unit in found.units)
    if as_json:
        print_json(
            {
                "units": len(found.units),
                "valid": valid,
                "problems": problems,
                "warnings": warnings,
            }
        )
        return ConfigError.exit_code if problems else 0
    for problem in problems:
        print_text(f"problem: {problem}")
    for warning in warnings:
        note(f"warning: {warning}")
    total = len(found.units)
    print_text(f"{valid} of {total} units can be backed up" if total else "no labelled containers")
    return ConfigError.exit_code if problems else 0
