"""One run, heard by several."""

from __future__ import annotations

from collections.abc import Iterable

from kopiwatch.backup.house import Listener


class Tee:
    """A listener that passes everything on to others."""

    def __init__(self, listeners: Iterable[Listener]) -> None:
        self._listeners = tuple(listeners)

    def say(self, action: str, message: str, **facts: object) -> None:
        """Pass one event on."""
        for listener in self._listeners:
            listener.say(action, message, **facts)
