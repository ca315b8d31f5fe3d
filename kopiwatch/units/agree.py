"""The settings of a whole unit: any member may give them, and members must agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from kopiwatch.units.default import Defaults, matters, read_default
from kopiwatch.units.label import find
from kopiwatch.units.parse import Given, Labelled
from kopiwatch.units.profile import RANK_LABEL
from kopiwatch.units.retention import LABELS as RETENTION
from kopiwatch.units.retention import Retention
from kopiwatch.units.setting import UnitSettings
from kopiwatch.units.unit import Effective, Problem
from kopiwatch.units.value import Bad


class Agreement(msgspec.Struct, frozen=True):
    """What the members say for their unit; ``said_by`` holds, by label, who and the value.

    Nobody (empty) says what comes from the defaults.
    """

    settings: UnitSettings
    said_by: dict[str, tuple[str, Given]]
    problems: tuple[Problem, ...]


def agree(members: Sequence[Labelled], defaults: Defaults) -> Agreement:
    """The unit-wide settings of ``members``, which are ordered by name.

    A label on any member wins over profiles, a named profile over the default one; only those who
    speak equally loud are compared, by value and not by spelling (``60m`` is ``1h``). ``defaults``
    hold where no member says anything.
    """
    fields: dict[str, Any] = {}
    said_by: dict[str, tuple[str, Given]] = {}
    problems = []
    for label in sorted({name for member in members for name in member.unit_wide}):
        voices = [(m.container.name, m.unit_wide[label]) for m in members if label in m.unit_wide]
        loudest = max(given.layer.rank for _, given in voices)
        voices = [voice for voice in voices if voice[1].layer.rank == loudest]
        problems += list(_disagreement(label, voices))
        row = find(label)
        said_by[label] = voices[0]
        if row is not None and row.field:
            fields[row.field] = voices[0][1].value
    for label in sorted(defaults.keys() - said_by.keys()):
        row, found = find(label), read_default(label, defaults)
        if isinstance(found, Bad) and matters(label, fields):
            name, text = members[0].container.name, defaults[label][0]
            problems.append(Problem(name, label, text, found.reason, found.suggestion))
        elif not isinstance(found, Bad):
            said_by[label] = ("", found)
            if row is not None and row.field:
                fields[row.field] = found.value
    settings = _settings(fields)
    if settings.retention.empty:
        name, given = said_by[RETENTION[0]]
        reason = "keeps nothing: all six numbers of the retention are 0"
        hint = "give one of them, such as kopi.retention.latest, a number from 1 on"
        problems.append(
            Problem(name or members[0].container.name, RETENTION[0], given.text, reason, hint)
        )
    return Agreement(settings, said_by, tuple(problems))


def without_members(defaults: Defaults) -> UnitSettings:
    """The settings of a unit that nobody speaks for any more: those of the configuration.

    What is wrong with that is for :func:`~kopiwatch.units.default.check_defaults` to say.
    """
    fields: dict[str, Any] = {}
    for label in defaults:
        row, found = find(label), read_default(label, defaults)
        if row is not None and row.field and not isinstance(found, Bad):
            fields[row.field] = found.value
    return _settings(fields)


def _settings(fields: dict[str, Any]) -> UnitSettings:
    """The settings of these values by field; ``retention.latest`` is one in another value."""
    numbers = {
        name.removeprefix("retention."): fields[name]
        for name in fields
        if name.startswith("retention.")
    }
    plain = {name: value for name, value in fields.items() if "." not in name}
    return UnitSettings(retention=Retention(**numbers), **plain)


def _disagreement(label: str, voices: Sequence[tuple[str, Given]]) -> Iterable[Problem]:
    first_name, first = voices[0]
    for name, other in voices[1:]:
        if other.value != first.value:
            reason = f"{name} says {other.text!r}; it holds for the whole unit, so members agree"
            yield Problem(
                first_name, label, first.text, reason, "keep one of them, on any one member"
            )
            return


def spread(member: Labelled, agreement: Agreement) -> tuple[Effective, ...]:
    """The settings that hold for ``member``, with those that other members gave for the unit."""
    lines = []
    pending = dict(agreement.said_by)
    for line in member.effective:
        voice = pending.pop(line.label, None)
        lines.append(line if voice is None else _line(member, line.label, *voice))
    lines += [_line(member, label, *voice) for label, voice in pending.items()]
    return tuple(lines)


def _line(member: Labelled, label: str, name: str, given: Given) -> Effective:
    own = member.unit_wide.get(label)
    if own is not None and own.layer.rank == given.layer.rank:
        return Effective(label, own.text, own.origin)
    origin = f"label on {name}" if given.layer.rank == RANK_LABEL else given.origin
    return Effective(label, given.text, origin)
