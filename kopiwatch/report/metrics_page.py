"""``docs/metrics.md``, rendered: ``python -m kopiwatch.report.metrics_page > docs/metrics.md``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from kopiwatch.report.family import PREFIX, Family
from kopiwatch.report.metrics import TABLE

_INTRO = f"""\
# Metrics

`kopiwatch run` serves them at `/metrics`, by default on port 9187, in Prometheus' text format or
in OpenMetrics, whichever is asked for. [Configuration](configuration.md) says how to change the
address and how to ask for a password, a token or https.

- Every name begins with `{PREFIX}`.
- Times are seconds since 1970, never ages: `time() - {PREFIX}unit_last_success_timestamp_seconds`
  is an age.
- A unit is overdue when `time() > {PREFIX}unit_deadline_timestamp_seconds`. That holds for a unit
  that was never backed up, too: its deadline runs from when it was first seen.
- A unit whose containers are gone keeps its series, with `{PREFIX}unit_present` 0 and its deadline
  running, until `kopiwatch forget`.
- A counter begins at 0 for what is known to happen, so that `increase()` sees the first time.
- Until kopiwatch knows its units, a scrape is answered with 503: the series are then missing
  instead of wrong.

Beside `/metrics` there are `/healthz` (200 while kopiwatch's event loop lives) and `/readyz` (200
when its state was read and the containers were listed, else 503 and why). Neither asks for
credentials.
"""

_OUTRO = """
The process itself is there under Prometheus' own names: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_open_fds`,
`process_max_fds` and `process_start_time_seconds`.
"""


def render() -> str:
    """The whole page."""
    units = [family for family in TABLE if "unit" in family.labels]
    others = [family for family in TABLE if family not in units]
    return (
        _INTRO
        + _section("Of each unit", units)
        + _section("Of the whole instance", others)
        + _OUTRO
    )


def _section(title: str, families: Sequence[Family]) -> str:
    rows = "".join(
        f"| `{family.name}` | {_kind(family)} | {_labels(family)} | {family.text} |\n"
        for family in families
    )
    return f"\n## {title}\n\n| Name | Kind | Labels | Meaning |\n|---|---|---|---|\n{rows}"


def _kind(family: Family) -> str:
    return "gauge, always 1" if family.kind == "info" else family.kind


def _labels(family: Family) -> str:
    return ", ".join(f"`{label}`" for label in family.labels)


if __name__ == "__main__":
    sys.stdout.write(render())
