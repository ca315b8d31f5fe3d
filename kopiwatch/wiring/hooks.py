"""The configuration's hooks, with what they are told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import msgspec

from kopiwatch.backup.host_hook import HostSide, HostTools
from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import HookResult
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config
from kopiwatch.errors import KopiwatchError
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.kopia.failure import masker


def host_side(config: Config, host: str) -> HostSide:
    """The hooks that run where we run; ``host`` is our name in the repository. No secret is told.

    Raises ConfigError for a repository whose address is none.
    """
    variables = {
        "KOPIWATCH_HOST": host,
        "KOPIWATCH_INSTANCE": config.instance,
        "KOPIWATCH_REPOSITORY": str(parse_repository(config.repository)),
    }
    return HostSide(config.hooks, variables)


class Restored(msgspec.Struct, frozen=True):
    """What is restored: of which unit, the point of which run, and where to."""

    unit: str
    run: str
    target: Path


@asynccontextmanager
async def restore_hooks(
    config: Config, host: str, what: Restored, listener: Listener
) -> AsyncIterator[list[HookResult]]:
    """The host's hooks around a restore; yields how they ended, which is complete at the end.

    ``after_restore`` runs whatever happened, once ``before_restore`` has begun. Raises RunError
    when that fails.
    """
    side = host_side(config, host)
    tools = HostTools(SYSTEM, masker(config.secrets))
    facts = {"KOPIWATCH_RUN": what.run, "KOPIWATCH_TARGET": str(what.target)}
    results: list[HookResult] = []
    ended = {"KOPIWATCH_VERDICT": "failed", "KOPIWATCH_REASON": "cancelled"}
    try:
        await side.run("before_restore", what.unit, facts, tools, results)
        yield results
        ended = {"KOPIWATCH_VERDICT": "success", "KOPIWATCH_REASON": ""}
    except KopiwatchError as error:
        ended["KOPIWATCH_REASON"] = getattr(error, "reason", error.code)
        raise
    finally:
        with anyio.CancelScope(shield=True):
            await side.run("after_restore", what.unit, facts | ended, tools, results)
        for result in results:
            if result.reason and result.tolerated:
                listener.say("hook", f"{what.unit}: {result.sentence}", level="warning")
