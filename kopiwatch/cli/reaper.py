"""Being process 1 of a container: passing signals on, and burying orphans.

The kernel gives every orphan of the container to process 1. asyncio waits for its own children
only, so the daemon itself is a child here, and nothing else is waited for by two.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress

PASSED_ON = (
    *(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP),
    *(signal.SIGUSR1, signal.SIGUSR2),
)


def become_init() -> None:
    """Fork: the child returns and goes on; the parent serves it and leaves with its exit code."""
    # Blocked until the handlers stand: a signal that comes in between must not be lost.
    signal.pthread_sigmask(signal.SIG_BLOCK, PASSED_ON)
    child = os.fork()
    if child == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
        return

    def pass_on(number: int, _frame: object) -> None:
        with suppress(ProcessLookupError):  # it has just ended
            os.kill(child, number)

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, PASSED_ON)
    os._exit(bury_until(child))


def bury_until(child: int) -> int:
    """Wait for every process that ends, until it is ``child``; its exit code as a shell says it."""
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
