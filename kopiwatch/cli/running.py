"""Running one command: the event loop, signals, errors, exit codes."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from kopiwatch.cli.output import error_record, note, print_error, print_json
from kopiwatch.errors import KopiwatchError
from kopiwatch.task import unwrapped


def run(command: Callable[[], Awaitable[int]], *, json: bool = False) -> None:
    """Run a command's coroutine and leave with its exit code.

    SIGINT and SIGTERM cancel it: what is down is brought back first. An error is printed as a
    sentence and a hint on stderr, with ``--json`` as an object on stdout, too.
    """
    code = 1
    try:
        code = anyio.run(partial(_with_signals, command))
    except KopiwatchError as error:
        print_error(error)
        if json:
            print_json(error_record(error))
        code = error.exit_code
    raise SystemExit(code)


async def _with_signals(command: Callable[[], Awaitable[int]]) -> int:
    result: list[int] = []
    caught: list[int] = []

    async def watch(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            task_status.started()
            async for number in signals:
                if not caught:
                    caught.append(number)
                    note(f"{signal.Signals(number).name}: leaving; what is down comes back first")
                    tasks.cancel_scope.cancel()

    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch)
            result.append(await command())
            tasks.cancel_scope.cancel()
    if caught:
        return 128 + caught[0]
    return result[0]
