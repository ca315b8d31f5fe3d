"""Label names: which row one belongs to, and what somebody who got it wrong meant."""

from __future__ import annotations

import re

from kopiwatch.config import nearest
from kopiwatch.units.row import Label
from kopiwatch.units.table import LABELS

PREFIX = "kopi."
ENABLE = "kopi.enable"
RESERVED = ("kopi.worker", "kopi.state", "kopi.stage")
"""Labels that kopiwatch gives to its own workers and volumes; nobody else sets them."""

_EXACT = {name: label for label in LABELS for name in label.names}
_OPEN = tuple((label.pattern.partition("<")[0], label) for label in LABELS if "<" in label.pattern)
NAMES: tuple[str, ...] = tuple(_EXACT)
"""Every exact name, in the order of the table."""

# What other tools call it: difflib alone cannot see that a group is a unit.
_SYNONYMS = {
    "kopi.stop": "kopi.mode",
    "kopi.cron": "kopi.schedule",
    "kopi.group": "kopi.unit",
    "kopi.name": "kopi.unit",
    "kopi.project": "kopi.unit",
    "kopi.volumes": "kopi.include",
    "kopi.depends-on": "kopi.after",
    "kopi.depends_on": "kopi.after",
    "kopi.timeout": "kopi.window-timeout",
    "kopi.dump.password": "kopi.dump.password_env",
}


def find(name: str) -> Label | None:
    """The row that ``name`` belongs to, or None for a name that is not in the table."""
    exact = _EXACT.get(name)
    if exact is not None:
        return exact
    return next((row for head, row in _OPEN if name.startswith(head) and name != head), None)


def nearest_name(name: str) -> str:
    """The known label that somebody who wrote ``name`` most likely meant, or empty."""
    lower = name.lower()
    if lower == PREFIX:
        return ""
    return _SYNONYMS.get(lower) or nearest(lower, NAMES)


def lookalike(name: str) -> str:
    """The label that ``name`` imitates with a wrong prefix or separator, or empty.

    ``kopi_enable``, ``Kopi.Enable``, ``kopia.enable`` and ``kopiwatch.enabled`` all imitate
    ``kopi.enable``. A name that begins with ``kopi.`` exactly is not asked about here.
    """
    lower = name.strip().lower()
    if "k" not in lower[:2] or len(lower) > 100:
        return ""
    split = re.fullmatch(r"([^._/:-]+)[._/:-](.+)", lower)
    if split is None:
        return ""
    head, rest = split[1], split[2].replace("_", ".").replace("/", ".")
    if not nearest(head, ("kopi", "kopia", "kopiwatch"), cutoff=0.75):
        return ""
    return nearest(PREFIX + rest, NAMES, cutoff=0.9)
