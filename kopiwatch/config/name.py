"""What things may be called, and the nearest name to one that is wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
"""What units, instances and profiles may be called; so no name is ever ``..`` or a path."""

NAME_LIMIT = 100
"""The longest name, in characters: names become file names, with something added."""


def nearest(word: str, valid: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The valid word most like ``word``, upper and lower case alike; empty if none is close."""
    folded = {candidate.lower(): candidate for candidate in valid}
    # Comparing is quadratic in the length, and what comes in may be of any length.
    hits = difflib.get_close_matches(word.lower()[:100], folded, n=1, cutoff=cutoff)
    return folded[hits[0]] if hits else ""
