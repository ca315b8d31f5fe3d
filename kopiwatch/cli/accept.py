"""``kopiwatch accept``."""

from __future__ import annotations

import os
import pwd
import socket
from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli.confirm import confirmed
from kopiwatch.cli.history import of_here
from kopiwatch.cli.output import NOTES, note, print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config
from kopiwatch.errors import HistoryError, RunError
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.report.history import History
from kopiwatch.restore.point import Point, points
from kopiwatch.wiring.accepting import Refused, choose, look_at
from kopiwatch.wiring.accepting import accept as take
from kopiwatch.words import moment

EXAMPLE = """\b
Examples:
  kopiwatch accept shop                      the newest refused run of the unit
  kopiwatch accept shop volumes/shop_cache   only if that is all it was refused for
  kopiwatch accept shop --dry-run            show what would be accepted
"""


@click.command(epilog=EXAMPLE)
@click.argument("unit")
@click.argument("source", required=False, default="")
@click.option("--dry-run", is_flag=True, help="Say what would be accepted and stop there.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
def accept(unit: str, source: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Take a restore point as good that was refused for what it lost.

    For a source that was emptied, made smaller or removed on purpose. The point becomes complete,
    for every host, and later runs are compared with it. Any other fault cannot be accepted.
    """
    task = partial(accept_point, unit, source, dry_run=dry_run, yes=yes, as_json=as_json)
    run(task, json=as_json)


async def accept_point(unit: str, source: str, *, dry_run: bool, yes: bool, as_json: bool) -> int:
    """Look, say what it is, ask, and do it under the run lock."""
    config = wiring.configuration()
    command = f"accept {unit}"
    repository = await wiring.reading(config, command)
    refused = await plan(config, repository, unit, source)
    say(refused)
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "accepted": record(refused)})
        return 0
    if not await confirmed("Is that as it should be?", yes=yes):
        return 1
    async with wiring.without_docker(config, command, NOTES) as state:
        await wiring.settle(repository, state, NOTES)
        again = await plan(config, repository, unit, source)
        if again.point.run != refused.point.run:
            raise RunError(
                f"unit {unit}: run {again.point.run} was refused meanwhile",
                phase="check",
                reason="changed",
                hint="look at it, and try again",
            )
        taken = await take(repository, again.point)
        recorded = await write_down(config, repository, again.point, taken.id)
    if as_json:
        print_json({"accepted": record(again, taken.id), "recorded": recorded})
    else:
        print_text(f"{unit}: run {again.point.run} is accepted; its restore point is complete")
    return 0


async def plan(config: Config, repository: KopiaRepository, unit: str, source: str) -> Refused:
    """The point that would be accepted, judged again."""
    snapshots = await repository.snapshots()
    unfinished = await wiring.unfinished(config)
    everything = points(snapshots, host=repository.host, unfinished=unfinished)
    mine = [point for point in everything if point.instance == config.instance]
    return await look_at(repository, choose(unit, mine), snapshots, source)


def say(refused: Refused) -> None:
    """What there is to accept."""
    point = refused.point
    note(f"{point.unit}: run {point.run}, data of {moment(point.at)}, was refused:")
    for line in refused.sentences or (point.reason,):
        note(f"  {line}")


def record(refused: Refused, snapshot: str = "") -> dict[str, object]:
    """It for programs."""
    point = refused.point
    return {
        "unit": point.unit,
        "run": point.run,
        "at": point.at,
        "reason": point.reason,
        "snapshot": snapshot or point.snapshot,
        "sources": refused.sources,
    }


async def write_down(
    config: Config, repository: KopiaRepository, point: Point, snapshot: str
) -> bool:
    """Put it on record, where a living daemon finds it within seconds. False if that failed.

    The repository has the last word already, so a history that cannot be written is only said.
    """
    unfinished = await wiring.unfinished(config)
    everything = points(await repository.snapshots(), unfinished=unfinished)
    mine, _ = of_here(everything, repository.host, config.instance)
    try:
        opened = await History.open(config.state_dir, clock=SYSTEM)
        async with opened.history as records:
            # A fresh state learns of the run from its point first.
            await records.rebuild(mine)
            await records.accept(
                point.run, snapshot=snapshot, data_at=point.at, at=SYSTEM.now(), who=who()
            )
    except HistoryError as error:
        note(f"accepted in the repository, but not on record here: {error.message}")
        return False
    return True


def who() -> str:
    """Who gives the word, as far as the system knows: behind sudo, whoever called it."""
    try:
        name = os.environ.get("SUDO_USER") or pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        name = str(os.getuid())
    return f"{name}@{socket.gethostname()}"
