"""Bringing back exactly what ran, in dependency order, by Compose identity where ids changed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable
from functools import partial

import anyio
import msgspec

from kopiwatch.backup.journal import Held, OwedHook
from kopiwatch.backup.result import MemberResult
from kopiwatch.clock import Clock
from kopiwatch.engine.health import wait_healthy
from kopiwatch.engine.port import Engine
from kopiwatch.errors import ContainerGone, EngineError, KopiwatchError
from kopiwatch.task import outcomes
from kopiwatch.units.container import Container

START_RETRY_SECONDS = (0.2, 1.0, 3.0)
STOP_MARGIN_SECONDS = 2.0
WATCH_SECONDS = 0.25
FALLEN = {"stop": ("exited", "dead"), "pause": ("exited", "dead", "paused")}


async def bring_back(
    engine: Engine, held: Iterable[Held], clock: Clock
) -> tuple[MemberResult, ...]:
    """Start what we hold, in dependency order, each level side by side.

    Never raises an error of Docker's: a member that does not start is a result with state
    ``failed``, and the others are started all the same. ``healthy`` is True for those that were
    so before and had to be again for somebody else to be started.
    """
    members = tuple(held)
    waits = _Waits(engine, members, clock)
    results: list[MemberResult] = []
    for level in sorted({member.level for member in members}):
        now = [member for member in members if member.level == level]
        calls = [partial(_bring_one, engine, member, waits, clock) for member in now]
        results += [
            MemberResult(member.name, "failed", detail=outcome.message)
            if isinstance(outcome, KopiwatchError)
            else outcome
            for member, outcome in zip(now, await outcomes(calls), strict=True)
        ]
    healthy = {m.name for m in members if m.healthy_before and waits.known.get(m.id)}
    return tuple(
        msgspec.structs.replace(r, healthy=True)
        if r.name in healthy and r.state in ("started", "ran-already")
        else r
        for r in results
    )


class _Waits:
    """Waits for the health of members: once for each, however many others ask for it.

    Every probe is a process in the container, and takes processor time from those that start.
    """

    def __init__(self, engine: Engine, members: Iterable[Held], clock: Clock) -> None:
        self._engine = engine
        self._clock = clock
        self._members = {member.id: member for member in members}
        self._locks = {identity: anyio.Lock() for identity in self._members}
        self.known: dict[str, bool] = {}

    async def wait(self, identity: str) -> None:
        """Advisory: a dependency that is sick or gone must not keep its dependents down."""
        if identity not in self._members:
            return
        async with self._locks[identity]:
            if identity in self.known:
                return
            call = partial(_wait, self._engine, self._members[identity], self._clock)
            (healthy,) = await outcomes([call])
            self.known[identity] = healthy is True


async def _bring_one(engine: Engine, member: Held, waits: _Waits, clock: Clock) -> MemberResult:
    # A frozen one comes back at once: it is in the middle of something, and was up all the time.
    for dependency in member.await_healthy if member.how == "stop" else ():
        await waits.wait(dependency)
    try:
        if member.how == "pause":
            back = await _thaw(engine, member.id, clock)
        else:
            back = await _start(engine, member.id, clock)
    except ContainerGone:
        return await _bring_successor(engine, member, clock)
    return MemberResult(member.name, "started" if back else "ran-already")


async def _thaw(engine: Engine, container: str, clock: Clock) -> bool:
    """Unpause a container; one that has ended meanwhile (Docker was restarted) is started.

    It is not looked at before: see :func:`kopiwatch.backup.stopping.freeze`.
    """

    async def once() -> bool:
        try:
            await engine.unpause(container)
        except ContainerGone:
            raise
        except EngineError:
            now = await engine.inspect(container)
            if now.paused:
                raise
            return False if now.running else await engine.start(container)
        return True

    return await _patiently(once, clock)


async def _start(engine: Engine, container: str, clock: Clock) -> bool:
    return await _patiently(partial(engine.start, container), clock)


async def _patiently(once: Callable[[], Awaitable[bool]], clock: Clock) -> bool:
    """A call that fails is tried again, because giving up leaves a container down."""
    for pause in START_RETRY_SECONDS:
        try:
            return await once()
        except ContainerGone:
            raise
        except EngineError:
            await clock.sleep(pause)
    return await once()


async def _bring_successor(engine: Engine, member: Held, clock: Clock) -> MemberResult:
    """Its id is gone: find who has its Compose identity (or its name) now.

    A successor that ran already is as somebody wants it; one that never did is ours to start.
    """
    for row in await engine.containers():
        if row.id != member.id and is_successor(row, member):
            if row.state != "created":
                detail = f"now {row.id[:12]}, {row.state}"
                return MemberResult(member.name, "taken-over", detail=detail)
            await _start(engine, row.id, clock)
            return MemberResult(member.name, "started", detail=f"its successor {row.id[:12]}")
    return MemberResult(member.name, "gone", detail="somebody removed it while it was down")


def is_successor(row: Container, member: Held | OwedHook) -> bool:
    """Whether this container took the place of the one that we stopped."""
    if member.service:
        identity = (row.project, row.service, row.number)
        return not row.oneoff and identity == (member.project, member.service, member.number)
    return row.name == member.name


async def watch(
    engine: Engine,
    held: Iterable[Held],
    results: tuple[MemberResult, ...],
    clock: Clock,
    *,
    watched: Collection[str],
    seconds: float,
) -> tuple[MemberResult, ...]:
    """Start those of ``watched`` (ids) again that fall within ``seconds``; returns the results.

    Docker may still be carrying out a stop (or a pause) whose call was cut off: the container runs,
    a start says so, and then it ends. Whom we have started is not watched: that stop was over.
    """
    ran = {result.name for result in results if result.state == "ran-already"}
    members = tuple(member for member in held if member.id in watched and member.name in ran)
    end = clock.seconds() + seconds
    while members and clock.seconds() < end:
        await clock.sleep(WATCH_SECONDS)
        (rows,) = await outcomes([engine.containers])
        if isinstance(rows, KopiwatchError):
            continue  # Docker is away: it is asked again until the time is over
        states = {row.id: row.state for row in rows}
        fallen = [member for member in members if states.get(member.id) in FALLEN[member.how]]
        if fallen:
            again = {r.name: r for r in await bring_back(engine, fallen, clock)}
            results = tuple(again.get(result.name, result) for result in results)
            back = {member.id for member in fallen if again[member.name].state != "failed"}
            members = tuple(member for member in members if member.id not in back)
    return results


def longest_stop(held: Iterable[Held]) -> float:
    """Seconds after which every stop of a window must be over: levels stop one after another."""
    by_level: dict[int, float] = {}
    for member in held:
        slowest = max(by_level.get(member.level, 0.0), member.stop_timeout)
        by_level[member.level] = slowest
    return sum(slowest + STOP_MARGIN_SECONDS for slowest in by_level.values())


async def wait_all_healthy(
    engine: Engine, held: Iterable[Held], results: Iterable[MemberResult], clock: Clock
) -> tuple[MemberResult, ...]:
    """Wait for the members that were healthy before; adds ``healthy`` to their results.

    Whose health was waited for since its start is not asked again.
    """
    results = tuple(results)
    expected = {m.name: m for m in held if m.healthy_before}
    up = [r for r in results if r.name in expected and r.state in ("started", "ran-already")]
    waiting = [result for result in up if result.healthy is None]
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
    listed = await engine.containers()
    rows = {row.id: row for row in listed}
    for member in held:
        if member.id not in rows:
            rows.update((member.id, row) for row in listed if is_successor(row, member))
    ids = {member.name: member.id for member in held if not member.shaky}

    def look(result: MemberResult) -> MemberResult:
        row = rows.get(ids.get(result.name, ""))
        if (
            result.state not in ("started", "ran-already")
            or row is None
            or row.state in ("running", "paused")
        ):
            return result
        return MemberResult(
            result.name, "failed", False, f"started, then {row.status or row.state}"
        )

    return tuple(look(result) for result in results)
