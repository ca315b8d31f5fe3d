"""Runs that wait for their turn: each unit at most once, by priority, then by due time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Literal

import msgspec

Trigger = Literal["schedule", "catch-up", "retry", "command"]
RETRY_PAUSE = timedelta(minutes=5)
RETRY_SPREAD = 0.2
"""A retry comes 5 min ± 20 % after the failure: many hosts shall not beat in time."""


class Ask(msgspec.Struct, frozen=True):
    """A run that is wanted. Times are UTC.

    ``due`` is the scheduled time that it serves (for a command, when it was given), ``since`` when
    it was queued. It is not taken before ``not_before``. ``also`` is the scheduled time that a
    command serves besides; read :attr:`serves`.
    """

    unit: str
    due: datetime
    since: datetime
    trigger: Trigger = "schedule"
    priority: int = 100
    not_before: datetime | None = None
    retried: bool = False
    also: datetime | None = None

    @property
    def serves(self) -> datetime | None:
        """The scheduled time that its run serves; None for a command that serves none."""
        return self.also if self.trigger == "command" else self.due


class Queue:
    """What waits. ``random`` gives 0 to 1."""

    def __init__(self, *, random: Callable[[], float]) -> None:
        self._random = random
        self._asks: dict[str, Ask] = {}

    def __len__(self) -> int:
        return len(self._asks)

    def __contains__(self, unit: object) -> bool:
        return unit in self._asks

    def waiting(self) -> tuple[Ask, ...]:
        """All of it, in the order in which it would be taken."""
        return tuple(sorted(self._asks.values(), key=_order))

    def add(self, ask: Ask) -> None:
        """Queue a run. One that waits for the same unit already becomes one with it.

        The stronger priority counts and a command is not lost, nor a schedule's due time in it.
        Whoever asks anew does not wait for an earlier failure's pause.
        """
        there = self._asks.get(ask.unit)
        self._asks[ask.unit] = ask if there is None else _merged(there, ask)

    def again(self, ask: Ask, not_before: datetime) -> None:
        """Put back what could not be carried out; with what was asked anew it becomes one."""
        new = self._asks.get(ask.unit)
        waits = msgspec.structs.replace(ask, not_before=not_before)
        self._asks[ask.unit] = waits if new is None else _merged(ask, new)

    def retry(self, ask: Ask, now: datetime) -> bool:
        """Once more after a pause, but only once: then it is the schedule's turn. True if so.

        A command is not retried: somebody saw it fail.
        """
        if ask.retried or ask.trigger == "command" or ask.unit in self._asks:
            return False
        pause = RETRY_PAUSE * (1 + RETRY_SPREAD * (2 * self._random() - 1))
        self._asks[ask.unit] = msgspec.structs.replace(
            ask, trigger="retry", since=now, not_before=now + pause, retried=True
        )
        return True

    def take(self, now: datetime) -> Ask | None:
        """Remove and return what is next; None if nothing may run yet."""
        ready = [ask for ask in self._asks.values() if _ready(ask, now)]
        if not ready:
            return None
        return self._asks.pop(min(ready, key=_order).unit)

    def drop(self, unit: str) -> None:
        """Nobody wants it any more."""
        self._asks.pop(unit, None)

    def next_at(self, now: datetime) -> datetime | None:
        """When something may run: ``now`` or later; None if nothing waits."""
        return min((_ready_at(ask, now) for ask in self._asks.values()), default=None)


def _ready(ask: Ask, now: datetime) -> bool:
    return _ready_at(ask, now) <= now


def _ready_at(ask: Ask, now: datetime) -> datetime:
    # A pause that is longer than any we give was meant by a clock that has been set back since.
    if ask.not_before is None or ask.not_before - now > 4 * RETRY_PAUSE:
        return now
    return max(now, ask.not_before)


def _order(ask: Ask) -> tuple[int, datetime, str]:
    return (ask.priority, ask.due, ask.unit)


def _merged(there: Ask, new: Ask) -> Ask:
    commands = [ask for ask in (there, new) if ask.trigger == "command"]
    strongest = commands[0] if commands else new
    served = max((due for due in (there.serves, new.serves) if due is not None), default=None)
    return msgspec.structs.replace(
        strongest,
        due=served or strongest.due,
        since=min(there.since, new.since),
        priority=min(there.priority, new.priority),
        not_before=None,
        retried=False,
        also=served,
    )
