"""What a metric is: its name, its kind, what it means, and where its figures come from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Literal

import msgspec

from kopiwatch.report.board import Board, Histogram, UnitBoard

PREFIX = "kopiwatch_"

Kind = Literal["gauge", "counter", "info", "histogram"]
Labels = tuple[str, ...]
Sample = tuple[Labels, float]
"""The values of the labels, in the family's order, and the figure."""


class Family(msgspec.Struct, frozen=True):
    """All series of one name. ``name`` stands without :data:`PREFIX`, ``text`` is for people."""

    name: str
    kind: Kind
    text: str
    labels: Labels = ()

    @property
    def full_name(self) -> str:
        """As Prometheus knows it."""
        return PREFIX + self.name


class UnitFamily(Family, frozen=True, kw_only=True):
    """At most one series per unit; None where the unit has no such figure."""

    value: Callable[[UnitBoard], float | None]


class UnitSeries(Family, frozen=True, kw_only=True):
    """Any number of series per unit; the samples' labels stand behind ``unit``."""

    values: Callable[[UnitBoard], Iterable[Sample]]


class HouseFamily(Family, frozen=True, kw_only=True):
    """Series of the whole instance."""

    values: Callable[[Board], Iterable[Sample]]


class HouseHistogram(Family, frozen=True, kw_only=True):
    """Histograms of the whole instance, by the values of the labels."""

    values: Callable[[Board], Mapping[Labels, Histogram]]


class OwnFamily(Family, frozen=True):
    """A figure of the exporter itself, made while it answers."""


def moment(at: datetime | None) -> float:
    """A time as Prometheus wants it: seconds since 1970; 0 is never."""
    return 0 if at is None else at.timestamp()
