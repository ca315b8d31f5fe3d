"""Time zones by name."""

from __future__ import annotations

from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """A time zone by its name. Reads a file the first time; raises KeyError if there is none."""
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:
        raise KeyError(name) from error


def zone_names() -> list[str]:
    """All zones that there are, for suggestions. Reads many folders."""
    return sorted(available_timezones())
