"""Watches what is free on the file system of a stage."""

from __future__ import annotations

import os
import select

from kopiwatch.worker.speech import Refused
from kopiwatch.worker.sweep import sweep

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

POLL_SECONDS = 0.05
"""At 200 MB/s an application writes 10 MB meanwhile."""


def free_bytes(path: str) -> int:
    """What an application without privileges could still write there. Raises OSError."""
    found = os.statvfs(path)
    return found.f_bavail * found.f_frsize


def total_bytes(path: str) -> int:
    """The size of the file system. Raises OSError."""
    found = os.statvfs(path)
    return found.f_blocks * found.f_frsize


def watch(stage: str, reserve: int, orders: BinaryIO, answer: Callable[[object], None]) -> None:
    """Say ``low`` when less than ``reserve`` bytes are free; at any order, delete the stage.

    A file system that cannot be asked counts as full. To be the work of a servant.
    """
    while not select.select([orders], [], [], POLL_SECONDS)[0]:
        try:
            free = free_bytes(stage)
        except OSError:
            free = 0
        if free < reserve:
            answer({"low": free})
            select.select([orders], [], [])
            break
    try:
        answer({"swept": sweep(stage, shed=True)})
    except Refused as refusal:
        answer({"reason": refusal.reason, "text": refusal.text})
