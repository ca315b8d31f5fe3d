"""Health by our own probe: the container's check, run by exec, right after its start.

Docker's own verdict comes after a whole interval, 30 s by default; the same check run by exec was
there after about 1 s (measured on API 1.41). Docker runs it in the same way: same user, same
environment, exit code 0 for healthy.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from datetime import timedelta

import anyio

from kopiwatch.engine.port import Engine, Healthcheck, Inspected
from kopiwatch.errors import ContainerGone, EngineDenied, EngineError, EngineUnreachable

SHORTEST_PAUSE_SECONDS = 0.05
LONGEST_PAUSE_SECONDS = 1.0
PAUSE_SHARE = 8
"""The pause is this part of the time waited so far: whoever waits for health is down, so what is
lost by asking late stays small beside what the application itself takes."""


async def probe(engine: Engine, inspected: Inspected) -> bool:
    """One probe. A container without a health check is healthy when it runs and is not paused.

    Raises ContainerGone, and EngineError when the probe could not be run or did not end in time.
    """
    check = inspected.healthcheck
    if check is None:
        return inspected.running and not inspected.paused
    result = await engine.exec(inspected.id, check.argv, timeout=check.timeout)
    return result.exit_code == 0


async def wait_healthy(
    engine: Engine,
    container: str,
    healthcheck: Healthcheck,
    *,
    seconds: float,
    sleep: Callable[[float], Awaitable[object]] = anyio.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Probe until the container is healthy. False: it was not within ``seconds``.

    At least one probe is run; the pause between probes grows from 0.05 to 1 s, and no probe takes
    longer than the check's own timeout or the time that is left. A probe that Docker could not
    run, or that took too long, counts as unhealthy. Raises ContainerGone when the container is
    gone or has stopped, EngineUnreachable and EngineDenied when Docker cannot be asked. ``clock``
    gives seconds.
    """
    begun = clock()
    end = begun + seconds
    while True:
        left = max(end - clock(), SHORTEST_PAUSE_SECONDS)
        longest = min(healthcheck.timeout, timedelta(seconds=left))
        if await _passes(engine, container, healthcheck, longest):
            return True
        left = end - clock()
        if left <= 0:
            return False
        pause = max(SHORTEST_PAUSE_SECONDS, (clock() - begun) / PAUSE_SHARE)
        await sleep(min(pause, LONGEST_PAUSE_SECONDS, left))


async def _passes(
    engine: Engine, container: str, healthcheck: Healthcheck, longest: timedelta
) -> bool:
    """One probe; a container that no longer runs raises, and anything else is "not yet"."""
    try:
        result = await engine.exec(container, healthcheck.argv, timeout=longest)
    except (ContainerGone, EngineUnreachable, EngineDenied):
        raise
    except EngineError as error:
        # 409: it is paused, restarting or stopped. Only stopped is final.
        now = await engine.inspect(container)
        if not now.running:
            raise ContainerGone(
                f"container {now.name} stopped before it was healthy (exit code {now.exit_code})",
                hint=f"docker logs {now.name} shows why",
            ) from error
        return False
    return result.exit_code == 0
