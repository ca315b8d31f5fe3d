"""Docker through aiodocker, behind :class:`kopiwatch.engine.port.Engine`."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from types import TracebackType
from typing import Self

import aiohttp

from kopiwatch.engine import decode, decode_host, stage
from kopiwatch.engine.connection import CONNECT_SECONDS, Connection
from kopiwatch.engine.events import events, mounted
from kopiwatch.engine.execution import CUT_SECONDS, Execution, Tail, sorted_out
from kopiwatch.engine.failure import translated
from kopiwatch.engine.port import (
    Channel,
    DaemonWords,
    EngineInfo,
    ExecResult,
    Hint,
    Image,
    Inspected,
    Mounted,
    Volume,
    WorkerSpec,
)
from kopiwatch.engine.reference import container_path, image_path, named_path, shown
from kopiwatch.engine.worker import START_TIMEOUT, remove, worker
from kopiwatch.errors import EngineError, StillRunning
from kopiwatch.task import deadline
from kopiwatch.units.container import STATE_LABEL, Container

OUTPUT_BYTES = 8 * 1024
"""How much of an exec's output is kept: its end."""
STOP_MARGIN_SECONDS = 60.0
"""What Docker may take beyond the stop timeout: SIGKILL, network, unmounting."""


class DockerEngine:
    """The Docker daemon at one address (API 1.41 and later, Podman's compatible API).

    Made by :meth:`connect`; an async context manager that closes itself. Calls may overlap. Each
    call has a deadline of 30 s (5 s to connect) unless its docstring says otherwise, and raises
    only :class:`kopiwatch.errors.EngineError` and its subclasses.
    """

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clock: tuple[datetime, float] | None = None

    @classmethod
    async def connect(cls, url: str, *, environ: Mapping[str, str] | None = None) -> Self:
        """Connect to this address (``Config.docker_url``) and agree on the API version.

        ``environ`` gives ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH``; it defaults to the
        process's own. Raises ConfigError for an address or certificates that cannot be used,
        EngineUnreachable when nothing answers there, EngineDenied without permission.
        """
        return cls(await Connection.open(url, os.environ if environ is None else environ))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection. Safe to call twice."""
        await self._connection.close()

    async def info(self) -> EngineInfo:
        """Who the daemon is."""
        doing = "ask Docker who it is"
        answer = await self._connection.call(doing, "GET", "info")
        with translated(self._connection.attempt(doing)):
            info = decode_host.info(answer.body, self._connection.api_version)
        if info.system_time is not None:
            # Docker looked at its clock before we look at ours: counted on from here, its time is
            # never ahead of itself.
            self._clock = (info.system_time, time.monotonic())
        return info

    async def containers(self) -> tuple[Container, ...]:
        """All containers, running or not, labelled or not, by one list. A failed list raises."""
        doing = "list the containers"
        answer = await self._connection.call(doing, "GET", "containers/json", params={"all": "1"})
        with translated(self._connection.attempt(doing)):
            return decode.containers(answer.body)

    def events(self, *, since: datetime | None) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """What happens to labelled containers, from ``since`` (the daemon's clock, UTC) on.

        See the port, and :mod:`kopiwatch.engine.events` for what a Podman before 5.7 leaves out.
        """
        return events(self._connection, since)

    async def mounted(self, since: datetime) -> Mounted:
        """Which volumes were mounted writable since then; see the port. The deadline is 5 s."""
        told, at = self._clock or (datetime.now(UTC), time.monotonic())
        until = told + timedelta(seconds=time.monotonic() - at)
        return await mounted(self._connection, since, until)

    async def inspect(self, container: str) -> Inspected:
        """One container by id or name. Raises ContainerGone."""
        body = await self._inspect(container)
        with translated(self._connection.attempt(f"inspect container {shown(container)}")):
            return decode.inspected(body)

    async def volume(self, name: str) -> Volume | None:
        """One volume; None when there is none of that name (and none is created)."""
        body = await self._named("volumes", name)
        if body is None:
            return None
        with translated(self._connection.attempt(f"inspect volume {name}")):
            return decode_host.volume(body)

    async def network(self, name: str) -> bytes | None:
        """A network's definition as JSON bytes; None when there is none."""
        return await self._named("networks", name)

    async def image_id(self, reference: str) -> str:
        """The id of a local image. Raises ImageMissing; never pulls."""
        doing = f"find the image {reference}"
        answer = await self._connection.call(doing, "GET", image_path(reference))
        with translated(self._connection.attempt(doing)):
            return decode_host.image(answer.body)[0]

    async def image(self, reference: str) -> Image | None:
        """A local image by name or id; None when there is none. Never pulls."""
        doing = f"find the image {reference}"
        path = image_path(reference)
        answer = await self._connection.call(doing, "GET", path, absent="image")
        if answer.status == 404:
            return None
        with translated(self._connection.attempt(doing)):
            return decode_host.whole_image(answer.body)

    async def daemon(self) -> DaemonWords:
        """The daemon's whole description of itself, for the recipe."""
        info = await self._connection.call("ask Docker who it is", "GET", "info")
        version = await self._connection.call("ask Docker for its version", "GET", "version")
        return DaemonWords(info.body, version.body)

    async def stop(
        self, container: str, timeout: timedelta | None, *, grace: timedelta | None = None
    ) -> bool:
        """Stop it and wait until it is down. False: it was down already (304).

        ``timeout`` (rounded up to seconds) is what Docker waits between the stop signal and
        SIGKILL; None sends none, so that the container's own StopTimeout counts: ``grace``, which
        is looked up where it is None. The call's own deadline is 60 s above either; a container
        that wants to wait for ever (-1) gets none.
        """
        doing = f"stop container {shown(container)}"
        path = container_path(container)
        params: dict[str, str] = {}
        if timeout is not None:
            params["t"] = str(math.ceil(timeout.total_seconds()))
            grace = timeout
        elif grace is None:
            body = await self._inspect(container)
            with translated(self._connection.attempt(doing)):
                grace = decode.stop_timeout(body)
        total = None if grace is None else grace.total_seconds() + STOP_MARGIN_SECONDS
        answer = await self._connection.call(
            doing,
            "POST",
            f"{path}/stop",
            params=params,
            timeout=aiohttp.ClientTimeout(total=total, sock_connect=CONNECT_SECONDS),
            late=EngineError,
        )
        return answer.status != 304

    async def start(self, container: str) -> bool:
        """Start it. False: it ran already (304). The deadline is 5 minutes: it mounts volumes."""
        answer = await self._connection.call(
            f"start container {shown(container)}",
            "POST",
            f"{container_path(container)}/start",
            timeout=START_TIMEOUT,
            late=EngineError,
        )
        return answer.status != 304

    async def pause(self, container: str) -> None:
        """Freeze its processes. Raises EngineError when it does not run or is frozen already."""
        await self._connection.call(
            f"pause container {shown(container)}", "POST", f"{container_path(container)}/pause"
        )

    async def unpause(self, container: str) -> None:
        """Thaw its processes. Raises EngineError when it is not frozen."""
        await self._connection.call(
            f"unpause container {shown(container)}", "POST", f"{container_path(container)}/unpause"
        )

    async def exec(
        self,
        container: str,
        argv: tuple[str, ...],
        *,
        user: str = "",
        timeout: timedelta,
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run a command inside a running container and wait for its end.

        The result holds the last 8 KiB of its output. A program that does not exist ends with 126
        or 127 and says so in the output (API 1.41). Raises EngineError when the container is not
        running or is paused (409), StillRunning with the end of the output so far when the command
        has not ended by ``timeout``: Docker has no call to end an exec, so the command itself may
        go on inside the container.
        """
        execution = Execution(self._connection, container, argv, user, env or {})
        tail = Tail(OUTPUT_BYTES)
        with deadline(timeout.total_seconds(), partial(_late, execution, timeout, tail)):
            return ExecResult(await execution.run(tail.take), str(tail))

    async def exec_stream(
        self,
        container: str,
        argv: tuple[str, ...],
        *,
        out: Callable[[bytes], Awaitable[None]],
        err: Callable[[bytes], None],
        user: str = "",
        stdin: bytes = b"",
        timeout: timedelta,
    ) -> int:
        """Run a command inside a running container, its output handed over as it comes.

        See the port. A container that stops in the middle ends the command with 137 or the code of
        the signal that its own end brought. ``stdin`` needs an upgraded connection, which a socket
        proxy made of HAProxy does not pass on: an error after 20 s that says so.
        """
        execution = Execution(self._connection, container, argv, user)
        with deadline(timeout.total_seconds(), partial(_late, execution, timeout)):
            return await execution.run(sorted_out(out, err), stdin=stdin, linger=CUT_SECONDS)

    def worker(self, spec: WorkerSpec) -> AbstractAsyncContextManager[Channel]:
        """Create, attach, start; on leaving: force-remove, without its volumes, shielded.

        Raises ImageMissing, and EngineError that names a bind source missing on the host. A
        missing volume would be created by Docker: look with :meth:`volume` first.
        """
        return worker(self._connection, spec)

    async def workers(self, state: str) -> tuple[str, ...]:
        """Ids of the worker containers that carry ``kopi.state=<state>``, running or not."""
        doing = "list the workers"
        # By the value only: Podman before 5.7 knows no filter by a label's key alone.
        wanted = json.dumps({"label": [f"{STATE_LABEL}={state}"]})
        answer = await self._connection.call(
            doing, "GET", "containers/json", params={"all": "1", "filters": wanted}
        )
        with translated(self._connection.attempt(doing)):
            rows = decode.containers(answer.body)
        return tuple(row.id for row in rows if row.worker and row.labels.get(STATE_LABEL) == state)

    async def remove_worker(self, container: str) -> None:
        """Force-remove a worker, never its volumes; on return it is gone. Gone already is good.

        Raises EngineError for a container without the worker label, which is not ours to remove.
        """
        await remove(self._connection, container)

    async def create_stage(self, name: str, labels: dict[str, str]) -> Volume:
        """Make a local volume, or take the one that carries these labels already."""
        return await stage.create(self._connection, name, labels)

    async def stages(self, state: str) -> tuple[str, ...]:
        """Names of the volumes that carry ``kopi.stage`` and ``kopi.state=<state>``."""
        return await stage.listed(self._connection, state)

    async def remove_stage(self, name: str) -> None:
        """Remove such a volume; gone already is good. Raises EngineError if it is not ours."""
        await stage.remove(self._connection, name)

    async def _inspect(self, container: str) -> bytes:
        """The raw answer of inspect."""
        path = f"{container_path(container)}/json"
        answer = await self._connection.call(f"inspect container {shown(container)}", "GET", path)
        return answer.body

    async def _named(self, collection: str, name: str) -> bytes | None:
        """The raw definition of a volume or a network, None when Docker says there is none."""
        path = named_path(collection, name)
        if path is None:
            return None
        kind = collection.removesuffix("s")
        answer = await self._connection.call(f"inspect {kind} {name}", "GET", path, absent=kind)
        return None if answer.status == 404 else answer.body


def _late(execution: Execution, timeout: timedelta, tail: object = "") -> StillRunning:
    return StillRunning(
        f"cannot {execution.doing}: it has not ended within {timeout.total_seconds():g} s",
        hint="the command may still run inside the container; Docker cannot end it",
        tail=str(tail),
    )
