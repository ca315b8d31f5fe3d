"""A run with the host's hooks around it."""

from __future__ import annotations

import anyio
import msgspec

from kopiwatch.backup.host_hook import HostTools
from kopiwatch.backup.result import HookResult, RunResult
from kopiwatch.backup.run import Run
from kopiwatch.errors import Cancelled, RunError


async def execute(run: Run) -> RunResult:
    """Run ``before_run``, the run, ``after_run``: the last whatever happened, once it has begun.

    What fails before the run makes it ``failed`` with nothing touched; what fails after it is a
    warning of it. Cancellation is raised on, after ``run.result`` is set.
    """
    house, unit = run.house, run.unit.name
    side = house.host_side
    if not side.any(unit, "before_run", "after_run"):
        return await run.execute()
    tools = HostTools(house.clock, house.mask)
    facts = {"KOPIWATCH_RUN": run.run}
    before: list[HookResult] = []
    try:
        try:
            run.course.say("hook", "before_run hooks")
            await side.run("before_run", unit, facts, tools, before)
        except RunError as error:
            await run.refuse(error)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                cut = Cancelled(f"unit {unit}: cancelled", phase="check", reason="cancelled")
                await run.refuse(cut)
            raise
        else:
            await run.execute()
    finally:
        with anyio.CancelScope(shield=True):
            after: list[HookResult] = []
            told = facts | (facts_of(run.result) if run.result else {})
            await side.run("after_run", unit, told, tools, after)
            if run.result is not None:
                run.result = _with_hooks(run.result, before, after)
    assert run.result is not None  # noqa: S101 - set by the run, or as it was refused
    return run.result


def facts_of(result: RunResult) -> dict[str, str]:
    """How the run ended, for the hooks after it."""
    return {
        "KOPIWATCH_VERDICT": result.verdict,
        "KOPIWATCH_REASON": result.reason,
        "KOPIWATCH_MESSAGE": result.message,
        "KOPIWATCH_PHASE": result.broke_in or "",
        "KOPIWATCH_WINDOW_SECONDS": f"{result.window:.3f}",
        "KOPIWATCH_SNAPSHOT": result.snapshot,
    }


def _with_hooks(result: RunResult, before: list[HookResult], after: list[HookResult]) -> RunResult:
    mild = (hook.sentence for hook in (*before, *after) if hook.reason and hook.tolerated)
    return msgspec.structs.replace(
        result,
        hooks=(*before, *result.hooks, *after),
        warnings=(*result.warnings, *mild),
    )
