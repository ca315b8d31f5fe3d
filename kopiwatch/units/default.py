"""What holds where no label and no profile says otherwise: settings of the configuration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from kopiwatch.units.label import find
from kopiwatch.units.parse import Given
from kopiwatch.units.profile import RANK_SETTING, Layer
from kopiwatch.units.retention import LABELS as RETENTION
from kopiwatch.units.retention import Retention
from kopiwatch.units.schedule import DEFAULT, Schedule
from kopiwatch.units.value import Bad, read

Defaults = Mapping[str, tuple[str, str]]
"""By label of level ``unit``: the text, and where it stands (``environment TZ``, ``file PATH``)."""

TIMEZONE = "kopi.timezone"


def read_default(label: str, defaults: Defaults) -> Given | Bad:
    """The default of a label. Raises KeyError for a label that has none in ``defaults``."""
    text, origin = defaults[label]
    row = find(label)
    value = read(row.reader, text) if row is not None else Bad("is not a label of kopiwatch")
    if isinstance(value, Bad):
        return Bad(f"{origin}: {value.reason}", value.suggestion)
    return Given(value, text.strip(), Layer(origin, RANK_SETTING, {label: text}))


def matters(label: str, fields: Mapping[str, Any]) -> bool:
    """Whether a default has any effect beside these settings: a zone has none without cron.

    ``TZ`` is not ours alone: only who needs it is told that it cannot be used.
    """
    schedule = fields.get("schedule", DEFAULT)
    return label != TIMEZONE or not isinstance(schedule, Schedule) or bool(schedule.cron)


def check_defaults(defaults: Defaults) -> tuple[str, ...]:
    """What is wrong with the defaults themselves, for units that say nothing else; sentences."""
    fields: dict[str, Any] = {}
    problems = []
    for label in sorted(defaults):
        found = read_default(label, defaults)
        row = find(label)
        if isinstance(found, Given) and row is not None:
            fields[row.field] = found.value
        elif isinstance(found, Bad) and matters(label, fields):
            hint = f" ({found.suggestion})" if found.suggestion else ""
            origin, _, reason = found.reason.partition(": ")
            problems.append(f"{origin}: {defaults[label][0]!r} {reason}{hint}")
    numbers = [fields.get(f"retention.{name}") for name in Retention().numbers]
    if all(number == 0 for number in numbers):
        problems.append(f"{defaults[RETENTION[0]][1]}: all six numbers of the retention are 0")
    return tuple(problems)
