"""What every test may use."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture
def anyio_backend() -> str:
    """The product runs on asyncio (aiodocker needs it), so the tests do."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_blocks(request: pytest.FixtureRequest) -> Iterator[None]:
    """In asynchronous tests a blocking call of the product in the event loop is an error.

    The shipped fakes are not the product: they write files where the real thing starts programs.
    """
    if request.node.get_closest_marker("anyio") is None:
        yield
        return
    with blockbuster_ctx("kopiwatch", excluded_modules=["kopiwatch.testing"]) as blockers:
        # KopiaRepository.host: a file of some hundred bytes, read while a command is wired.
        for name in ("io.BufferedReader.read", "os.stat"):
            blockers.functions[name].can_block_in("kopiwatch/kopia/state.py", "known")
        yield
