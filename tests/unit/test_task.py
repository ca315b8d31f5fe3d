"""Work beside other work: its result and its error come where they are asked for."""

from __future__ import annotations

import anyio
import pytest

from kopiwatch.errors import RunError
from kopiwatch.task import beside

pytestmark = pytest.mark.anyio


async def test_result_is_there_when_it_is_asked_for():
    """As often as it is."""

    async def work():
        await anyio.lowlevel.checkpoint()
        return 7

    async with beside(work) as result:
        assert (await result(), await result()) == (7, 7)


async def test_error_is_raised_where_it_is_asked_for():
    """Nothing of the block before that is cut off."""
    steps = []

    async def work():
        raise RunError("no", phase="check", reason="no")

    async def block():
        async with beside(work) as result:
            await anyio.wait_all_tasks_blocked()
            steps.append("on")
            await result()
            steps.append("never")

    with pytest.raises(RunError, match="no"):
        await block()
    assert steps == ["on"]


async def test_error_that_nobody_asks_for_is_nobodys():
    """The block has failed for a reason of its own, or did not need it."""

    async def work():
        raise RunError("no", phase="check", reason="no")

    async def block(own):
        async with beside(work):
            await anyio.wait_all_tasks_blocked()
            if own:
                raise RunError("own", phase="check", reason="own")

    await block(own=False)
    with pytest.raises(RunError, match="own"):
        await block(own=True)


async def test_what_goes_on_is_cancelled_at_the_end():
    """Nothing outlives the block."""
    ended = []

    async def work():
        try:
            await anyio.sleep_forever()
        finally:
            ended.append(True)

    with anyio.fail_after(5):
        async with beside(work):
            await anyio.wait_all_tasks_blocked()
    assert ended == [True]


async def test_foreign_error_is_a_bug_and_cancels_the_block():
    """It does not wait until somebody asks."""

    async def work():
        raise ValueError("bug")

    with anyio.fail_after(5), pytest.raises(ValueError, match="bug"):
        async with beside(work):
            await anyio.sleep_forever()
