"""Time as a value that is handed over, so that tests move it instead of sleeping."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime

import anyio
import msgspec


def _now() -> datetime:
    return datetime.now(UTC)


class Clock(msgspec.Struct, frozen=True):
    """``now`` gives UTC, ``seconds`` a monotonic count, ``sleep`` waits for that many seconds."""

    now: Callable[[], datetime] = _now
    seconds: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep


SYSTEM = Clock()
"""The real one."""
