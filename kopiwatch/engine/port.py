"""What the rest of the house knows of Docker: values, and one Protocol."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import datetime, timedelta
from typing import Literal, Protocol

import msgspec

from kopiwatch.units.container import Container

IDLE_SECONDS = 600.0
"""A stream of events that was silent for so long is ended: its connection may be dead."""
Health = Literal["none", "starting", "healthy", "unhealthy"]


class EngineInfo(msgspec.Struct, frozen=True):
    """Who the daemon is. ``id`` is its unique engine id, ``name`` the host's name.

    ``system_time`` is the daemon's own clock (UTC) when it answered, None where it cannot be told.
    """

    id: str
    name: str
    version: str
    api_version: str
    root_dir: str = ""
    rootless: bool = False
    system_time: datetime | None = None


class Hint(msgspec.Struct, frozen=True):
    """Something happened to a container: a reason to list, never the state itself.

    ``action`` is Docker's word (``start``; Podman says ``remove`` for ``destroy``). ``container``
    is the full id. ``at`` is the daemon's time of it (UTC, microseconds, rounded down), None where
    it cannot be told.
    """

    action: str
    container: str
    at: datetime | None


class VolumeMount(msgspec.Struct, frozen=True):
    """Docker mounted a volume writable for a container. ``name`` is the container's, or empty."""

    volume: str
    container: str
    name: str = ""


class Mounted(msgspec.Struct, frozen=True):
    """Which volumes were mounted writable since a moment, and whether that is all of them."""

    mounts: tuple[VolumeMount, ...]
    complete: bool


class Healthcheck(msgspec.Struct, frozen=True):
    """A container's own check: the argv to exec, and how long one probe may take."""

    argv: tuple[str, ...]
    timeout: timedelta = timedelta(seconds=30)


class Inspected(msgspec.Struct, frozen=True):
    """What only ``GET /containers/{id}/json`` tells.

    ``started_at`` is UTC, None for a container that never ran. ``healthcheck`` is None where the
    container has none or disabled it. ``definition`` is the whole answer as JSON bytes, for the
    recipe; nobody but the recipe reads it. ``stop_timeout`` is what Docker waits for this container
    before SIGKILL, None where it waits for ever. ``restart_count`` is how often its restart policy
    has started it since somebody did: a stop keeps it, a start sets it to 0 (API 1.41).
    """

    id: str
    name: str
    image: str
    image_id: str
    running: bool
    paused: bool
    exit_code: int
    started_at: datetime | None
    health: Health
    healthcheck: Healthcheck | None
    restart_policy: str
    auto_remove: bool
    pid_mode: str
    ipc_mode: str
    network_mode: str
    volumes_from: tuple[str, ...]
    networks: tuple[str, ...]
    mounts: tuple[HostMount, ...]
    definition: bytes
    stop_timeout: timedelta | None = timedelta(seconds=10)
    restart_count: int = 0


class HostMount(msgspec.Struct, frozen=True):
    """One mount as inspect shows it: here an anonymous volume has its source path, too."""

    kind: str
    destination: str
    source: str = ""
    volume: str = ""
    driver: str = ""
    writable: bool = True


class Volume(msgspec.Struct, frozen=True):
    """A volume. ``options`` are its driver options; ``definition`` is the answer as JSON bytes."""

    name: str
    driver: str
    mountpoint: str
    options: dict[str, str]
    labels: dict[str, str]
    definition: bytes


class ExecResult(msgspec.Struct, frozen=True):
    """How an exec ended: its exit code, and the end of what it printed (stdout and stderr)."""

    exit_code: int
    output: str


class WorkerMount(msgspec.Struct, frozen=True):
    """One mount of a worker: a volume by name, or a bind by host path."""

    kind: Literal["volume", "bind"]
    source: str
    target: str
    writable: bool = False


class WorkerSpec(msgspec.Struct, frozen=True):
    """A worker container, as ``facts/volumes.md`` §2 asks for. It holds no secret.

    ``network`` is a network mode such as ``container:<id>`` or ``none``.
    """

    name: str
    image: str
    entrypoint: tuple[str, ...]
    labels: dict[str, str]
    mounts: tuple[WorkerMount, ...]
    network: str
    capabilities: tuple[str, ...] = ("DAC_READ_SEARCH",)


class Channel(Protocol):
    """A line protocol over a worker's standard streams."""

    async def send(self, line: bytes) -> None:
        """Write one line (a newline is added). Raises EngineError when the worker is gone."""

    def lines(self) -> AsyncIterator[bytes]:
        """Each line of standard output, without its newline, until the worker ends."""

    async def close(self) -> None:
        """Close standard input: the worker takes that as an order to leave."""

    def stderr(self) -> str:
        """The last kilobytes of standard error so far."""


class Engine(Protocol):
    """Docker, as this house needs it.

    Each method raises a subclass of :class:`kopiwatch.errors.EngineError` and nothing else:
    EngineUnreachable when Docker does not answer, EngineDenied on 403, ContainerGone when a
    container does not exist, EngineError for the rest.
    """

    async def info(self) -> EngineInfo:
        """Who the daemon is."""

    async def containers(self) -> tuple[Container, ...]:
        """All containers, running or not, labelled or not. A failed list raises."""

    def events(self, *, since: datetime | None) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """What happens to labelled containers, from ``since`` (the daemon's clock, UTC) on.

        Only containers that carry ``kopi.enable`` are told of, and only what changes their row in
        the list, except for pausing. ``since`` is inclusive (on Podman exclusive) and reaches back
        256 events at most; None: from now on. On entering, the stream is subscribed as well as
        HTTP lets one know; list after that, and give a ``since`` of before, and nothing is missed.

        The iteration ends when Docker ends the stream, and after 600 s without any event: both are
        routine. Raises EngineUnreachable or EngineError when it breaks, EventTooLarge for an event
        that is too large or not understood; the same event is told again to who asks for it.
        """

    async def mounted(self, since: datetime) -> Mounted:
        """The writable mounts of volumes since then, of containers that are gone again, too.

        ``since`` is the daemon's clock, as :meth:`info` of this very connection told it before.
        Docker keeps its last 256 events of all kinds: ``complete`` is False where older ones may
        be lost. Binds make no such event.
        """

    async def inspect(self, container: str) -> Inspected:
        """One container by id or name."""

    async def volume(self, name: str) -> Volume | None:
        """One volume; None when there is none of that name (and none is created)."""

    async def network(self, name: str) -> bytes | None:
        """A network's definition as JSON bytes; None when there is none."""

    async def image_id(self, reference: str) -> str:
        """The id of a local image. Raises ImageMissing; never pulls."""

    async def stop(
        self, container: str, timeout: timedelta | None, *, grace: timedelta | None = None
    ) -> bool:
        """Stop it and wait until it is down. False: it was down already (304).

        ``timeout`` None sends none, so that the container's own StopTimeout counts. ``grace`` is
        that StopTimeout where the caller knows it, which saves asking for it in the window.
        """

    async def start(self, container: str) -> bool:
        """Start it. False: it ran already (304)."""

    async def pause(self, container: str) -> None:
        """Freeze its processes."""

    async def unpause(self, container: str) -> None:
        """Thaw its processes."""

    async def exec(
        self,
        container: str,
        argv: tuple[str, ...],
        *,
        user: str = "",
        timeout: timedelta,
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """Run a command inside it, with ``env`` on top of the container's environment.

        Raises StillRunning when it has not ended by ``timeout``: it may go on inside then.
        """

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
        """Run a command inside it, and hand over what it prints as it comes; the exit code.

        ``out`` is awaited before more is read: a slow reader slows the command down, and nothing
        piles up. What it raises (errors of ours only) ends this call. ``stdin`` is written to the
        command's standard input, which then stays open. Raises StillRunning when the command has
        not ended by ``timeout``, EngineError when the connection to it was cut; the command itself
        may go on then, as it does when this is cancelled.
        """

    def worker(self, spec: WorkerSpec) -> AbstractAsyncContextManager[Channel]:
        """Create, attach, start; on leaving: force-remove, without its volumes, shielded."""

    async def workers(self, state: str) -> tuple[str, ...]:
        """Ids of the worker containers that carry ``kopi.state=<state>``, running or not."""

    async def remove_worker(self, container: str) -> None:
        """Force-remove a worker, never its volumes; gone already is good."""

    async def close(self) -> None:
        """Close the connection."""
