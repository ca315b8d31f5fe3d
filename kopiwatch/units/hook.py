"""A hook: a command that runs inside a member before the window, or after it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Literal

import msgspec

HookKind = Literal["pre", "post"]
KINDS: tuple[HookKind, ...] = ("pre", "post")
OnError = Literal["fail", "continue"]

_LABEL = "kopi.hook."


class Hook(msgspec.Struct, frozen=True):
    """``command`` is an argv, ``user`` empty for the container's own.

    ``on_error`` says what its failure means: ``fail`` for the run, or only a warning.
    """

    command: tuple[str, ...]
    user: str = ""
    timeout: timedelta = timedelta(seconds=30)
    on_error: OnError = "fail"


class Hooks(msgspec.Struct, frozen=True):
    """The hooks of one member; None where there is none."""

    pre: Hook | None = None
    post: Hook | None = None


def hooks_of(values: Mapping[str, Any]) -> Hooks:
    """The hooks among typed label values, by the labels' names."""
    found: dict[str, Hook] = {}
    for kind in KINDS:
        head = f"{_LABEL}{kind}."
        given = {
            name.removeprefix(head).replace("-", "_"): value
            for name, value in values.items()
            if name.startswith(head)
        }
        if "command" in given:
            found[kind] = Hook(**given)
    return Hooks(**found)


def without_command(names: Iterable[str]) -> dict[str, str]:
    """Labels that say how a hook runs where there is none, each with the label that is missing."""
    given = set(names)
    return {
        name: missing
        for name in sorted(given)
        for kind in KINDS
        if name.startswith(f"{_LABEL}{kind}.")
        and (missing := f"{_LABEL}{kind}.command") not in given
    }
