"""What the watcher tells the rest of the house."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from kopiwatch.units.container import Container

Reason = Literal["connect", "event", "interval", "idle"]
"""Why a list was made: a new connection, an event (or a nudge), the regular time, or a stream of
events that was silent for so long that it was made anew."""


class Sighting(msgspec.Struct, frozen=True):
    """A good list of all containers. ``at`` is when it was asked for (our clock, UTC)."""

    rows: tuple[Container, ...]
    at: datetime
    reason: Reason


class WatchFacts(msgspec.Struct, frozen=True):
    """How the watching goes. Times are UTC by our clock; counts are since the start.

    ``connected``: the events are followed and the list of this connection was good. ``trouble`` is
    why they are not, empty where that is only a moment's routine; ``since_trouble`` is when that
    began. ``events`` counts by action, ``resyncs`` good lists by reason. ``reconnects`` counts
    connections after the first. ``drift`` counts regular lists that showed what no event had told.
    ``oversized`` counts events that could not be read, ``failed_lists`` lists that failed.
    """

    connected: bool = False
    trouble: str = ""
    since_trouble: datetime | None = None
    last_event: datetime | None = None
    last_resync: datetime | None = None
    events: dict[str, int] = msgspec.field(default_factory=dict)
    resyncs: dict[str, int] = msgspec.field(default_factory=dict)
    reconnects: int = 0
    drift: int = 0
    oversized: int = 0
    failed_lists: int = 0
