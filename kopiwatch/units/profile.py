"""Profiles: which of them a container takes, and in which order they apply."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from kopiwatch.config import nearest

DEFAULT_PROFILE = "default"
"""Applies to every member, unless dropped; need not exist."""

Profiles = Mapping[str, Mapping[str, str]]


class Layer(msgspec.Struct, frozen=True):
    """Label texts from one place. A higher ``rank`` speaks louder than a lower one.

    ``origin`` is ``label``, ``profile NAME``, ``environment VARIABLE`` or ``file PATH``; the ranks
    are those of :data:`RANK_DEFAULT` and its neighbours, and members of a unit are compared only
    within the highest rank given.
    """

    origin: str
    rank: int
    texts: Mapping[str, str]


RANK_SETTING, RANK_DEFAULT, RANK_PROFILE, RANK_LABEL = 0, 1, 2, 3


def layers(wanted: Iterable[str], profiles: Profiles) -> tuple[tuple[Layer, ...], list[str]]:
    """The profiles that ``wanted`` (items of ``kopi.profile``) leaves, weakest first.

    The ``default`` profile is inherited by all. ``!name`` drops what stands before it, ``!none``
    everything. Also returns one sentence for each item that cannot be done.
    """
    applied = [DEFAULT_PROFILE] if DEFAULT_PROFILE in profiles else []
    faults = []
    for item in wanted:
        name = item.removeprefix("!")
        if item == "!none":
            applied.clear()
        elif name not in profiles and item != f"!{DEFAULT_PROFILE}":
            near = nearest(name, profiles)
            hint = f"did you mean {near!r}?" if near else _known(profiles)
            faults.append(f"there is no profile {name!r}; {hint}")
        elif not item.startswith("!"):
            applied = [other for other in applied if other != name] + [name]
        elif name in applied:
            applied.remove(name)
        elif name != DEFAULT_PROFILE:
            faults.append(f"{item!r} drops a profile that is not inherited")
    return tuple(_layer(name, profiles[name]) for name in applied), faults


def _layer(name: str, texts: Mapping[str, str]) -> Layer:
    rank = RANK_DEFAULT if name == DEFAULT_PROFILE else RANK_PROFILE
    return Layer(f"profile {name}", rank, texts)


def _known(profiles: Profiles) -> str:
    return f"there are {', '.join(sorted(profiles))}" if profiles else "the configuration has none"
