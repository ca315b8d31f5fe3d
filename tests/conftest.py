"""What every test may use."""

from __future__ import annotations

import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The product runs on asyncio (aiodocker needs it), so the tests do."""
    return "asyncio"
