"""``kopiwatch forget``."""

from __future__ import annotations

from functools import partial

import anyio.to_thread
import click

from kopiwatch import wiring
from kopiwatch.backup.state import StateFolder
from kopiwatch.cli.output import print_json, print_text
from kopiwatch.cli.running import run
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config, nearest
from kopiwatch.errors import UnknownUnit, UsageError
from kopiwatch.report.history import History

EXAMPLE = """\b
Example:
  kopiwatch forget oldshop    its containers are gone for good: no alarm any more
"""


@click.command(epilog=EXAMPLE)
@click.argument("unit")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def forget(unit: str, *, as_json: bool) -> None:
    """Stop watching a unit whose containers are gone, and alarming about it.

    Its restore points stay in the repository. If its containers come back, it is a new unit.
    """
    run(partial(forget_unit, unit, as_json=as_json), json=as_json)


async def forget_unit(unit: str, *, as_json: bool) -> int:
    """Forget it, unless it is there or is owed something."""
    config = wiring.configuration()
    state = StateFolder(config.state_dir)
    await anyio.to_thread.run_sync(state.open)
    await _refuse_present(config, unit)
    await wiring.refuse_owed(config, unit)
    opened = await History.open(state.path, clock=SYSTEM)
    try:
        known = await opened.history.units()
        if unit not in known:
            close = nearest(unit, known)
            raise UnknownUnit(
                f"there is no unit {unit!r} to forget",
                hint=(f"did you mean {close!r}? " if close else "")
                + "known units: "
                + (", ".join(sorted(known)) or "none"),
            )
        await opened.history.forget(unit, SYSTEM.now())
    finally:
        await opened.history.close()
    if as_json:
        print_json({"forgotten": unit})
    else:
        print_text(f"{unit}: forgotten; its restore points stay")
    return 0


async def _refuse_present(config: Config, unit: str) -> None:
    """A unit that is there is watched. Docker must say that it is gone: silence is no proof."""
    async with wiring.docker(config) as where:
        found, _ = await wiring.look(config, where)
    members = {each.name: each.members for each in found.units}.get(unit)
    if members:
        names = ", ".join(member.container.name for member in members)
        raise UsageError(
            f"unit {unit} has containers: {names}",
            hint="remove kopi.enable from them (or the containers), then forget it",
        )
