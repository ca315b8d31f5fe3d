"""What the table of labels says of one label, or of a few that differ in a word of their name."""

from __future__ import annotations

from typing import Literal

import msgspec

from kopiwatch.units.value import Reader

Level = Literal["unit", "member"]


class Label(msgspec.Struct, frozen=True):
    """One row of the table.

    Braces in the ``pattern`` stand for several names, ``<volume>`` for any text.
    ``values`` and ``default`` are for people; an empty default means that there is none.
    ``level`` says for whom a value holds: a ``member`` row for the container that carries it, a
    ``unit`` row for all members, whichever carries it.
    ``supported`` lists the values that this version can do; None means every value, ``()`` none.
    ``field`` is the attribute of :class:`~kopiwatch.units.setting.MemberSettings` or
    :class:`~kopiwatch.units.setting.UnitSettings` that receives the value, empty for none; with a
    dot it is that of a value in there (``retention.latest``).
    ``variable`` is the environment variable that gives the default, where there is one.
    ``shareable`` labels may stand in a profile.
    """

    pattern: str
    values: str
    reader: Reader
    default: str
    level: Level
    text: str
    field: str = ""
    supported: tuple[str, ...] | None = None
    variable: str = ""
    shareable: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The exact names that the pattern stands for; none if it takes any text."""
        if "<" in self.pattern:
            return ()
        head, brace, rest = self.pattern.partition("{")
        if not brace:
            return (head,)
        middle, _, tail = rest.partition("}")
        return tuple(f"{head}{word}{tail}" for word in middle.split(","))

    def supports(self, value: object) -> bool:
        """Whether this version can do what the (well-formed) ``value`` asks for."""
        return self.supported is None or str(value) in self.supported
