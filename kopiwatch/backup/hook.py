"""One hook inside a container: run it, take its output, end it when it hangs.

Docker has no call that ends an exec, and the process id that it tells is the host's. So each hook
carries a mark in its environment, which whatever it starts inherits, and a second exec looks for
the mark in ``/proc`` and kills. That needs ``sh``, ``grep`` and ``tr`` in the container (measured
on Docker 20.10 with busybox and Debian), but not that the hook itself is a shell command. runc
gives every exec a session of its own, so that a child that dropped the environment is found, too.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta

import anyio
import msgspec

from kopiwatch.backup.result import HookResult
from kopiwatch.clock import Clock
from kopiwatch.engine.port import Engine, ExecResult
from kopiwatch.errors import (
    ContainerGone,
    EngineDenied,
    EngineError,
    EngineUnreachable,
    StillRunning,
)
from kopiwatch.units.hook import Hook, HookKind

MARK = "KOPIWATCH_HOOK_ID"
END_SECONDS = 10.0
"""How long the search for a hook that hangs may take."""
OUTPUT_BYTES = 8 * 1024
"""What is kept of an output: its end."""
CUT_CHARACTERS = 256
TAIL_LINES = 8
NOT_STARTED = (126, 127)
"""Docker's exit codes for a command that it could not start (API 1.41); shells use them, too."""

END_SCRIPT = r"""
mark=$1
command -v tr >/dev/null && command -v grep >/dev/null || exit 3
session() { read -r line <"/proc/$1/stat" || exit 3; set -- ${line##*) }; echo "$4"; }
spared=" 0 $(session 1) $(session $$) "
sessions=" "
rounds=0
while [ "$rounds" -lt 20 ]; do
  found=
  for process in /proc/[0-9]*; do
    { read -r line <"$process/stat"; } 2>/dev/null || continue
    set -- ${line##*) }
    [ "$1" = Z ] && continue
    if { tr "\000" "\n" <"$process/environ" | grep -qF "$mark"; } 2>/dev/null; then
      found=1
      kill -KILL "${process#/proc/}" 2>/dev/null
      case $spared$sessions in *" $4 "*) ;; *) sessions="$sessions$4 " ;; esac
    else
      case $sessions in *" $4 "*) found=1; kill -KILL "${process#/proc/}" 2>/dev/null ;; esac
    fi
  done
  [ "$found" ] || exit 0
  rounds=$((rounds + 1))
done
exit 4
"""
"""Kill whatever carries the mark, with its session; exit 0 when nothing of it is left."""


class Tools(msgspec.Struct, frozen=True):
    """What running a hook takes. ``mask`` takes our secrets out of what it printed."""

    engine: Engine
    clock: Clock
    mask: Callable[[str], str] = str


class Place(msgspec.Struct, frozen=True):
    """Where a hook runs, and for what: the container's id and name, the unit and the run."""

    id: str
    name: str
    unit: str
    run: str


async def run_hook(tools: Tools, place: Place, kind: HookKind, hook: Hook) -> HookResult:
    """Run a hook to its end, or end it; its failure is a result.

    One that is cut off by a cancellation is ended before that goes on. Raises EngineUnreachable and
    EngineDenied when Docker cannot be asked, ContainerGone.
    """
    engine, clock = tools.engine, tools.clock
    began, start = clock.now(), clock.seconds()
    environment = {
        "KOPIWATCH_HOOK": kind,
        "KOPIWATCH_UNIT": place.unit,
        "KOPIWATCH_RUN": place.run,
        MARK: f"{place.run}.{kind}",
    }

    def result(**facts: object) -> HookResult:
        seconds, tolerated = clock.seconds() - start, hook.on_error == "continue"
        ended = HookResult(kind, place.name, began, seconds, tolerated=tolerated)
        return msgspec.structs.replace(ended, **facts)

    try:
        done = await engine.exec(
            place.id, hook.command, user=hook.user, timeout=hook.timeout, env=environment
        )
    except StillRunning as error:
        ended = await end_hook(engine, place, hook.user, kind)
        limit = f"did not end within {hook.timeout.total_seconds():g} s and"
        why = f"{limit} was killed" if ended else f"{limit} may still run: it could not be ended"
        return result(
            reason="timeout",
            detail=why,
            hint="give it time by its label timeout"
            + ("" if ended else "; ending it needs sh, grep and tr in the container"),
            output=shown(error.tail, tools.mask),
        )
    except (EngineUnreachable, EngineDenied, ContainerGone):
        raise
    except EngineError as error:
        return result(reason="failed", detail=f"could not be run: {error.message}")
    except anyio.get_cancelled_exc_class():
        with anyio.CancelScope(shield=True), anyio.move_on_after(END_SECONDS):
            await end_hook(engine, place, hook.user, kind)
        raise
    output = shown(done.output, tools.mask)
    if done.exit_code == 0:
        return result(exit_code=0, output=output)
    detail, hint = told(hook, done)
    return result(
        exit_code=done.exit_code, reason="failed", detail=detail, hint=hint, output=output
    )


def told(hook: Hook, done: ExecResult) -> tuple[str, str]:
    """What an exit code means, in words, and what to do."""
    program = hook.command[0]
    if done.exit_code in NOT_STARTED:
        if "unable to find user" in done.output:
            return f"could not be run: there is no user {hook.user!r} in the container", ""
        if f'exec: "{program}"' in done.output and program == "sh":
            return (
                "could not be run: there is no sh in the container",
                'write the command as a JSON array, such as ["/app/tool", "pause"]',
            )
        if f'exec: "{program}"' in done.output:
            return f"could not be run: the container cannot execute {program!r}", ""
    return f"failed with exit code {done.exit_code}", ""


async def end_hook(engine: Engine, place: Place, user: str, kind: HookKind | None = None) -> bool:
    """Kill what a hook of this run has left in the container; False if that cannot be told.

    As the hook's own user, for others may not look into its environment. ``kind`` None: of both.
    """
    mark = f"{MARK}={place.run}.{kind or ''}"
    try:
        done = await engine.exec(
            place.id,
            ("sh", "-c", END_SCRIPT, "sh", mark),
            user=user,
            timeout=timedelta(seconds=END_SECONDS),
        )
    except EngineError:
        return False
    return done.exit_code == 0


def shown(output: str, mask: Callable[[str], str]) -> str:
    """What a hook printed, fit to be stored and shown: secrets masked, no control characters.

    Of an output that was cut to its end the first, incomplete line goes: it may hold the rest of a
    secret.
    """
    if len(output.encode("utf-8", "replace")) >= OUTPUT_BYTES:
        output = output.partition("\n")[2] or output[CUT_CHARACTERS:]
    return "".join(c if c in "\n\t" or c.isprintable() else "\ufffd" for c in mask(output))


def not_run(kind: HookKind, name: str, why: str, at: datetime, *, tolerated: bool) -> HookResult:
    """The result of a hook whose container was not there to run it."""
    return HookResult(
        kind, name, at, reason="not-run", detail=f"was not run: {why}", tolerated=tolerated
    )


def last_lines(output: str) -> str:
    """The end of what a hook printed."""
    return "\n".join(output.rstrip().splitlines()[-TAIL_LINES:])
