"""``kopiwatch points``."""

from __future__ import annotations

from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli.output import note, print_json, print_table
from kopiwatch.cli.running import run
from kopiwatch.errors import UnknownUnit
from kopiwatch.restore.point import Point, of_host
from kopiwatch.restore.point import points as find
from kopiwatch.words import moment, size

EXAMPLE = """\b
Examples:
  kopiwatch points              every unit of this host
  kopiwatch points shop         one unit
  kopiwatch points --host all   of all hosts in the repository
"""


@click.command(epilog=EXAMPLE)
@click.argument("unit", required=False, default="")
@click.option("--host", default="", help="Another host's points, or 'all'. Default: this host.")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def points(unit: str, *, host: str, as_json: bool) -> None:
    """List restore points, from the repository alone.

    Only points that are 'complete' are offered for a restore; the others say why they are not.
    """
    run(partial(show_points, unit, host, as_json=as_json), json=as_json)


async def show_points(unit: str, host: str, *, as_json: bool) -> int:
    """List them; reads only."""
    config = wiring.configuration()
    repository = await wiring.reading(config, "points")
    chosen = "" if host == "all" else host or repository.host
    everything = find(await repository.snapshots(), unfinished=await wiring.unfinished(config))
    found = list(of_host(everything, chosen, config.instance))
    if unit:
        units = sorted({point.unit for point in found})
        found = [point for point in found if point.unit == unit]
        if not found:
            raise UnknownUnit(
                f"there is no restore point of a unit {unit!r}",
                hint="units with points: " + (", ".join(units) or "none"),
            )
    if as_json:
        print_json({"points": found})
        return 0
    if not found:
        note("there are no restore points yet; `kopiwatch backup --all` makes the first")
        return 0
    titles = ("UNIT", "TIME", "RUN", "STATE", "FILES", "SIZE", "MODE", "SCOPE", "HOST")
    print_table(
        titles if not chosen else titles[:-1],
        [
            (
                point.unit,
                moment(point.at),
                point.run or point.snapshot,
                _state(point),
                str(point.files),
                size(point.size),
                point.mode,
                point.scope,
                *(() if chosen else (point.host,)),
            )
            for point in found
        ],
    )
    return 0


def _state(point: Point) -> str:
    if point.accepted:
        return f"{point.state} (accepted: {point.accepted})"
    return f"{point.state} ({point.reason})" if point.reason else point.state
