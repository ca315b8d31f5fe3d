"""``kopiwatch repo retention``: why restore points are kept, and letting go of the others."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial

import click
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.keep import MOST_AT_ONCE
from kopiwatch.cli.output import NOTES, note, print_json, print_table, print_text
from kopiwatch.cli.running import run
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config
from kopiwatch.errors import KopiwatchError, LabelError, UsageError
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.kopia.retention import Fate
from kopiwatch.wiring.retention import Standing, let_go, standings
from kopiwatch.words import counted, moment

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")


@click.group(
    epilog="""\b
Examples:
  kopiwatch repo retention show shop              why each point of the unit is kept
  kopiwatch repo retention apply --dry-run        what would go, of all units
  kopiwatch repo retention apply shop --yes       let it go, also more than ten at once
"""
)
def retention() -> None:
    """Show why restore points are kept, or delete those that nothing keeps.

    A successful backup does the latter by itself.
    """


@retention.command(epilog="\b\nExample:\n  kopiwatch repo retention show shop")
@click.argument("unit", required=False, default="")
@JSON
def show(unit: str, *, as_json: bool) -> None:
    """Show a unit's rule, and of every restore point why it is kept, or that it would go."""
    run(partial(show_retention, unit, as_json=as_json), json=as_json)


@retention.command(epilog="\b\nExample:\n  kopiwatch repo retention apply shop --dry-run")
@click.argument("unit", required=False, default="")
@click.option("--dry-run", is_flag=True, help="Say what would go, and stop there.")
@click.option("--yes", is_flag=True, help=f"Delete more than {MOST_AT_ONCE} at once, too.")
@JSON
def apply(unit: str, *, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the restore points of this host that no rule keeps.

    A unit whose containers are gone is left alone unless it is named; the configuration's numbers
    hold for it then.
    """
    task = partial(show_retention, unit, as_json=as_json, only_going=True)
    if not dry_run:
        task = partial(apply_retention, unit, yes=yes, as_json=as_json)
    run(task, json=as_json)


class PointRecord(msgspec.Struct, frozen=True):
    """A manifest as ``--json`` shows it; ``kept`` is empty if it goes."""

    run: str
    at: datetime
    snapshot: str
    state: str
    reason: str
    kept: tuple[str, ...]


class UnitRecord(msgspec.Struct, frozen=True):
    """A unit as ``--json`` shows it. ``rule`` is null where nothing may be deleted."""

    unit: str
    rule: dict[str, int] | None
    timezone: str
    gone: bool
    trouble: str
    points: tuple[PointRecord, ...]
    deleted: tuple[str, ...] = ()


def record(standing: Standing, deleted: Sequence[str] = (), trouble: str = "") -> UnitRecord:
    """What ``--json`` shows of a unit."""
    return UnitRecord(
        unit=standing.unit,
        rule=standing.rule.numbers if standing.rule else None,
        timezone=standing.timezone,
        gone=standing.gone,
        trouble=trouble or standing.trouble,
        points=tuple(
            PointRecord(
                run=fate.snapshot.tag("run"),
                at=fate.snapshot.start_time.astimezone(UTC),
                snapshot=fate.snapshot.id,
                state=fate.state,
                reason=fate.reason,
                kept=fate.kept,
            )
            for fate in standing.fates
        ),
        deleted=tuple(deleted),
    )


async def show_retention(unit: str, *, as_json: bool, only_going: bool = False) -> int:
    """Show what is kept and what would go; reads only."""
    config = wiring.configuration()
    async with wiring.docker(config) as where:
        repository = await wiring.reading(config, "repo retention show")
        told = await look(config, where, repository, unit)
    if as_json:
        head = {"dry_run": True} if only_going else {}
        print_json({**head, "units": [record(standing) for standing in told]})
    elif not told:
        note("there are no restore points yet; `kopiwatch backup --all` makes the first")
    else:
        for standing in told:
            (print_going if only_going else print_standing)(standing)
    return code_of(told)


async def look(
    config: Config, where: wiring.Docker, repository: KopiaRepository, unit: str
) -> tuple[Standing, ...]:
    """What is in the repository, judged by the labels of this moment; says whose are gone."""
    found, _ = await wiring.look(config, where)
    told = await standings(
        config,
        found,
        await repository.snapshots(),
        host=repository.host,
        name=unit,
        now=SYSTEM.now(),
        unfinished=await wiring.unfinished(config),
    )
    for standing in told:
        if standing.gone and standing.rule is not None:
            note(
                f"{standing.unit}: its containers are gone, and its labels: the configuration's "
                "numbers hold"
            )
    return told


def code_of(told: Sequence[Standing]) -> int:
    """3 if a unit is disabled by its labels: nobody knows then what it wants kept."""
    return LabelError.exit_code if any(standing.invalid for standing in told) else 0


async def apply_retention(unit: str, *, yes: bool, as_json: bool) -> int:
    """Delete what nothing keeps, a call for each unit; the run lock is held throughout."""
    config = wiring.configuration()
    command = f"repo retention apply {unit}".rstrip()
    records: list[UnitRecord] = []
    code = 0
    async with (
        wiring.docker(config) as where,
        wiring.changing(config, where, command, NOTES) as (state, _),
    ):
        repository = await wiring.reading(config, command)
        await wiring.settle(repository, state, NOTES)
        told = await look(config, where, repository, unit)
        require_word(sum(len(standing.going) for standing in told), unit, yes=yes)
        code = code_of(told)
        for standing in told:
            try:
                await let_go(repository, state.journals, standing)
            except KopiwatchError as error:
                records.append(record(standing, trouble=error.message))
                note(f"{standing.unit}: nothing was deleted: {error.message}")
                code = error.exit_code
                continue
            records.append(record(standing, [fate.snapshot.id for fate in standing.going]))
            if not as_json:
                print_gone(standing)
    if as_json:
        print_json({"dry_run": False, "units": records})
    return code


def require_word(number: int, unit: str, *, yes: bool) -> None:
    """Raise UsageError for a mass deletion that nobody confirmed."""
    if number > MOST_AT_ONCE and not yes:
        raise UsageError(
            f"that would delete {number} restore points; more than {MOST_AT_ONCE} need --yes",
            hint=f"look at them first: `{f'kopiwatch repo retention show {unit}'.rstrip()}`",
        )


# -- for people --------------------------------------------------------------------------------


def print_standing(standing: Standing) -> None:
    """A unit's rule, and each of its points."""
    _print_head(standing)
    if not standing.fates:
        return
    print_table(
        ("TIME", "RUN", "STATE", "KEPT"),
        [
            (moment(fate.snapshot.start_time), _run(fate), _state(fate), _why(fate))
            for fate in standing.fates
        ],
    )
    print_text()


def print_going(standing: Standing) -> None:
    """What would go."""
    _print_head(standing)
    for fate in standing.going:
        print_text(f"  would delete {_sentence(fate)}")
    if standing.rule is not None and not standing.going:
        print_text("  would delete nothing")


def print_gone(standing: Standing) -> None:
    """What went."""
    if standing.rule is None:
        _print_head(standing)
        return
    kept = counted(len(standing.fates) - len(standing.going), "manifest")
    print_text(f"{standing.unit}: deleted {len(standing.going)}, kept {kept}")
    for fate in standing.going:
        print_text(f"  deleted {_sentence(fate)}")


def _print_head(standing: Standing) -> None:
    if standing.rule is None:
        count = counted(standing.count, "manifest")
        print_text(f"{standing.unit}: {count}; {standing.trouble}")
        return
    print_text(f"{standing.unit}: {standing.rule} (days of {standing.timezone})")


def _run(fate: Fate) -> str:
    return fate.snapshot.tag("run") or fate.snapshot.id


def _state(fate: Fate) -> str:
    return f"{fate.state} ({fate.reason})" if fate.reason else fate.state


def _why(fate: Fate) -> str:
    return ", ".join(fate.kept) or "GOES"


def _sentence(fate: Fate) -> str:
    return f"{_run(fate)} of {moment(fate.snapshot.start_time)}: {_state(fate)}"
