"""Names of runs: sortable by time, unique, and readable."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime


def new_run_id(now: datetime) -> str:
    """``20261124T020000Z-3f9a1c``: UTC to the second, then 24 random bits."""
    return f"{now.astimezone(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(3)}"
