"""``kopiwatch restore``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import click

from kopiwatch import wiring
from kopiwatch.cli.output import NOTES, note, print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.config import Config
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.restore import directory
from kopiwatch.restore.point import of_host, points, select
from kopiwatch.words import counted, moment, size

EXAMPLE = """\b
Examples:
  kopiwatch restore shop --to /srv/rescue                  the newest complete point
  kopiwatch restore shop --volume db --to /srv/rescue      one volume of it
  kopiwatch restore shop --at 2026-11-24T02:00Z --to DIR   as it was at that time
  kopiwatch restore shop --at RUN --to DIR --dry-run       show the plan only
"""


@click.command(epilog=EXAMPLE)
@click.argument("unit")
@click.option(
    "--to", "target", type=click.Path(path_type=Path), required=True, help="An empty or new folder."
)
@click.option("--at", default="latest", help="latest, a time (UTC unless it says else), or a run.")
@click.option("--volume", "volumes", multiple=True, help="Only this volume. Repeatable.")
@click.option("--host", default="", help="A unit of another host. Default: this host.")
@click.option("--dry-run", is_flag=True, help="Show the plan and stop there.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on stdout.")
def restore(
    unit: str,
    *,
    target: Path,
    at: str,
    volumes: tuple[str, ...],
    host: str,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Restore files of a unit into a directory, owners, modes and times kept.

    The directory then holds recipe/, volumes/NAME/ and binds/. Nothing that exists is overwritten.
    """
    wanted = Wanted(unit, at, volumes, host)
    call = partial(restore_files, wanted, target.absolute(), dry_run=dry_run, as_json=as_json)
    run(call, json=as_json)


class Wanted(NamedTuple):
    """Which data: of which unit and host, as of when, and which volumes (none: all)."""

    unit: str
    at: str
    volumes: tuple[str, ...]
    host: str


async def restore_files(wanted: Wanted, target: Path, *, dry_run: bool, as_json: bool) -> int:
    """Plan, show the plan, carry it out, count; the run lock is held unless nothing is written."""
    config = wiring.configuration()
    unit = wanted.unit
    command = f"restore {unit}"
    if dry_run:
        repository = await wiring.reading(config, command)
        chosen = await plan(config, repository, wanted, target)
        if as_json:
            print_json({"dry_run": True, "plan": chosen})
        return 0
    async with wiring.without_docker(config, command, NOTES) as state:
        repository = await wiring.reading(config, command)
        await wiring.settle(repository, state, NOTES)
        chosen = await plan(config, repository, wanted, target)
        told = wiring.Restored(unit, chosen.point.run, target)
        async with wiring.restore_hooks(config, repository.host, told, NOTES) as hooks:
            done = await directory.restore(repository, chosen)
    if as_json:
        print_json({"restored": done, "hooks": hooks})
    else:
        print_text(
            f"{unit}: restored {counted(done.files, 'file')}, {done.directories} directories, "
            f"{done.symlinks} symlinks ({size(done.size)}) to {target}"
        )
    return 0


async def plan(
    config: Config, repository: KopiaRepository, wanted: Wanted, target: Path
) -> directory.Plan:
    """Choose the point and its parts, and say so."""
    everything = points(await repository.snapshots(), unfinished=await wiring.unfinished(config))
    mine = of_host(everything, wanted.host or repository.host, config.instance)
    point = select(wanted.unit, mine, wanted.at)
    chosen = await directory.plan(repository, point, target, wanted.volumes)
    what = ", ".join(chosen.parts) if wanted.volumes else "everything"
    note(
        f"{wanted.unit}: {what} as of {moment(point.at)} (run {point.run}), "
        f"{counted(chosen.files, 'file')}, {size(chosen.size)}, into {target}"
    )
    for warning in chosen.warnings:
        note(f"warning, from when it was taken: {warning}")
    return chosen
