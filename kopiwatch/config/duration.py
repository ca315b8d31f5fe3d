"""Durations as people write them: a whole number and a unit, such as ``90s`` or ``26h``."""

from __future__ import annotations

import re
from datetime import timedelta
from fractions import Fraction

LONGEST_DURATION = timedelta(days=36_500)
"""A century: far beyond any sensible setting, far below what overflows date arithmetic."""

_UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_DURATION = re.compile(r"([0-9]{1,12})([smhd])")
_LOOSE_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)\s*([a-z]+)\s*")


def duration_of(text: str) -> timedelta | None:
    """The positive time that ``text`` says; None where :func:`fault_of_duration` has a word."""
    match = _DURATION.fullmatch(text)
    seconds = int(match[1]) * _UNIT_SECONDS[match[2]] if match else 0
    if not 0 < seconds <= LONGEST_DURATION.total_seconds():
        return None
    return timedelta(seconds=seconds)


def fault_of_duration(text: str) -> tuple[str, str]:
    """What is wrong with ``text`` ("is …"), and what would be right; empty where nothing is."""
    if duration_of(text) is not None:
        return "", ""
    match = _DURATION.fullmatch(text)
    if match is None:
        return "is not a duration such as 90s, 15m, 26h or 7d", _suggestion(text)
    if not int(match[1]):
        return "is no time at all; a duration is at least 1s", ""
    return f"is too long; the longest duration is {LONGEST_DURATION.days}d", ""


def _suggestion(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,9}", text):
        return f"say the unit: {text}s, {text}m, {text}h or {text}d"
    total, rest = Fraction(0), text.lower()
    while match := _LOOSE_PART.match(rest):
        total += Fraction(match[1]) * _UNIT_SECONDS.get(match[2][0], 0)
        rest = rest[match.end() :]
    if rest or total <= 0 or total.denominator != 1:
        return ""
    return f"did you mean {write_duration(int(total))!r}?"


def write_duration(seconds: int) -> str:
    """``seconds`` in the largest unit that divides them: 5400 is ``90m``."""
    for unit in "dhm":
        if seconds % _UNIT_SECONDS[unit] == 0:
            return f"{seconds // _UNIT_SECONDS[unit]}{unit}"
    return f"{seconds}s"
