"""Asking before something is done."""

from __future__ import annotations

import sys

import anyio

from kopiwatch.cli.output import note


async def confirmed(question: str, *, yes: bool) -> bool:
    """Whether it may be done. Nobody is asked who said --yes or has no terminal to answer on."""
    if yes or sys.stdin is None or not sys.stdin.isatty():
        return True
    note(f"{question} [y/N]")
    # Not input(): it would hold up the signals that end us.
    await anyio.wait_readable(sys.stdin)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        return True
    note("nothing was changed")
    return False
