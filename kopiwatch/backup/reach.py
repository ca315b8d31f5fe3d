"""Whether a path of this host answers, asked without touching it ourselves."""

from __future__ import annotations

import contextlib
import os
import signal
import sys

import anyio

ANSWER_SECONDS = 10.0
SILENT = "it does not answer; a disk or network mount below it hangs"
_PROGRAM = """
import os, sys
try:
    os.stat(sys.argv[1])
except OSError as error:
    os._exit(error.errno)
"""


async def unreachable(path: str) -> str:
    """Why ``path`` cannot be looked at; empty if it can.

    A child looks, because whoever touches a dead mount waits for ever, beyond SIGKILL. One that
    has not answered after 10 s is killed and left to the kernel.
    """
    argv = (sys.executable, "-I", "-S", "-c", _PROGRAM, path)
    child = _spawn(argv)
    handle = os.pidfd_open(child)
    try:
        with anyio.move_on_after(ANSWER_SECONDS):
            await anyio.wait_readable(handle)
            return _problem(child)
        return SILENT
    finally:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(handle, signal.SIGKILL)
        os.close(handle)


def _spawn(argv: tuple[str, ...]) -> int:
    # None of our own streams: whoever reads them would wait for a child that hangs.
    nothing = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in range(3)]
    return os.posix_spawn(argv[0], argv, {}, file_actions=nothing)


def _problem(ended: int) -> str:
    """What the exit code of a child that has ended says; ours are error numbers."""
    code = os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])
    return os.strerror(code) if code else ""
