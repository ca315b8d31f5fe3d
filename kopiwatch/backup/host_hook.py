"""Hooks where kopiwatch runs: programs that the configuration file names, before and after."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from subprocess import DEVNULL

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from kopiwatch.backup.hook import OUTPUT_BYTES, last_lines, shown
from kopiwatch.backup.result import HookResult
from kopiwatch.backup.verdict import HOOK
from kopiwatch.clock import Clock
from kopiwatch.config import HostHook, HostHookName, HostHooks, fault_of_own_program
from kopiwatch.errors import RunError

PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ")
"""What a program gets of our own environment: nothing that may hold a secret."""
DRAIN_SECONDS = 2.0
"""How long its output is read after it has left: something that it started may hold that open."""
LEAVE_SECONDS = 10.0


class HostTools(msgspec.Struct, frozen=True):
    """What running a program takes. ``mask`` takes our secrets out of what it printed."""

    clock: Clock
    mask: Callable[[str], str] = str


class HostSide(msgspec.Struct, frozen=True):
    """The hooks of the configuration, and what each of them is told (``KOPIWATCH_*``)."""

    hooks: HostHooks = msgspec.field(default_factory=dict)
    variables: dict[str, str] = msgspec.field(default_factory=dict)

    def any(self, unit: str, *names: HostHookName) -> bool:
        """Whether there is a hook for this unit."""
        return any(hook.fits(unit) for name in names for hook in self.hooks.get(name, ()))

    @property
    def around_runs(self) -> bool:
        """Whether there is a hook before or after any unit's run."""
        return bool(self.hooks.get("before_run") or self.hooks.get("after_run"))

    async def run(
        self,
        name: HostHookName,
        unit: str,
        facts: Mapping[str, str],
        tools: HostTools,
        results: list[HookResult],
    ) -> None:
        """Run the hooks of this name one after the other; ``results`` gets what became of each.

        Raises RunError at the first one before something that fails and may not; those after
        something are all run.
        """
        told = {**self.variables, "KOPIWATCH_HOOK": name, "KOPIWATCH_UNIT": unit, **facts}
        for hook in self.hooks.get(name, ()):
            if not hook.fits(unit):
                continue
            result = await run_program(hook, name, told, tools)
            results.append(result)
            if result.reason and not result.tolerated:
                raise RunError(
                    f"unit {unit}: {result.sentence}",
                    phase="check",
                    reason=HOOK,
                    hint=result.hint,
                    tail=last_lines(result.output),
                )


async def run_program(
    hook: HostHook, name: HostHookName, variables: Mapping[str, str], tools: HostTools
) -> HookResult:
    """Run a program to its end, or kill its process group at the timeout; a failure is a result.

    A cancellation kills it, too.
    """
    program = hook.command[0]
    began, start = tools.clock.now(), tools.clock.seconds()
    tolerated = hook.on_error == "continue" or name.startswith("after_")

    def result(**facts: object) -> HookResult:
        seconds = tools.clock.seconds() - start
        ended = HookResult(name, program, began, seconds, tolerated=tolerated)
        return msgspec.structs.replace(ended, **facts)

    # It was looked at when the configuration was read, which may be weeks ago.
    fault = await anyio.to_thread.run_sync(fault_of_own_program, Path(program))
    if fault:
        return result(reason="not-run", detail=f"was not run: it {fault}")
    environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
    output = bytearray()
    with _pipe() as (reading, writing):
        try:
            # Shielded, for a process that nobody holds yet cannot be ended by anybody.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    list(hook.command),
                    stdin=DEVNULL,
                    stdout=writing,
                    stderr=writing,
                    env=environment | dict(variables),
                    cwd="/",
                    start_new_session=True,
                )
        except OSError as error:
            return result(reason="failed", detail=f"could not be run: {error.strerror}")
        finally:
            os.close(writing)
        try:
            with anyio.move_on_after(hook.timeout.total_seconds()) as limit:
                await _finish(process, reading, output)
        finally:
            await _end(process)
    printed = shown(output.decode(errors="replace"), tools.mask)
    if limit.cancelled_caught:
        seconds = hook.timeout.total_seconds()
        return result(
            reason="timeout",
            detail=f"did not end within {seconds:g} s and was killed",
            hint="give it time by its timeout",
            output=printed,
        )
    code = process.returncode or 0
    if code == 0:
        return result(exit_code=0, output=printed)
    why = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    return result(exit_code=code, reason="failed", detail=why, output=printed)


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe of our own: asyncio's would stay open as long as a child of the program holds it.

    The end for writing is the caller's to close.
    """
    reading, writing = os.pipe()
    os.set_blocking(reading, False)
    try:
        yield reading, writing
    finally:
        os.close(reading)


async def _finish(process: anyio.abc.Process, reading: int, output: bytearray) -> None:
    """Wait for its end; ``output`` gets the last 8 KiB of what it printed."""

    async def read() -> None:
        while True:
            await anyio.wait_readable(reading)
            piece = os.read(reading, 65536)
            if not piece:
                return
            output.extend(piece)
            del output[:-OUTPUT_BYTES]

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        await process.wait()
        tasks.cancel_scope.deadline = anyio.current_time() + DRAIN_SECONDS


async def _end(process: anyio.abc.Process) -> None:
    """Kill it, with what it started, if it is there still."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    with anyio.CancelScope(shield=True), anyio.move_on_after(LEAVE_SECONDS):
        await process.wait()
