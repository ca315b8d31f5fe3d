"""Families as lines of text. A line of a sample reads the same in both formats.

The Prometheus text format 0.0.4 and OpenMetrics 1.0 differ in the heads: the latter names a counter
without ``_total`` and knows infos.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kopiwatch.report.board import BUCKETS, Board, Histogram, UnitBoard
from kopiwatch.report.family import (
    Family,
    HouseFamily,
    HouseHistogram,
    Labels,
    UnitFamily,
    UnitSeries,
)

_BOUNDS = (*(repr(float(bound)) for bound in BUCKETS), "+Inf")
# A parser takes a NUL for the end and other control characters for who knows what; labels of
# containers can hold any of them. They are shown as Python would.
_ESCAPES = {code: f"\\\\x{code:02x}" for code in (*range(0x20), 0x7F)} | {
    ord("\\"): "\\\\",
    ord("\n"): "\\n",
    ord('"'): '\\"',
}


def escaped(value: str) -> str:
    """A label's value as it stands between quotes; never cut, always UTF-8."""
    if value.isascii() and value.isprintable() and '"' not in value and "\\" not in value:
        return value
    return value.encode("utf-8", "backslashreplace").decode().translate(_ESCAPES)


def labelled(names: Labels, values: Labels) -> str:
    """``state="missing"``, or ``a="1",b="2"``; empty without labels."""
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{escaped(value)}"' for name, value in pairs)


def labelled_units(units: Iterable[UnitBoard]) -> dict[str, UnitBoard]:
    """Each unit by its label; a name that comes twice counts once, or its series were doubled."""
    found: dict[str, UnitBoard] = {}
    for unit in units:
        found.setdefault(labelled(("unit",), (unit.unit,)), unit)
    return found


def head(family: Family, *, openmetrics: bool) -> str:
    """The two lines before the samples."""
    return head_of(family.full_name, family.kind, family.text, openmetrics=openmetrics)


def head_of(name: str, kind: str, text: str, *, openmetrics: bool) -> str:
    """The same for what is no family of ours; ``name`` is that of the samples."""
    if openmetrics:
        suffix = {"counter": "_total", "info": "_info"}.get(kind, "")
        name = name.removesuffix(suffix)
    elif kind == "info":
        kind = "gauge"
    return f"# HELP {name} {text}\n# TYPE {name} {kind}\n"


def unit_samples(family: UnitFamily | UnitSeries, units: Iterable[tuple[str, UnitBoard]]) -> str:
    """The family's samples of these units (each with its label), without the head."""
    name = family.full_name
    if isinstance(family, UnitFamily):
        value = family.value
        lines = [
            f"{name}{{{label}}} {figure!r}\n"
            for label, unit in units
            if (figure := value(unit)) is not None
        ]
    else:
        rest = family.labels[1:]
        lines = [
            f"{name}{{{label},{labelled(rest, values)}}} {figure!r}\n"
            for label, unit in units
            for values, figure in family.values(unit)
        ]
    return "".join(lines)


def house_block(family: HouseFamily | HouseHistogram, board: Board, *, openmetrics: bool) -> str:
    """The family with its samples; empty if there are none."""
    name = family.full_name
    if isinstance(family, HouseFamily):
        # By the label as it is written: what is spelt out could meet a name that is spelt so.
        figures = {
            labelled(family.labels, values): figure for values, figure in family.values(board)
        }
        lines = [line(name, labels, figure) for labels, figure in figures.items()]
    else:
        lines = [
            text
            for values, histogram in family.values(board).items()
            for text in _histogram(name, labelled(family.labels, values), histogram)
        ]
    return head(family, openmetrics=openmetrics) + "".join(lines) if lines else ""


def line(name: str, labels: str, figure: float) -> str:
    """One sample."""
    return f"{name}{{{labels}}} {figure!r}\n" if labels else f"{name} {figure!r}\n"


def _histogram(name: str, labels: str, histogram: Histogram) -> Sequence[str]:
    before = f"{labels}," if labels else ""
    seen = 0
    lines = []
    for bound, count in zip(_BOUNDS, histogram.counts, strict=True):
        seen += count
        lines.append(line(f"{name}_bucket", f'{before}le="{bound}"', seen))
    return [
        *lines,
        line(f"{name}_count", labels, seen),
        line(f"{name}_sum", labels, histogram.total),
    ]
