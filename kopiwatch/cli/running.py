"""Running one command: the event loop, signals, errors, exit codes."""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import anyio.abc

from kopiwatch.cli.output import error_record, note, output_was_lost, print_error, print_json
from kopiwatch.errors import KopiwatchError
from kopiwatch.task import unwrapped

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def run(command: Callable[[], Awaitable[int]], *, json: bool = False) -> None:
    """Run a command's coroutine and leave with its exit code.

    SIGINT, SIGTERM, SIGHUP and SIGQUIT cancel it: what is down is brought back first, and further
    signals do not hurry that. The code is then 128 and the signal's number. An error is printed as
    a sentence and a hint on stderr, with ``--json`` as an object on stdout, too.
    """
    code = 1
    try:
        code = anyio.run(partial(_with_signals, command))
    except KopiwatchError as error:
        print_error(error)
        if json:
            print_json(error_record(error))
        code = error.exit_code
    lost = output_was_lost()
    raise SystemExit(1 if lost and code == 0 else code)


async def _with_signals(command: Callable[[], Awaitable[int]]) -> int:
    """Run the command in a scope of its own, so that the receiver outlives its cancellation."""
    scope = anyio.CancelScope()
    caught: list[signal.Signals] = []
    # nohup ignores SIGHUP on purpose.
    wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]

    async def watch(*, task_status: anyio.abc.TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(*wanted) as signals:
            task_status.started()
            async for number in signals:
                if caught:
                    note(f"{number.name}: still leaving; what is down comes back first")
                else:
                    note(f"{number.name}: leaving; what is down comes back first")
                caught.append(number)
                scope.cancel()

    code = 1
    with unwrapped():
        async with anyio.create_task_group() as tasks:
            await tasks.start(watch)
            with scope:
                code = await command()
            tasks.cancel_scope.cancel()
    return 128 + caught[0] if caught else code
