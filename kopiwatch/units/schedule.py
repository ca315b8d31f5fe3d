"""The shape of a schedule: what may stand in ``kopi.schedule``; not yet when it is due."""

from __future__ import annotations

import re

from kopiwatch.config import nearest
from kopiwatch.units.value import FALSE_WORDS, Bad, read_duration

NICKNAMES = ("@hourly", "@daily", "@midnight", "@weekly", "@monthly", "@annually", "@yearly")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
_PART = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]{1,4}))?")


def read_schedule(text: str) -> str | Bad:
    """Five-field cron, ``@daily`` and its kin, ``every 6h``, or ``off``."""
    lower = text.lower()
    if lower == "off":
        return "off"
    if lower in FALSE_WORDS:
        return Bad("is not a schedule", "write 'off' in quotes: YAML reads a bare off as false")
    if lower.startswith("@"):
        if lower in NICKNAMES:
            return lower
        near = nearest(lower, NICKNAMES)
        return Bad(f"is not one of {', '.join(NICKNAMES)}", near and f"did you mean {near!r}?")
    if lower.startswith("every"):
        interval = read_duration(lower.removeprefix("every").strip())
        if isinstance(interval, Bad):
            return Bad("is not an interval such as 'every 6h'", interval.suggestion)
        return lower
    return _read_cron(text)


def _read_cron(text: str) -> str | Bad:
    fields = text.split()
    if len(fields) != len(_FIELDS):
        reason = f"is not a schedule: cron has five fields, here are {len(fields)}"
        return Bad(reason, "such as '0 2 * * *', '@daily' or 'every 6h'")
    for field, (what, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.lower().split(","):
            if not _fits(part, low, high, names):
                reason = f"has {field!r} as its {what}, which is not within {low}-{high}"
                return Bad(reason, "such as '0 2 * * *'")
    return " ".join(fields)


def _fits(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    match = _PART.fullmatch(part)
    if match is None or (match[1] == "*" and match[2]) or (match[3] and not int(match[3])):
        return False
    ends = [_number(end, low, names) for end in (match[1], match[2]) if end and end != "*"]
    return all(low <= end <= high for end in ends) and ends == sorted(ends)


def _number(word: str, low: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word) + low
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 2 else -1
