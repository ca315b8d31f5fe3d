"""A bell that wakes one waiting loop."""

from __future__ import annotations

import anyio
import anyio.lowlevel

from kopiwatch.clock import Clock


class Bell:
    """Rung by anybody, waited for by one loop; a ring that comes while nobody waits is kept."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Wake the loop now, or let its next wait return at once."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a ring, for up to ``seconds`` of the clock. True if it rang."""
        if seconds is None:
            await self._rung.wait()
        elif seconds > 0 and not self._rung.is_set():
            async with anyio.create_task_group() as tasks:

                async def nap(length: float) -> None:
                    await self._clock.sleep(length)
                    tasks.cancel_scope.cancel()

                tasks.start_soon(nap, seconds)
                await self._rung.wait()
                tasks.cancel_scope.cancel()
        else:
            await anyio.lowlevel.checkpoint()
        rang = self._rung.is_set()
        if rang:
            self._rung = anyio.Event()
        return rang
