"""Time zones by name: read from disk once, and kept."""

from __future__ import annotations

from datetime import UTC, tzinfo
from functools import lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

from kopiwatch.config import nearest

_NO_PLACES = frozenset({"Factory", "localtime", "posixrules"})


@lru_cache(maxsize=1024)
def zone(name: str) -> tzinfo:
    """A time zone by its name; raises KeyError if there is none of it.

    Reads a file the first time. ``UTC`` needs none.
    """
    if name == "UTC":
        return UTC
    # The list also keeps out what some hosts have besides: right/Europe/Berlin counts leap seconds.
    if name not in zone_names():
        raise KeyError(name)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError) as error:
        raise KeyError(name) from error


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """The names of all zones, from the package tzdata: the same on every host. Reads one file."""
    text = resources.files("tzdata").joinpath("zones").read_text("ascii")
    return frozenset(text.split()) - _NO_PLACES


def nearest_zone(word: str) -> str:
    """The zone that somebody who wrote ``word`` most likely meant, or empty.

    A city is enough (``berlin``). Etc/GMT+2 is never suggested: it lies west of Greenwich, and
    whoever writes GMT+2 means east.
    """
    names = sorted(name for name in zone_names() if not name.startswith("Etc/GMT"))
    city = word.lower().replace(" ", "_").rpartition("/")[2]
    for name in names:
        if name.lower() == word.lower():
            return name
    homes = [name for name in names if "/" in name and name.lower().rpartition("/")[2] == city]
    return homes[0] if len(homes) == 1 else nearest(word, names, cutoff=0.7)
