"""``kopiwatch restore``."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import click

from kopiwatch.cli import wiring
from kopiwatch.cli.output import moment, note, print_json, print_text, size
from kopiwatch.cli.running import run
from kopiwatch.restore import directory
from kopiwatch.restore.point import points, select

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
@click.option("--at", default="latest", help="latest, a time, or a run. Default: latest.")
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
    call = partial(
        restore_files, unit, target.absolute(), at, volumes, host, dry_run=dry_run, as_json=as_json
    )
    run(call, json=as_json)


async def restore_files(
    unit: str,
    target: Path,
    at: str,
    volumes: tuple[str, ...],
    host: str,
    *,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Plan, show the plan, carry it out, count."""
    config = wiring.configuration()
    repository = await wiring.reading(config, f"restore {unit}")
    found = points(await repository.snapshots(), host=host or repository.host)
    mine = [point for point in found if point.instance == config.instance]
    point = select(unit, mine, at)
    chosen = await directory.plan(repository, point, target, volumes)
    what = ", ".join(chosen.parts) or "everything"
    note(
        f"{unit}: {what} as of {moment(point.at)} (run {point.run}), {chosen.files} files, "
        f"{size(chosen.size)}, into {target}"
    )
    for warning in chosen.warnings:
        note(f"warning, from when it was taken: {warning}")
    if dry_run:
        if as_json:
            print_json({"dry_run": True, "plan": chosen})
        return 0
    async with wiring.restoring(config, f"restore {unit}"):
        done = await directory.restore(repository, chosen)
    if as_json:
        print_json({"restored": done})
    else:
        print_text(
            f"{unit}: restored {done.files} files, {done.directories} directories, "
            f"{done.symlinks} symlinks ({size(done.size)}) to {target}"
        )
    return 0
