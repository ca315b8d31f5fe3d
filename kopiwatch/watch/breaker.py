"""The repository's breaker: after failures in a row for its sake, runs wait until it answers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

LIMIT = 3
"""So many runs in a row that failed for the repository's sake open it."""
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(minutes=15)


class Breaker:
    """Counts failures; while it is open only probes go to the repository. ``random``: 0 to 1."""

    def __init__(self, *, random: Callable[[], float]) -> None:
        self._random = random
        self._failures = 0
        self._pause = FIRST_PAUSE

    @property
    def open(self) -> bool:
        """Runs wait."""
        return self._failures >= LIMIT

    def failed(self) -> bool:
        """A run failed for the repository's sake. True if that opens it."""
        was_open = self.open
        self._failures += 1
        return self.open and not was_open

    def succeeded(self) -> None:
        """A run came through, as far as the repository is concerned: all is forgotten."""
        self._failures = 0
        self._pause = FIRST_PAUSE

    def answered(self) -> bool:
        """A probe was answered. True if that closes it, on trial: one more failure opens it again.

        A probe only reads. A repository that fails at writing answers it each time, so only a run
        that comes through forgets the failures, and the pauses go on growing.
        """
        was_open = self.open
        self._failures = min(self._failures, LIMIT - 1)
        return was_open

    def probe_at(self, now: datetime) -> datetime:
        """When to probe, once it is open: pauses double, each from half to whole."""
        pause = self._pause * (0.5 + self._random() / 2)
        self._pause = min(self._pause * 2, LONGEST_PAUSE)
        return now + pause
