"""``kopiwatch check``."""

from __future__ import annotations

from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli.backup import plan_record
from kopiwatch.cli.output import note, print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.errors import ConfigError
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.units.default import check_defaults
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
    problems += check_defaults(config.defaults)
    warnings: list[str] = []
    async with wiring.docker(config) as where:
        found, rows = await wiring.look(config, where)
        warnings += [f"not a member: {ignored}" for ignored in found.ignored]
        refused = 0
        for unit in found.units:
            record = await plan_record(config, where, unit, rows)
            refused += bool(record.problems)
            problems += [f"unit {unit.name}: {problem}" for problem in record.problems]
            warnings += [f"unit {unit.name}: {warning}" for warning in record.warnings]
    valid = len(found.units) - refused
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
