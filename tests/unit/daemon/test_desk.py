"""What the desk counts of a run that ended."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import pytest
from support.run_world import FakeClock, Said

from kopiwatch.backup.result import RunResult
from kopiwatch.backup.state import StateFolder
from kopiwatch.config import Config
from kopiwatch.daemon.desk import Desk
from kopiwatch.report.history import History

pytestmark = pytest.mark.anyio
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)


@pytest.fixture
async def desk(tmp_path):
    time = FakeClock()
    opened = await History.open(tmp_path, clock=time.clock)
    yield Desk(
        Config(state_dir=tmp_path),
        StateFolder(tmp_path),
        "0",
        opened.history,
        fresh=False,
        listener=Said(),
        clock=time.clock,
        random=lambda: 0.5,
    )
    await opened.history.close()


async def test_retention_that_failed_is_counted_and_no_failed_run(desk):
    """The run is a success; the repository has a failure, shown at once."""
    good = RunResult("r1", "shop", "success", NOON, NOON)
    desk.observe(good)
    assert desk.repository.failures == {}
    desk.observe(msgspec.structs.replace(good, keep_failed=True))
    assert desk.repository.failures == {"keep": 1}
    assert desk.failures == {}
