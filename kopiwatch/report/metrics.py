"""The table of all metrics, in the order in which they are exposed.

A metric whose feature is not built yet is not in it: a zero would be a claim.
"""

from __future__ import annotations

from kopiwatch.report.family import Family
from kopiwatch.report.metrics_house import HOUSE, OWN
from kopiwatch.report.metrics_unit import OVERDUE, UNIT

TABLE: tuple[Family, ...] = (*UNIT, OVERDUE, *HOUSE, *OWN)
