"""Figures of several rounds, and how they are shown."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence

Figures = dict[str, float]


def summary(values: Sequence[float]) -> Figures:
    """Least, median and greatest of some figures, and how many there are."""
    return {
        "min": min(values),
        "median": statistics.median(values),
        "max": max(values),
        "rounds": len(values),
    }


def line(name: str, values: Sequence[float], scale: float = 1000.0) -> str:
    """One row: least, median, greatest. ``scale`` 1000 shows seconds as milliseconds."""
    digits = 0 if scale > 1 else 2
    shown = (f"{each * scale:>10.{digits}f}" for each in list(summary(values).values())[:3])
    return f"  {name:<30}" + "".join(shown)


def head(title: str) -> str:
    """The head above such rows."""
    return f"{title:<32}" + "".join(f"{name:>10}" for name in ("min", "median", "max"))


def gather(rounds: Iterable[Figures]) -> dict[str, list[float]]:
    """The figures of all rounds by name, in the order in which the names first came."""
    found: dict[str, list[float]] = {}
    for each in rounds:
        for name, value in each.items():
            found.setdefault(name, []).append(value)
    return found
