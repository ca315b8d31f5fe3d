"""Numbers, sizes, lengths and times in words for people."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta


def counted(number: int, thing: str) -> str:
    """A number of things, in good grammar."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def size(count: float) -> str:
    """Bytes for people, in powers of 1024."""
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if count < 1024 or unit == "TiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError("unreachable")


def seconds(value: float) -> str:
    """A length of time for people."""
    if value < 1:
        return f"{value * 1000:.0f} ms"
    if value < 120:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def moment(value: datetime) -> str:
    """A time for people, in UTC and said so."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def age(length: timedelta) -> str:
    """How long ago, roughly: two units at most."""
    total = max(0, round(length.total_seconds()))
    if total < 120:
        return f"{total} s"
    minutes = total // 60
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h" if hours else f"{days} d"


def until(length: timedelta) -> str:
    """How long until something is due."""
    return f"in {age(length)}" if length.total_seconds() > 0 else "now"
