"""``[hooks]`` of the configuration file: programs that run where kopiwatch runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, cast, get_args

import msgspec

from kopiwatch.config.duration import duration_of, fault_of_duration
from kopiwatch.config.name import nearest

HostHookName = Literal["before_run", "after_run", "before_restore", "after_restore"]
NAMES: tuple[HostHookName, ...] = get_args(HostHookName)
OnError = Literal["fail", "continue"]
EXAMPLE = 'command = ["/usr/local/bin/announce", "begin"]'


class HostHook(msgspec.Struct, frozen=True):
    """One program: its argv (absolute), how long it may take, what its failure means.

    ``units`` are globs of the units that it is for; none means all.
    """

    command: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=60)
    on_error: OnError = "fail"
    units: tuple[str, ...] = ()

    def fits(self, unit: str) -> bool:
        """Whether it is for this unit."""
        return not self.units or any(fnmatchcase(unit, glob) for glob in self.units)


KEYS = HostHook.__struct_fields__
HostHooks = dict[HostHookName, tuple[HostHook, ...]]


def read_hooks(
    table: object, fault_of_program: Callable[[Path], str]
) -> tuple[HostHooks, list[tuple[str, str]]]:
    """The hooks of the decoded table, and what is wrong with it: a key and the reason each."""
    if not isinstance(table, dict):
        return {}, [("hooks", "is not a table; write [[hooks.before_run]]")]
    found: HostHooks = {}
    problems: list[tuple[str, str]] = []
    for name, entries in table.items():
        key = f"hooks.{name}"
        if name not in NAMES:
            near = nearest(name, NAMES)
            hint = f"; did you mean hooks.{near}?" if near else f"; there are {', '.join(NAMES)}"
            problems.append((key, f"is not a setting{hint}"))
        elif not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            problems.append((key, f"is not a list of tables; write [[{key}]] with {EXAMPLE}"))
        else:
            faults = [
                (f"{key}[{place}]{part}", reason)
                for place, entry in enumerate(entries, 1)
                for part, reason in _faults(name, entry, fault_of_program)
            ]
            problems += faults
            found[name] = () if faults else tuple(_hook(entry) for entry in entries)
    return found, problems


def _faults(
    name: str, entry: Mapping[str, Any], fault_of_program: Callable[[Path], str]
) -> Iterator[tuple[str, str]]:
    """What is wrong with one hook: the key in it, and the reason."""
    for key in entry:
        if key not in KEYS:
            near = nearest(key, KEYS)
            yield f".{key}", "is not a setting" + (f"; did you mean {near}?" if near else "")
    command = entry.get("command")
    if "command" not in entry:
        yield "", f"has no command; write {EXAMPLE}"
    elif not _words(command) or not command:
        yield ".command", f"is not an array of words, the program first; write {EXAMPLE}"
    elif any("\0" in word for word in command):
        yield ".command", "holds a null character"
    elif fault := fault_of_program(Path(command[0])):
        yield ".command", fault
    timeout = entry.get("timeout", "60s")
    if not isinstance(timeout, str):
        yield ".timeout", "is not a text such as '60s'"
    elif duration_of(timeout) is None:
        yield ".timeout", "; ".join(filter(None, fault_of_duration(timeout)))
    if "on_error" in entry and name.startswith("after_"):
        yield ".on_error", "means nothing here: what fails afterwards is a warning; remove it"
    elif entry.get("on_error", "fail") not in get_args(OnError):
        yield ".on_error", "is not one of fail, continue"
    units = entry.get("units", ["*"])
    if not _words(units) or not units or not all(units):
        yield ".units", 'is not an array of units, globs allowed, such as ["shop*"]'


def _words(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) for word in value)


def _hook(entry: Mapping[str, Any]) -> HostHook:
    return HostHook(
        command=tuple(entry["command"]),
        timeout=duration_of(entry.get("timeout", "60s")) or HostHook.timeout,
        on_error=cast("OnError", entry.get("on_error", "fail")),
        units=tuple(entry.get("units", ())),
    )
