"""``kopiwatch adopt``."""

from __future__ import annotations

from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli.confirm import confirmed
from kopiwatch.cli.output import NOTES, note, print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config
from kopiwatch.errors import RunError
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.report.history import History
from kopiwatch.restore.point import points
from kopiwatch.wiring.adopting import Adoption, move, refuse_mixing, refuse_present
from kopiwatch.wiring.adopting import plan as plan_of
from kopiwatch.words import counted, moment

EXAMPLE = """\b
Examples:
  kopiwatch adopt oldshop shop            the Compose project was renamed
  kopiwatch adopt oldshop shop --dry-run  show what would move
"""


@click.command(epilog=EXAMPLE)
@click.argument("old")
@click.argument("new")
@click.option("--dry-run", is_flag=True, help="Say what would move and stop there.")
@click.option("--yes", is_flag=True, help="Do not ask, and mix what both names have.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
def adopt(old: str, new: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Carry restore points and history of a unit over to its new name.

    The containers must have the new name already, or none at all: OLD is forgotten.
    """
    run(partial(adopt_unit, old, new, dry_run=dry_run, yes=yes, as_json=as_json), json=as_json)


async def adopt_unit(old: str, new: str, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Look, say what it is, ask, and do it under the run lock."""
    config = wiring.configuration()
    command = f"adopt {old} {new}"
    repository = await wiring.reading(config, command)
    async with wiring.docker(config) as where:
        found, _ = await wiring.look(config, where)
        refuse_present(found, old)
        await wiring.refuse_owed(config, old)
        adoption = await plan(config, repository, old, new)
        say(adoption)
        if dry_run:
            if as_json:
                print_json({"dry_run": True, "adopted": adoption})
            return 0
        if not yes:
            refuse_mixing(adoption)
        if not await confirmed("Is that one and the same unit?", yes=yes):
            return 1
        async with wiring.changing(config, where, command, NOTES) as (state, _identity):
            await wiring.settle(repository, state, NOTES)
            found, _ = await wiring.look(config, where)
            refuse_present(found, old)
            again = await plan(config, repository, old, new)
            if again != adoption:
                raise RunError(
                    f"units {old} and {new} changed meanwhile",
                    phase="check",
                    reason="changed",
                    hint="look at them, and try again",
                )
            await carry_out(config, repository, again)
    if as_json:
        print_json({"adopted": adoption})
    else:
        print_text(f"{new}: has the restore points and the history of {old}, which is forgotten")
    return 0


async def plan(config: Config, repository: KopiaRepository, old: str, new: str) -> Adoption:
    """What would move."""
    unfinished = await wiring.unfinished(config)
    everything = points(await repository.snapshots(), host=repository.host, unfinished=unfinished)
    mine = [point for point in everything if point.instance == config.instance]
    async with await History.read_only(config.state_dir) as records:
        known = await records.names()
        rows = await records.runs(unit=old)
        alive = await records.units()
    # A unit that was adopted away leaves its name behind, and nothing else.
    left = {name for name in known if name != old or rows or old in alive}
    return plan_of(old, new, mine, len(rows), left)


def say(adoption: Adoption) -> None:
    """What would move."""
    span = ""
    if adoption.first is not None and adoption.last is not None:
        span = f" ({moment(adoption.first)} to {moment(adoption.last)})"
    note(
        f"{adoption.old} → {adoption.new}: {counted(adoption.points, 'restore point')}{span} and "
        f"{counted(adoption.runs, 'line')} of history; {adoption.old} is forgotten"
    )
    if adoption.mixed:
        note(
            f"warning: {adoption.mixed} points of {adoption.new} are older than the newest of these"
        )


async def carry_out(config: Config, repository: KopiaRepository, adoption: Adoption) -> None:
    """The repository first: whoever dies in between does the rest by doing it again."""
    ids = await move(repository, adoption, repository.host, config.instance)
    opened = await History.open(config.state_dir, clock=SYSTEM)
    async with opened.history as records:
        await records.adopt(adoption.old, adoption.new, snapshots=ids, now=SYSTEM.now())
