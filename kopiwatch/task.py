"""Running things side by side without losing one's error or another's result."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeVar

import anyio

from kopiwatch.errors import KopiwatchError

T = TypeVar("T")


@contextmanager
def unwrapped() -> Iterator[None]:
    """Raise the one error that matters instead of the ExceptionGroup a task group makes of it.

    Errors of ours go before foreign ones, those before mere exits; the group stays the cause.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        leaves = list(_leaves(group))
        leaves.sort(key=lambda e: (not isinstance(e, KopiwatchError), not isinstance(e, Exception)))
        raise leaves[0] from group


def _leaves(group: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error


async def outcomes(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T | KopiwatchError]:
    """Run all calls at once and wait for all of them, in order; an error of ours is an outcome.

    One failure cancels nobody: a stop that was cut off half-way would be in an unknown state. A
    foreign error is a bug and cancels the rest.
    """
    calls = list(calls)
    results: list[T | KopiwatchError | None] = [None] * len(calls)

    async def run(index: int, call: Callable[[], Awaitable[T]]) -> None:
        try:
            results[index] = await call()
        except KopiwatchError as error:
            results[index] = error

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            for index, call in enumerate(calls):
                tasks.start_soon(run, index, call)
    return results  # type: ignore[return-value]  # every slot was filled, or the group raised


async def together(calls: Iterable[Callable[[], Awaitable[T]]]) -> list[T]:
    """Run all calls at once and wait for all of them; then raise the first error, if any."""
    done: list[T] = []
    for outcome in await outcomes(calls):
        if isinstance(outcome, KopiwatchError):
            raise outcome
        done.append(outcome)
    return done


@asynccontextmanager
async def beside(call: Callable[[], Awaitable[T]]) -> AsyncIterator[Callable[[], Awaitable[T]]]:
    """Run ``call`` beside the block, which awaits what it is given for the result.

    An error of ours is raised where it is awaited, as often as it is, and nowhere else; a foreign
    one cancels the block. What has not ended when the block is left is cancelled.
    """
    ended = anyio.Event()
    found: list[T | KopiwatchError] = []

    async def run() -> None:
        found.extend(await outcomes([call]))
        ended.set()

    async def result() -> T:
        await ended.wait()
        if isinstance(found[0], KopiwatchError):
            raise found[0]
        return found[0]

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            yield result
            tasks.cancel_scope.cancel()


@contextmanager
def deadline(seconds: float, late: Callable[[], KopiwatchError]) -> Iterator[anyio.CancelScope]:
    """Cancel the block after ``seconds`` and raise what ``late`` makes; see :func:`halted`."""
    with anyio.move_on_after(seconds) as scope:
        yield scope
    if scope.cancelled_caught:
        raise late()


@contextmanager
def halted(scope: anyio.CancelScope) -> Iterator[None]:
    """The time that the block takes does not count for the deadline of ``scope``."""
    left = scope.deadline - anyio.current_time()
    scope.deadline = math.inf
    try:
        yield
    finally:
        scope.deadline = anyio.current_time() + left
