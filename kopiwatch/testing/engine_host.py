"""What the fake daemon of :mod:`kopiwatch.testing.engine` holds."""

from __future__ import annotations

import hashlib
import inspect as introspection
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import anyio
import anyio.lowlevel
import msgspec
from msgspec.structs import replace

from kopiwatch.engine.port import (
    EngineInfo,
    ExecResult,
    Healthcheck,
    HostMount,
    Inspected,
    Volume,
    VolumeMount,
)
from kopiwatch.errors import ContainerGone, EngineError
from kopiwatch.testing.engine_events import FakeEvents
from kopiwatch.testing.engine_worker import FakeWorker, Script, silent
from kopiwatch.units.container import Container, Mount, State
from kopiwatch.units.label import ENABLE

ExecHandler = Callable[[tuple[str, ...], str], ExecResult | None]
"""What a container does with an exec (argv, user). None: the command never ends."""


class Streamed(msgspec.Struct, frozen=True):
    """How a streamed command of the fake goes: its output in pieces, then its end.

    ``exit_code`` None: it prints and never ends. ``error`` is raised instead of an end: the
    connection was cut.
    """

    out: tuple[bytes, ...] = ()
    err: bytes = b""
    exit_code: int | None = 0
    error: EngineError | None = None


StreamHandler = Callable[[tuple[str, ...], str, bytes], Streamed]
"""What a container does with a streamed exec (argv, user, standard input)."""
Action = Callable[[], Awaitable[None] | None]

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
ANY = "*"


class Call(msgspec.Struct, frozen=True):
    """One call that reached the engine. ``target`` is a name, also where an id was given.

    ``timeout`` is that of a stop or an exec.
    """

    operation: str
    target: str = ""
    timeout: timedelta | None = None

    def __str__(self) -> str:
        return f"{self.operation} {self.target}".rstrip()


class Executed(msgspec.Struct, frozen=True):
    """One command that reached a container by exec, no probe. ``container`` is its name."""

    container: str
    argv: tuple[str, ...]
    user: str = ""
    env: dict[str, str] = msgspec.field(default_factory=dict)


@dataclass
class FakeContainer:
    """A container of the fake: its row, its details, and how its health check behaves.

    The check passes from the ``healthy_after``-th probe after a start on; None: never.
    """

    row: Container
    details: Inspected
    handler: ExecHandler
    healthy_after: int | None = 1
    probes: int = 0
    worker: FakeWorker | None = None
    streamer: StreamHandler = lambda _argv, _user, _stdin: Streamed()
    thawed: anyio.Event = field(default_factory=anyio.Event)


@dataclass
class _Failure:
    operation: str
    target: str
    error: Exception
    times: int
    late: bool


def volume_mount(name: str, destination: str = "", *, writable: bool = True) -> Mount:
    """A mount of a local volume, by default at ``/<name>``."""
    return Mount(
        kind="volume",
        destination=destination or f"/{name}",
        source=f"/var/lib/docker/volumes/{name}/_data",
        volume=name,
        driver="local",
        writable=writable,
    )


@dataclass
class FakeHost:
    """What the fake daemon holds, and how a test builds and disturbs it.

    Everything is public and may be changed by a test.
    ``images`` maps references to ids, ``image_digests`` ids to digests; ``missing_paths`` are bind
    sources that the host does not have; ``script`` plays the worker's side of each channel.
    ``clock`` gives the UTC time of starts; by default each look at it is one second later.
    ``oversized`` are names of containers whose events are too large to be read.
    ``execs`` are the commands that came to a handler. ``probed`` are ids of containers whose health
    check begins as they are frozen: who inspects one waits until it is thawed.
    """

    script: Script = silent
    engine_info: EngineInfo = field(
        default_factory=lambda: EngineInfo("FAKE:ENGINE", "fakehost", "20.10.24", "1.41")
    )
    images: dict[str, str] = field(default_factory=lambda: {"kopiwatch:test": fingerprint("image")})
    image_digests: dict[str, tuple[str, ...]] = field(default_factory=dict)
    volumes: dict[str, Volume] = field(default_factory=dict)
    networks: dict[str, bytes] = field(default_factory=dict)
    missing_paths: set[str] = field(default_factory=set)
    oversized: set[str] = field(default_factory=set)
    probed: set[str] = field(default_factory=set)
    clock: Callable[[], datetime] | None = None
    calls: list[Call] = field(default_factory=list)
    execs: list[Executed] = field(default_factory=list)
    all: dict[str, FakeContainer] = field(default_factory=dict)
    closed: bool = False
    events_told: FakeEvents = field(default_factory=FakeEvents)
    _failures: list[_Failure] = field(default_factory=list)
    _hooks: dict[tuple[str, str], Action] = field(default_factory=dict)
    _made: int = 0
    _seconds: int = 0
    _looks: int = 0

    # Building a host.

    def add_container(
        self,
        name: str,
        *,
        image: str = "app:1",
        labels: Mapping[str, str] | None = None,
        state: State = "running",
        mounts: tuple[Mount, ...] = (),
        network_mode: str = "bridge",
        healthcheck: Healthcheck | None = None,
        healthy_after: int | None = 1,
        on_exec: ExecHandler | None = None,
        on_stream: StreamHandler | None = None,
        details: Mapping[str, object] | None = None,
    ) -> str:
        """Add a container, with its image and volumes where they are new. Returns its id.

        ``details`` sets any other field of :class:`kopiwatch.engine.port.Inspected`, such as
        ``restart_policy`` or ``pid_mode``.
        """
        self._made += 1
        identity = fingerprint(f"container {self._made} {name}")
        row = Container(
            id=identity,
            name=name,
            image=image,
            image_id=self.images.setdefault(image, fingerprint(image)),
            labels=dict(labels or {}),
            state=state,
            status=state,
            created=EPOCH + timedelta(seconds=self._made),
            network_mode=network_mode,
            mounts=mounts,
        )
        for mount in mounts:
            if mount.kind == "volume" and mount.volume:
                self.add_volume(mount.volume, driver=mount.driver or "local")
        seen = Inspected(
            id=identity,
            name=name,
            image=image,
            image_id=row.image_id,
            running=row.running,
            paused=state == "paused",
            exit_code=0,
            started_at=self.now() if state != "created" else None,
            health="none" if healthcheck is None else "healthy",
            healthcheck=healthcheck,
            restart_policy="no",
            auto_remove=False,
            pid_mode="",
            ipc_mode="private",
            network_mode=network_mode,
            volumes_from=(),
            networks=("bridge",) if network_mode == "bridge" else (),
            mounts=tuple(_host_mount(mount) for mount in mounts),
            definition=msgspec.json.encode(
                {"Id": identity, "Name": f"/{name}", "Config": {"Image": image, "Labels": labels}}
            ),
        )
        seen = replace(seen, **dict(details or {}))
        handler = on_exec or (lambda _argv, _user: ExecResult(0, ""))
        self.all[identity] = FakeContainer(row, seen, handler, healthy_after)
        if on_stream is not None:
            self.all[identity].streamer = on_stream
        self.tell("create", row)
        if row.running:
            self.tell("start", row)
        return identity

    def add_volume(
        self,
        name: str,
        *,
        driver: str = "local",
        options: Mapping[str, str] | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Add a volume unless it is there."""
        place = f"/var/lib/docker/volumes/{name}/_data"
        definition = msgspec.json.encode({"Name": name, "Driver": driver, "Options": options})
        made = Volume(name, driver, place, dict(options or {}), dict(labels or {}), definition)
        self.volumes.setdefault(name, made)

    def remove(self, container: str) -> None:
        """Somebody else removes a container; its volumes stay."""
        found = self.find(container, "remove it")
        if found.worker is not None:
            found.worker.end()
        del self.all[found.row.id]
        if found.row.running:
            self.tell("die", found.row)
        self.tell("destroy", found.row)

    def rename(self, container: str, name: str) -> None:
        """Somebody else renames a container."""
        found = self.find(container, "rename it")
        found.row = replace(found.row, name=name)
        found.details = replace(found.details, name=name)
        self.tell("rename", found.row)

    def set_state(self, container: str, state: State, exit_code: int = 0) -> None:
        """Somebody else, or the container itself, changes its state."""
        found = self.find(container, "set its state")
        before = found.row.running
        found.row = replace(found.row, state=state, status=state)
        found.details = replace(
            found.details,
            running=found.row.running,
            paused=state == "paused",
            exit_code=exit_code,
        )
        if found.row.running != before:
            self.tell("start" if found.row.running else "die", found.row)
        else:
            self.events_told.remember(self.system_time())

    def state(self, container: str) -> str:
        """The state of a container now, or ``gone``."""
        try:
            return self.find(container, "look").row.state
        except ContainerGone:
            return "gone"

    # Disturbing it, and looking at what happened.

    def fail(
        self,
        operation: str,
        target: str,
        error: Exception,
        *,
        times: int = 1,
        late: bool = False,
    ) -> None:
        """Let the next calls of an operation (a method's name) on a target fail.

        ``target`` is a name or ``"*"``. ``late``: Docker does it, and only the answer is lost.
        """
        self._failures.append(_Failure(operation, target, error, times, late))

    def hook(self, operation: str, target: str, action: Action) -> None:
        """Run something when a call arrives, before it has any effect.

        An asynchronous action holds the call until it is done, which makes overlap visible.
        """
        self._hooks[operation, target] = action

    def tell(self, action: str, row: Container) -> None:
        """Let those who follow the events know, as far as the port's filter lets it through."""
        now = self.system_time()
        mounts = (
            VolumeMount(mount.volume, row.id, row.name)
            for mount in row.mounts
            if action == "start" and mount.volume and mount.writable
        )
        self.events_told.remember(now, *mounts)
        if ENABLE in row.labels:
            oversized = row.name in self.oversized
            self.events_told.tell(action, row.id, now, oversized=oversized)

    def cut_events(self, error: EngineError | None = None) -> None:
        """Every stream of events ends: by Docker's word or after silence, or with an error."""
        self.events_told.cut(error)

    def order(self, *operations: str) -> list[str]:
        """The calls of these operations (all by default), in order, as ``"stop db"``."""
        return [str(call) for call in self.calls if not operations or call.operation in operations]

    @property
    def running_workers(self) -> tuple[FakeWorker, ...]:
        """The workers that are there now."""
        return tuple(each.worker for each in self.all.values() if each.worker is not None)

    # For the fake engine itself.

    @asynccontextmanager
    async def call(
        self, operation: str, target: str = "", timeout: timedelta | None = None
    ) -> AsyncIterator[None]:
        """Log a call, run its hook, and let it fail as the test asked for."""
        name = next((c.row.name for c in self.all.values() if c.row.id == target), target)
        self.calls.append(Call(operation, name, timeout))
        await anyio.lowlevel.checkpoint()
        action = self._hooks.get((operation, name)) or self._hooks.get((operation, ANY))
        outcome = action() if action is not None else None
        if introspection.isawaitable(outcome):
            await outcome
        failure = self._take_failure(operation, name)
        if failure is not None and not failure.late:
            raise failure.error
        yield
        if failure is not None:
            raise failure.error

    def _take_failure(self, operation: str, target: str) -> _Failure | None:
        for failure in self._failures:
            if failure.operation == operation and failure.target in (target, ANY):
                failure.times -= 1
                if failure.times <= 0:
                    self._failures.remove(failure)
                return failure
        return None

    def find(self, container: str, doing: str) -> FakeContainer:
        """By id, by name, or by the beginning of an id, as Docker does."""
        wanted = container.removeprefix("/")
        for each in self.all.values():
            if wanted in (each.row.id, each.row.name):
                return each
        short = [each for each in self.all.values() if wanted and each.row.id.startswith(wanted)]
        if len(short) == 1:
            return short[0]
        raise ContainerGone(f"cannot {doing}: No such container: {container}")

    def now(self) -> datetime:
        """The time, by ``clock``."""
        if self.clock is not None:
            return self.clock()
        self._seconds += 1
        return EPOCH + timedelta(seconds=self._seconds)

    def system_time(self) -> datetime:
        """The daemon's own clock: ``clock``, or a millisecond later at each look."""
        if self.clock is not None:
            return self.clock()
        self._looks += 1
        return EPOCH + timedelta(seconds=self._seconds, milliseconds=self._looks)


def fingerprint(text: str) -> str:
    """64 hexadecimal digits, always the same for the same text."""
    return hashlib.sha256(text.encode()).hexdigest()


def _host_mount(mount: Mount) -> HostMount:
    """As inspect shows it: here an anonymous volume has its path, too."""
    source = mount.source
    if mount.kind == "volume" and not source:
        source = f"/var/lib/docker/volumes/{mount.volume}/_data"
    return HostMount(
        kind=mount.kind,
        destination=mount.destination,
        source=source,
        volume=mount.volume,
        driver=mount.driver,
        writable=mount.writable,
    )
