"""What a unit is: its members, its sources, what is covered and what is wrong with it."""

from __future__ import annotations

from typing import Literal

import msgspec

from kopiwatch.units.container import Container
from kopiwatch.units.setting import MemberSettings, UnitSettings

Origin = Literal["label", "project", "container"]
SourceKind = Literal["volume", "bind", "dump", "recipe"]
CoverageState = Literal["protected", "left-out", "opt-in", "not-supported"]


class Problem(msgspec.Struct, frozen=True, order=True):
    """One thing that is wrong with a label, a container, or how the members of a unit agree.

    ``label`` and ``value`` are empty where no single label is at fault. ``reason`` is a sentence;
    ``suggestion`` is the nearest valid name or value, or what to do, and may be empty.
    """

    container: str
    label: str
    value: str
    reason: str
    suggestion: str = ""

    def __str__(self) -> str:
        what = f"{self.label}={self.value!r}: " if self.label else ""
        hint = f" ({self.suggestion})" if self.suggestion else ""
        return f"{self.container}: {what}{self.reason}{hint}"


class Effective(msgspec.Struct, frozen=True):
    """One setting as it holds for a container, and where it comes from.

    ``value`` is text as somebody wrote it, or the default in words. ``origin`` is ``label``,
    ``label on NAME`` (another member said it for the whole unit), ``profile NAME``,
    ``environment VARIABLE``, ``file PATH`` (of the configuration) or ``default``.
    """

    label: str
    value: str
    origin: str


class Member(msgspec.Struct, frozen=True):
    """A container of the unit, with the settings that hold for it alone.

    ``effective`` lists all settings that hold for it, those of the unit too, for ``explain``.
    """

    container: Container
    settings: MemberSettings
    effective: tuple[Effective, ...] = ()


class Source(msgspec.Struct, frozen=True, order=True):
    """One part of a unit's tree.

    ``path`` is its place below the unit's root, such as ``volumes/shop_db`` or ``binds/srv~www``:
    the identity of the source over time. ``volume`` is the name that Docker knows, ``host_path``
    the path on Docker's host for binds (as typed, unresolved). ``writers`` and ``users`` are the
    names of the members that mount it writable, or at all. ``destinations`` are where.
    """

    path: str
    kind: SourceKind
    volume: str = ""
    host_path: str = ""
    anonymous: bool = False
    users: tuple[str, ...] = ()
    writers: tuple[str, ...] = ()
    destinations: tuple[str, ...] = ()


class Coverage(msgspec.Struct, frozen=True):
    """What happens to one mount of one member, and why.

    ``source`` is the path of the :class:`Source` that protects it, empty for any other state.
    ``what`` is the volume's name or the host's path, for people.
    """

    container: str
    destination: str
    what: str
    state: CoverageState
    reason: str = ""
    source: str = ""


class Unit(msgspec.Struct, frozen=True):
    """What is backed up and restored together.

    A unit with problems is disabled, wholly and visibly. ``warnings`` do not disable it.
    ``members`` are ordered by name, ``sources`` by path.
    """

    name: str
    origin: Origin
    members: tuple[Member, ...]
    settings: UnitSettings
    sources: tuple[Source, ...] = ()
    coverage: tuple[Coverage, ...] = ()
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    @property
    def valid(self) -> bool:
        """No problem disables this unit."""
        return not self.problems
