"""How late the event loop is: the one figure that shows a blocking call."""

from __future__ import annotations

from collections.abc import Callable

from kopiwatch.clock import SYSTEM, Clock

LAG_SECONDS = 5.0


async def watch_lag(report: Callable[[float], None], clock: Clock = SYSTEM) -> None:
    """Sleep 5 s again and again and report by how many seconds the loop woke up late. Endless."""
    while True:
        begun = clock.seconds()
        await clock.sleep(LAG_SECONDS)
        report(max(0.0, clock.seconds() - begun - LAG_SECONDS))
