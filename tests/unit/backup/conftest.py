"""The world that the tests of a run work in."""

from __future__ import annotations

import pytest
from support.run_world import RunWorld


@pytest.fixture
def world(tmp_path) -> RunWorld:
    return RunWorld(tmp_path)
