"""What is said about a Docker that is not there: once, then now and then, and when it is back."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from kopiwatch.clock import Clock
from kopiwatch.errors import KopiwatchError

REPEAT_SECONDS = 300.0


class Listener(Protocol):
    """Whoever writes it down."""

    def say(self, action: str, message: str, **facts: object) -> None:
        """One event; ``action`` is a stable name, ``message`` a sentence for people.

        The fact ``level`` is ``debug``, ``info`` or ``warning``.
        """


class Outage:
    """From the first failure to the next good list. At most one warning in 5 minutes.

    ``trouble`` is the newest reason, empty while there is none; ``since`` is when it began (UTC).
    """

    def __init__(self, listener: Listener, clock: Clock) -> None:
        self._listener = listener
        self._clock = clock
        self._said_at: float | None = None
        self._told = False
        self._began = 0.0
        self.trouble = ""
        self.since: datetime | None = None

    def failed(self, error: KopiwatchError) -> None:
        """It does not work, or still does not."""
        now = self._clock.seconds()
        if self.since is None:
            self._began, self.since = now, self._clock.now()
            message = error.message
        else:
            message = f"{error.message} (for {length(now - self._began)} now)"
        self.trouble = error.message
        loud = self._said_at is None or now - self._said_at >= REPEAT_SECONDS
        if loud:
            self._said_at, self._told = now, True
        level = "warning" if loud else "debug"
        self._listener.say(
            "docker-trouble", message, level=level, reason=error.code, hint=error.hint
        )

    def over(self) -> None:
        """It works (again)."""
        if self.since is None:
            return
        seconds = self._clock.seconds() - self._began
        self._listener.say(
            "docker-back",
            f"Docker answers again, after {length(seconds)}",
            level="info" if self._told else "debug",
            seconds=round(seconds, 1),
        )
        self._told, self.since, self.trouble = False, None, ""


def length(seconds: float) -> str:
    """A length of time for people: ``12 s``, ``5 min``, ``3 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.0f} h"
