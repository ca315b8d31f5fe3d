"""How long to wait before the next try."""

from __future__ import annotations

from collections.abc import Callable

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0


class Backoff:
    """Twice as long after each failure, with full jitter: anything between nothing and that.

    ``random`` gives 0 to 1. Full jitter, because many hosts may have lost the same thing at once.
    """

    def __init__(self, random: Callable[[], float]) -> None:
        self._random = random
        self._limit = FIRST_SECONDS

    def next(self) -> float:
        """Seconds to wait now."""
        limit, self._limit = self._limit, min(2 * self._limit, LONGEST_SECONDS)
        return limit * self._random()

    def reset(self) -> None:
        """It went well for long enough."""
        self._limit = FIRST_SECONDS
