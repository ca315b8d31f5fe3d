"""Holding members down, and bringing back exactly what ran."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime, timedelta
from functools import partial

import anyio
import anyio.lowlevel
import msgspec

from kopiwatch.backup.journal import Held
from kopiwatch.backup.result import MemberResult
from kopiwatch.clock import Clock
from kopiwatch.engine.health import wait_healthy
from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone, EngineError, KopiwatchError
from kopiwatch.task import outcomes, together
from kopiwatch.units.container import Container
from kopiwatch.units.unit import Unit

START_RETRY_SECONDS = (0.2, 1.0, 3.0)
STOP_MARGIN_SECONDS = 2.0


class Stop(msgspec.Struct, frozen=True):
    """One container to stop; ``timeout`` None leaves it to the container's own, ``grace``."""

    id: str
    name: str
    timeout: timedelta | None
    grace: timedelta | None = None


class HoldPlan(msgspec.Struct, frozen=True):
    """Who is stopped, in which order, and what is owed to them afterwards.

    ``started`` holds, by id, since when each of ``held`` ran (UTC).
    """

    levels: tuple[tuple[Stop, ...], ...] = ()
    held: tuple[Held, ...] = ()
    started: dict[str, datetime | None] = msgspec.field(default_factory=dict)
    inspected: tuple[Inspected, ...] = ()
    warnings: tuple[str, ...] = ()


async def stop_all(engine: Engine, levels: Iterable[Iterable[Stop]]) -> tuple[str, ...]:
    """Stop level after level, each level side by side; returns the names of those that were down.

    Raises the first error of a level, after the others of that level have ended, so that
    everybody's state is known.
    """
    down: list[str] = []
    for level in levels:
        stops = tuple(level)
        # Docker finishes a stop that we no longer wait for, after our start found it running: so a
        # stop that has begun is waited for, whatever else happens.
        with anyio.CancelScope(shield=True):
            done = await together(
                [partial(engine.stop, stop.id, stop.timeout, grace=stop.grace) for stop in stops]
            )
        await anyio.lowlevel.checkpoint()
        down += [stop.name for stop, stopped in zip(stops, done, strict=True) if not stopped]
    return tuple(down)


async def bring_back(
    engine: Engine, held: Iterable[Held], clock: Clock
) -> tuple[MemberResult, ...]:
    """Start what we hold, in dependency order, each level side by side.

    Never raises an error of Docker's: a member that does not start is a result with state
    ``failed``, and the others are started all the same.
    """
    members = tuple(held)
    by_id = {member.id: member for member in members}
    results: list[MemberResult] = []
    for level in sorted({member.level for member in members}):
        calls = [partial(_bring_one, engine, m, by_id, clock) for m in members if m.level == level]
        names = [m.name for m in members if m.level == level]
        results += [
            MemberResult(name, "failed", detail=outcome.message)
            if isinstance(outcome, KopiwatchError)
            else outcome
            for name, outcome in zip(names, await outcomes(calls), strict=True)
        ]
    return tuple(results)


async def _bring_one(
    engine: Engine, member: Held, by_id: dict[str, Held], clock: Clock
) -> MemberResult:
    for dependency in member.await_healthy:
        if dependency in by_id:
            await _wait(engine, by_id[dependency], clock)
    try:
        started = await _start(engine, member.id, clock)
    except ContainerGone:
        return await _bring_successor(engine, member, clock)
    return MemberResult(member.name, "started" if started else "ran-already")


async def _start(engine: Engine, container: str, clock: Clock) -> bool:
    """Start a container; a start that fails is tried again, because giving up leaves it down."""
    for pause in START_RETRY_SECONDS:
        try:
            return await engine.start(container)
        except ContainerGone:
            raise
        except EngineError:
            await clock.sleep(pause)
    return await engine.start(container)


async def _bring_successor(engine: Engine, member: Held, clock: Clock) -> MemberResult:
    """Its id is gone: find who has its Compose identity (or its name) now."""
    for row in await engine.containers():
        if row.id != member.id and is_successor(row, member):
            if row.running:
                return MemberResult(member.name, "replaced", detail=f"now {row.id[:12]}, running")
            await _start(engine, row.id, clock)
            return MemberResult(member.name, "started", detail=f"its successor {row.id[:12]}")
    return MemberResult(member.name, "gone", detail="somebody removed it while it was down")


def is_successor(row: Container, member: Held) -> bool:
    """Whether this container took the place of the one that we stopped."""
    if member.service:
        identity = (row.project, row.service, row.number)
        return not row.oneoff and identity == (member.project, member.service, member.number)
    return row.name == member.name


async def wait_all_healthy(
    engine: Engine, held: Iterable[Held], results: Iterable[MemberResult], clock: Clock
) -> tuple[MemberResult, ...]:
    """Wait for the members that were healthy before; adds ``healthy`` to their results."""
    expected = {m.name: m for m in held if m.healthy_before}
    waiting = [r for r in results if r.name in expected and r.state in ("started", "ran-already")]
    calls = [partial(_wait, engine, expected[result.name], clock) for result in waiting]
    health: dict[str, bool | KopiwatchError] = dict(
        zip((r.name for r in waiting), await outcomes(calls), strict=True)
    )
    return tuple(_with_health(result, health.get(result.name)) for result in results)


def _with_health(result: MemberResult, health: bool | KopiwatchError | None) -> MemberResult:
    if health is None:
        return result
    if isinstance(health, KopiwatchError):
        return MemberResult(result.name, result.state, False, health.message)
    detail = result.detail if health else "not healthy again in time"
    return MemberResult(result.name, result.state, health, detail)


async def _wait(engine: Engine, member: Held, clock: Clock) -> bool:
    inspected = await engine.inspect(member.id)
    if inspected.healthcheck is None:
        return inspected.running
    return await wait_healthy(
        engine,
        member.id,
        inspected.healthcheck,
        seconds=member.start_timeout,
        sleep=clock.sleep,
        clock=clock.seconds,
    )


async def still_running(
    engine: Engine, held: Iterable[Held], results: Iterable[MemberResult]
) -> tuple[MemberResult, ...]:
    """Look again: a member that came back and fell over since is a failure."""
    rows = {row.id: row for row in await engine.containers()}
    ids = {member.name: member.id for member in held}

    def look(result: MemberResult) -> MemberResult:
        row = rows.get(ids.get(result.name, ""))
        if result.state != "started" or row is None or row.state in ("running", "paused"):
            return result
        return MemberResult(
            result.name, "failed", False, f"started, then {row.status or row.state}"
        )

    return tuple(look(result) for result in results)


async def interference(engine: Engine, unit: Unit, plan: HoldPlan) -> str:
    """Who disturbed the read, as a sentence; empty when nobody did.

    At **read** every held member must still be down, without having run in between, and no foreign
    container that mounts a source writable may run: otherwise what was read is not what a stopped
    application left behind. This is asked in the window, and side by side, because a start wipes
    out the traces.
    """
    if not plan.held:
        return ""
    rows: tuple[Container, ...] = ()

    async def list_all() -> None:
        nonlocal rows
        rows = await engine.containers()

    async def look(member: Held) -> str:
        try:
            now = await engine.inspect(member.id)
        except ContainerGone:
            return ""
        restarted = now.started_at != plan.started.get(member.id)
        return member.name if now.running or restarted else ""

    calls: list[Callable[[], Awaitable[str | None]]] = [partial(look, m) for m in plan.held]
    up = sorted(filter(None, await together([*calls, list_all])))
    if up:
        return f"somebody started {', '.join(up)} while it was read"
    own = {member.container.id for member in unit.members}
    foreign = sorted(r.name for r in rows if r.id not in own and r.running and _writes(r, unit))
    if foreign:
        return f"{', '.join(foreign)} ran and could write to a source while it was read"
    return ""


def _writes(row: Container, unit: Unit) -> bool:
    volumes = {source.volume for source in unit.sources if source.volume}
    binds = {source.host_path for source in unit.sources if source.host_path}
    return any(
        mount.writable and (mount.volume in volumes or mount.source in binds)
        for mount in row.mounts
    )
