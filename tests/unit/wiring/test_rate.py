"""The rate of a unit's uploads, as its history tells."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kopiwatch.backup.result import RunResult
from kopiwatch.backup.strategy import DEFAULT_RATE
from kopiwatch.clock import SYSTEM
from kopiwatch.report.history import History
from kopiwatch.wiring.rate import upload_rate

pytestmark = pytest.mark.anyio


async def test_rate_is_that_of_the_newest_run_that_measured_one(tmp_path):
    """Runs that had too little to upload do not count; without any there is the default."""
    assert await upload_rate(tmp_path, "shop") == DEFAULT_RATE
    opened = await History.open(tmp_path, clock=SYSTEM)
    async with opened.history as history:
        for hour, rate in enumerate((1e6, 2e6, 0.0)):
            at = datetime(2026, 1, 1, hour, tzinfo=UTC)
            result = RunResult(f"r{hour}", "shop", "success", at, at, upload_rate=rate)
            await history.finish(result, trigger="command", due=None, data_at=at)
    assert await upload_rate(tmp_path, "shop") == 2e6
    assert await upload_rate(tmp_path, "other") == DEFAULT_RATE
