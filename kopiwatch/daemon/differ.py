"""Two looks at the units compared, in sentences that a person understands. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kopiwatch.report.history_record import UnitRecord
from kopiwatch.units.group import Discovery
from kopiwatch.units.unit import Unit
from kopiwatch.words import counted


class Line(msgspec.Struct, frozen=True):
    """One line of the log about one unit."""

    action: str
    unit: str
    message: str
    level: str = "info"
    facts: dict[str, str] = msgspec.field(default_factory=dict)


def differences(
    before: Discovery | None, after: Discovery, known: Mapping[str, UnitRecord]
) -> tuple[Line, ...]:
    """What is different since the last look; ``before`` is None for the first one.

    ``known`` are the records: who is in them without containers was there once.
    """
    old = {unit.name: unit for unit in before.units} if before else {}
    new = {unit.name: unit for unit in after.units}
    lines: list[Line] = []
    for name, unit in new.items():
        if name in old:
            lines += _changed(old[name], unit)
        else:
            record = known.get(name)
            back = before is not None and record is not None
            lines += _came(
                unit, back=back or (record is not None and record.gone_since is not None)
            )
    for name, unit in old.items():
        if name not in new:
            names = _members(unit)
            lines.append(
                Line(
                    "unit-gone",
                    name,
                    f"unit {name}: gone with {names}; its deadline still counts, "
                    f"`kopiwatch forget {name}` ends that",
                    "warning",
                )
            )
    if before is None:
        for name, record in known.items():
            if name not in new:
                since = (
                    f" since {record.gone_since:%Y-%m-%d %H:%M} UTC" if record.gone_since else ""
                )
                lines.append(
                    Line(
                        "unit-gone", name, f"unit {name}: its containers are gone{since}", "warning"
                    )
                )
    return tuple(lines)


def _came(unit: Unit, *, back: bool) -> Iterable[Line]:
    action, word = ("unit-back", "back") if back else ("unit-found", "found")
    yield Line(
        action,
        unit.name,
        f"unit {unit.name}: {word}: {_members(unit)}; {counted(len(unit.sources), 'source')}, "
        f"schedule {unit.settings.schedule}",
    )
    yield from _problems(unit)
    yield from _warnings(unit, ())


def _changed(old: Unit, new: Unit) -> Iterable[Line]:
    if old == new:
        return
    told = list(_what_changed(old, new))
    if told:
        yield Line("unit-changed", new.name, f"unit {new.name}: {', '.join(told)}")
    if old.problems and not new.problems:
        yield Line("unit-valid", new.name, f"unit {new.name}: its labels are good again")
    elif old.problems != new.problems:
        yield from _problems(new)
    yield from _warnings(new, old.warnings)


def _what_changed(old: Unit, new: Unit) -> Iterable[str]:
    before = {member.container.name: member for member in old.members}
    after = {member.container.name: member for member in new.members}
    if joined := sorted(after.keys() - before.keys()):
        yield f"{', '.join(joined)} joined"
    if left := sorted(before.keys() - after.keys()):
        yield f"{', '.join(left)} left"
    both = sorted(after.keys() & before.keys())
    anew = [name for name in both if before[name].container.id != after[name].container.id]
    if anew:
        yield f"{', '.join(anew)} recreated"
    sources = {source.path for source in old.sources}, {source.path for source in new.sources}
    if more := sorted(sources[1] - sources[0]):
        yield f"now protects {', '.join(more)}"
    if fewer := sorted(sources[0] - sources[1]):
        yield f"no longer protects {', '.join(fewer)}"
    if str(old.settings.schedule) != str(new.settings.schedule):
        yield f"schedule {new.settings.schedule} instead of {old.settings.schedule}"


def _problems(unit: Unit) -> Iterable[Line]:
    for problem in unit.problems:
        yield Line("unit-invalid", unit.name, f"unit {unit.name}: DISABLED: {problem}", "error")


def _warnings(unit: Unit, told: Iterable[str]) -> Iterable[Line]:
    for warning in unit.warnings:
        if warning not in tuple(told):
            yield Line("unit-warning", unit.name, f"unit {unit.name}: {warning}", "warning")


def _members(unit: Unit) -> str:
    return ", ".join(member.container.name for member in unit.members)
