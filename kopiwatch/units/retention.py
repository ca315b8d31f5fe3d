"""How many restore points of a unit are kept, as one value."""

from __future__ import annotations

import msgspec


class Retention(msgspec.Struct, frozen=True):
    """How many complete restore points are kept, each number in Kopia's meaning.

    ``latest`` counts points; the others count hours, days, ISO weeks, months and years that have
    one, of which the newest is kept. A point is kept if any of the numbers keeps it. The defaults
    are Kopia's own (0.23.1).
    """

    latest: int = 10
    hourly: int = 48
    daily: int = 7
    weekly: int = 4
    monthly: int = 24
    annual: int = 3

    @property
    def empty(self) -> bool:
        """It would keep nothing; Kopia itself keeps everything then."""
        return not any(self.numbers.values())

    @property
    def numbers(self) -> dict[str, int]:
        """The six numbers by their names, in the order in which people expect them."""
        return {name: getattr(self, name) for name in self.__struct_fields__}

    def __str__(self) -> str:
        return ", ".join(f"{name} {number}" for name, number in self.numbers.items())


PREFIX = "kopi.retention."
LABELS = tuple(f"{PREFIX}{name}" for name in Retention.__struct_fields__)
"""The labels that give the numbers, in their order."""
