"""Watches what is free on the file system of a stage."""

from __future__ import annotations

import os

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
