"""Readers of single label values: text in, a typed value or a :class:`Bad` out.

No reader raises and none invents: what is not understood comes back as ``Bad`` with the reason
and, where there is one, the nearest valid value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import time, timedelta

import msgspec

from kopiwatch.config import NAME, NAME_LIMIT, duration
from kopiwatch.config import nearest as nearest  # noqa: PLC0414 - the rooms above use it, too
from kopiwatch.units.zone import nearest_zone, zone


class Bad(msgspec.Struct, frozen=True):
    """A value that cannot be used: ``reason`` completes "this value …", ``suggestion`` helps."""

    reason: str
    suggestion: str = ""


Reader = Callable[[str], object]
"""Takes a stripped, non-empty text; returns the typed value or a :class:`Bad`."""

TRUE_WORDS = frozenset({"true", "1", "yes", "on"})
FALSE_WORDS = frozenset({"false", "0", "no", "off"})

_TIME_RANGE = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]-([01][0-9]|2[0-3]):[0-5][0-9]")
_NUMBER = re.compile(r"[0-9]{1,9}")
_PERCENT = re.compile(r"([0-9]{1,3})%")


def read(reader: Reader, text: str) -> object:
    """The value of ``text``, or :class:`Bad`; surrounding blanks do not count."""
    stripped = text.strip()
    if not stripped:
        return Bad("is empty", "give it a value, or remove the label")
    return reader(stripped)


def read_boolean(text: str) -> bool | Bad:
    """``true/false/1/0/yes/no/on/off``, in any case."""
    word = text.lower()
    if word in TRUE_WORDS:
        return True
    if word in FALSE_WORDS:
        return False
    near = nearest(word, sorted(TRUE_WORDS | FALSE_WORDS))
    return Bad("is not a boolean", _mean(near) or "write 'true' or 'false'")


def read_duration(text: str) -> timedelta | Bad:
    """A positive whole number and a unit: ``90s``, ``15m``, ``26h``, ``7d``."""
    found = duration.duration_of(text)
    return found if found is not None else Bad(*duration.fault_of_duration(text))


def read_list(text: str) -> tuple[str, ...] | Bad:
    """Items between commas, trimmed, each once, in the order given."""
    items = [item.strip() for item in text.split(",")]
    if not all(items):
        good = ",".join(item for item in items if item)
        return Bad("has an empty item between its commas", _mean(good))
    return tuple(dict.fromkeys(items))


def read_name(text: str) -> str | Bad:
    """A name of ours: ``[a-z0-9][a-z0-9_.-]*``, at most 100 characters."""
    if len(text) > NAME_LIMIT:
        return Bad(f"is longer than {NAME_LIMIT} characters")
    if NAME.fullmatch(text):
        return text
    reason = "is not a name: lower-case letters, digits, '_', '.' and '-', a letter or digit first"
    return Bad(reason, _mean(plain_name(text)))


def plain_name(text: str) -> str:
    """The nearest valid name to ``text``; empty if nothing of it can stay."""
    return re.sub(r"[^a-z0-9_.-]+", "-", text.lower()).strip("-_.")[:NAME_LIMIT]


def choice(*values: str) -> Reader:
    """A reader that takes exactly these words."""

    def read_choice(text: str) -> str | Bad:
        if text in values:
            return text
        near = nearest(text, values)
        return Bad(f"is not one of {', '.join(values)}", _mean(near))

    return read_choice


def read_binds(text: str) -> tuple[str, ...] | Bad:
    """``true`` is ``("*",)``, ``false`` is ``()``, anything else a list of destinations."""
    flag = read_boolean(text)
    if not isinstance(flag, Bad):
        return ("*",) if flag else ()
    items = read_list(text)
    if isinstance(items, Bad):
        return items
    for item in items:
        if item.lower() in TRUE_WORDS | FALSE_WORDS:
            return Bad(f"mixes {item!r} with destinations", "write 'true' alone, or a list")
        if item[0] not in "/*?[":
            near = nearest(item.lower(), ("true", "false"))
            hint = _mean(near) or f"did you mean {'/' + item!r}?"
            return Bad(f"names {item!r}, which is no absolute destination", hint)
    return items


def read_profiles(text: str) -> tuple[str, ...] | Bad:
    """Profile names; ``!name`` drops an inherited one, ``!none`` all of them."""
    items = read_list(text)
    if isinstance(items, Bad):
        return items
    for item in items:
        name = read_name(item.removeprefix("!") or "!")
        if isinstance(name, Bad):
            return Bad(f"holds {item!r}, which {name.reason}", name.suggestion)
    return items


def read_number(text: str) -> int | Bad:
    """A whole number from 0 on."""
    return int(text) if _NUMBER.fullmatch(text) else Bad("is not a whole number from 0 on")


def read_collapse(text: str) -> int | Bad | None:
    """A share in percent (``20%``) as its number; ``off`` is None."""
    word = text.lower()
    if word == "off":
        return None
    found = _PERCENT.fullmatch(text)
    if found is None:
        near = "off" if word in FALSE_WORDS - {"0"} else nearest(word, ("off",))
        if _NUMBER.fullmatch(text) and 1 <= int(text) <= 100:
            near = f"{int(text)}%"
        hint = _mean(near) or "such as '20%', or 'off'"
        return Bad("is neither a whole number of percent such as 20% nor 'off'", hint)
    percent = int(found[1])
    if percent == 0:
        return Bad("would refuse nothing", _mean("off"))
    return percent if percent <= 100 else Bad("is more than the whole", "at most '100%'")


def read_text(text: str) -> str | Bad:
    """Any text."""
    return text


def read_timezone(text: str) -> str | Bad:
    """The name of a time zone that there is (``Europe/Berlin``). Reads a file the first time."""
    try:
        zone(text)
    except KeyError:
        hint = _mean(nearest_zone(text)) or "such as UTC or Europe/Berlin"
        return Bad("is not the name of a time zone", hint)
    return text


class Hours(msgspec.Struct, frozen=True):
    """A range of local times, which may span midnight."""

    begin: time
    end: time

    def __str__(self) -> str:
        return f"{self.begin:%H:%M}-{self.end:%H:%M}"

    def hold(self, moment: time) -> bool:
        """Whether a local time lies within."""
        if self.begin <= self.end:
            return self.begin <= moment < self.end
        return moment >= self.begin or moment < self.end


def read_catch_up(text: str) -> bool | Hours | Bad:
    """A boolean, or the hours in which to catch up: ``22:00-06:00``."""
    if _TIME_RANGE.fullmatch(text):
        begin, end = (time.fromisoformat(word) for word in text.split("-"))
        return Bad("is no time at all") if begin == end else Hours(begin, end)
    flag = read_boolean(text)
    if isinstance(flag, Bad):
        return Bad("is neither a boolean nor a range of hours such as 22:00-06:00", flag.suggestion)
    return flag


DUMP_ENGINES = ("postgres", "mysql", "mariadb", "mongodb", "redis", "sqlite", "command")


def read_dump(text: str) -> str | Bad:
    """A database engine; SQLite with the path of its file: ``sqlite:/data/app.db``."""
    engine, colon, path = text.partition(":")
    if engine == "sqlite" and not path.startswith("/"):
        return Bad("does not say which file", "write sqlite:/path/in/the/container")
    if engine not in DUMP_ENGINES:
        return Bad(f"is not one of {', '.join(DUMP_ENGINES)}", _mean(nearest(engine, DUMP_ENGINES)))
    if colon and engine != "sqlite":
        return Bad("takes nothing after a colon", _mean(engine))
    return text


def read_command(text: str) -> tuple[str, ...] | Bad:
    """A JSON array of words, or one string that becomes ``("sh", "-c", string)``."""
    if not text.startswith("["):
        return ("sh", "-c", text)
    hint = 'such as ["pg_ctl", "status"]'
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        return Bad("starts like a JSON array but is none", hint)
    if not words or not all(isinstance(word, str) for word in words) or not words[0]:
        return Bad("is not a JSON array of words, the program first", hint)
    return tuple(words)


def read_notify(text: str) -> str | tuple[str, ...] | Bad:
    """``always``, ``failure``, ``never``, or the aliases of channels."""
    if text in ("always", "failure", "never"):
        return text
    items = read_list(text)
    if isinstance(items, Bad):
        return items
    for item in items:
        name = read_name(item)
        if isinstance(name, Bad):
            return Bad(f"holds {item!r}, which {name.reason}", name.suggestion)
    return items


def _mean(word: str) -> str:
    return f"did you mean {word!r}?" if word else ""
