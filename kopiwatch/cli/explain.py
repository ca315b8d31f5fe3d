"""``kopiwatch explain``."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import click
import msgspec
from msgspec.structs import replace

from kopiwatch import wiring
from kopiwatch.cli.output import print_json, print_table, print_text
from kopiwatch.cli.running import run
from kopiwatch.config import Config, nearest
from kopiwatch.errors import HistoryError, UsageError
from kopiwatch.report.history import History

LAST = 10
EXAMPLE = """\b
Example:
  kopiwatch explain shop-db-1
"""


@click.command(epilog=EXAMPLE)
@click.argument("container")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def explain(container: str, *, as_json: bool) -> None:
    """Show each setting of a container, and whether a label, a profile or a default set it."""
    run(partial(show_settings, container, as_json=as_json), json=as_json)


async def show_settings(name: str, *, as_json: bool) -> int:
    """Show them; reads only."""
    config = wiring.configuration()
    async with wiring.docker(config) as where:
        found, _ = await wiring.look(config, where)
    members = {m.container.name: (m, unit) for unit in found.units for m in unit.members}
    ids = {m.container.id: m.container.name for m, _ in members.values()}
    chosen = members.get(name) or next(
        (members[ids[i]] for i in ids if len(name) >= 4 and i.startswith(name)), None
    )
    if chosen is None:
        close = nearest(name, members)
        raise UsageError(
            f"no member is called {name!r}",
            hint=(f"did you mean {close!r}? " if close else "")
            + "members carry kopi.enable=true: "
            + (", ".join(sorted(members)) or "there are none"),
        )
    member, unit = chosen
    effective = [
        replace(line, value=unit.name) if line.label == "kopi.unit" else line
        for line in member.effective
    ]
    last = await _last_strategy(config, unit.name)
    if as_json:
        print_json(
            {
                "container": member.container.name,
                "unit": unit.name,
                "settings": effective,
                "last_strategy": last,
                "problems": unit.problems,
            }
        )
        return 0
    print_text(f"{member.container.name}, unit {unit.name}{'' if unit.valid else ' (DISABLED)'}")
    for problem in unit.problems:
        print_text(f"problem: {problem}")
    print_table(
        ("SETTING", "VALUE", "FROM"),
        [(line.label, line.value, line.origin) for line in effective],
    )
    if last:
        print_text(f"strategy of run {last.run}: {last.strategy}, {last.reason}")
    return 0


class LastStrategy(msgspec.Struct, frozen=True):
    """What the newest run that chose a strategy took, and why."""

    run: str
    strategy: str
    reason: str


async def _last_strategy(config: Config, unit: str) -> LastStrategy | None:
    """From the history; None where it tells nothing, for this command is not about it."""
    with suppress(HistoryError):
        async with await History.read_only(config.state_dir) as records:
            for row in reversed(await records.runs(unit=unit, last=LAST)):
                detail = await records.run(row.run) if row.run else None
                result = detail.result if detail else None
                if result is not None and result.strategy:
                    return LastStrategy(row.run, result.strategy, result.strategy_reason)
    return None
