"""``kopiwatch units``."""

from __future__ import annotations

import re
from functools import partial

import anyio.to_thread
import click
import msgspec

from kopiwatch import wiring
from kopiwatch.backup.recipe import coverage_of
from kopiwatch.backup.settle import readable
from kopiwatch.backup.state import StateFolder
from kopiwatch.cli.output import note, print_json, print_table, print_text
from kopiwatch.cli.running import run
from kopiwatch.engine.port import Engine
from kopiwatch.kopia.lock import holder
from kopiwatch.task import together
from kopiwatch.units.unit import Coverage, Problem, Source, Unit

EXAMPLE = """\b
Examples:
  kopiwatch units          all units, a line each
  kopiwatch units shop     every mount of one unit, and what becomes of it
"""


@click.command(epilog=EXAMPLE)
@click.argument("unit", required=False, default="")
@click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")
def units(unit: str, *, as_json: bool) -> None:
    """List units, or show one in detail: members, order, and what becomes of every mount."""
    run(partial(show_units, unit, as_json=as_json), json=as_json)


async def show_units(name: str, *, as_json: bool) -> int:
    """Show them; reads only."""
    config = wiring.configuration()
    async with wiring.docker(config) as where:
        found, _ = await wiring.look(config, where)
        chosen = wiring.choose(found, (name,)) if name else found.units
        if name:
            chosen = (await _in_full(where.engine, chosen[0]),)
    state = StateFolder(config.state_dir)
    held = (await readable(state.journals)).items()
    down = {unit: [m.name for m in journal.members] for unit, journal in held if journal.members}
    hooks = {unit: [h.name for h in journal.hooks] for unit, journal in held if journal.hooks}
    alive = await anyio.to_thread.run_sync(holder, state.run_lock) if down or hooks else None
    if as_json:
        records = [record(unit) for unit in chosen]
        owed = {"held_down": down, "hooks_owed": hooks, "run_lock": alive}
        print_json({"units": records, **owed, "ignored": found.ignored})
        return 0
    if name:
        _detail(chosen[0])
    else:
        _list(chosen)
        for ignored in found.ignored:
            note(f"not a member: {ignored}")
        if not chosen:
            note('no container carries kopi.enable: "true"')
    for unit, members in down.items():
        names = ", ".join(members)
        if alive:
            note(f"{unit}: held down just now by a run of {alive}: {names}")
        else:
            note(f"{unit}: LEFT DOWN by a run that died: {names}; `kopiwatch backup` starts them")
    for unit, containers in hooks.items():
        if alive:
            continue
        names = ", ".join(containers)
        note(f"{unit}: a run that died owes the post hook of {names}; `kopiwatch backup` runs it")
    return 0


async def _in_full(engine: Engine, unit: Unit) -> Unit:
    """The unit with those mounts, too, that Docker's list does not show."""
    inspected = await together(
        [partial(engine.inspect, member.container.id) for member in unit.members]
    )
    return msgspec.structs.replace(unit, coverage=coverage_of(unit, inspected))


class MemberRecord(msgspec.Struct, frozen=True):
    """A member as ``--json`` shows it: without its labels, which may hold somebody's secrets."""

    container: str
    id: str
    image: str
    state: str
    mode: str


class UnitRecord(msgspec.Struct, frozen=True):
    """A unit as ``--json`` shows it."""

    unit: str
    valid: bool
    origin: str
    scope: str
    members: tuple[MemberRecord, ...]
    sources: tuple[Source, ...]
    coverage: tuple[Coverage, ...]
    problems: tuple[Problem, ...]
    warnings: tuple[str, ...]


def record(unit: Unit) -> UnitRecord:
    """What ``--json`` shows of a unit."""
    members = (
        MemberRecord(
            m.container.name, m.container.id, m.container.image, m.container.state, m.settings.mode
        )
        for m in unit.members
    )
    return UnitRecord(
        unit=unit.name,
        valid=unit.valid,
        origin=unit.origin,
        scope=unit.settings.scope,
        members=tuple(members),
        sources=unit.sources,
        coverage=unit.coverage,
        problems=unit.problems,
        warnings=unit.warnings,
    )


def _shown(what: str) -> str:
    """An anonymous volume's name is 64 digits that tell nobody anything."""
    return f"(anonymous) {what[:12]}" if re.fullmatch("[0-9a-f]{64}", what) else what


def _list(chosen: tuple[Unit, ...]) -> None:

    if chosen:
        print_table(
            ("UNIT", "STATE", "MEMBERS", "SOURCES", "NOT COVERED"),
            [
                (
                    unit.name,
                    "ready" if unit.valid else "DISABLED",
                    ", ".join(member.container.name for member in unit.members),
                    str(len(unit.sources)) if unit.sources else "recipe only",
                    str(sum(c.state != "protected" for c in unit.coverage)),
                )
                for unit in chosen
            ],
        )
    for unit in chosen:
        for problem in unit.problems:
            print_text(f"{unit.name}: {problem}")


def _detail(unit: Unit) -> None:

    print_text(f"unit {unit.name}: {'ready' if unit.valid else 'DISABLED'}")
    for problem in unit.problems:
        print_text(f"problem: {problem}")
    for warning in unit.warnings:
        print_text(f"warning: {warning}")
    print_text("")
    print_table(
        ("MEMBER", "IMAGE", "STATE", "MODE"),
        [
            (m.container.name, m.container.image, m.container.state, m.settings.mode)
            for m in unit.members
        ],
    )
    print_text("")
    dumps = [source for source in unit.sources if source.kind == "dump"]
    if not unit.coverage and not dumps:
        print_text("no mounts: a backup holds the recipe only")
        return
    rows = [
        (c.container, c.destination, c.what, c.state, c.source or c.reason) for c in unit.coverage
    ]
    rows += [(", ".join(s.users), "(dump)", "database", "protected", s.path) for s in dumps]
    print_table(("MEMBER", "MOUNT", "WHAT", "STATE", "STORED AS / WHY NOT"), rows)
