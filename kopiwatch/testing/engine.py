"""Docker in memory, behind :class:`kopiwatch.engine.port.Engine`.

The contract suite holds it to the behaviour of the real daemon. A test builds a host, lets the
code under test work on it, and reads :attr:`FakeEngine.calls`::

    docker = FakeEngine()
    db = docker.add_container("db", labels={"kopi.enable": "true"}, mounts=(volume_mount("data"),))
    docker.fail("start", "db", EngineError("no"), times=2)
    docker.hook("stop", "db", lambda: docker.remove("web"))
    …
    assert docker.order("stop", "start") == ["stop db", "start db", "start db", "start db"]
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

import anyio
import msgspec
from msgspec.structs import replace

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
from kopiwatch.errors import ContainerGone, EngineError, ImageMissing, StillRunning
from kopiwatch.testing.engine_host import (
    ANY,
    Call,
    Executed,
    FakeContainer,
    FakeHost,
    Streamed,
    volume_mount,
)
from kopiwatch.testing.engine_worker import FakeChannel, FakeWorker, Script, silent
from kopiwatch.units.container import STAGE_LABEL, STATE_LABEL, Container

__all__ = [
    "ANY",
    "Call",
    "Executed",
    "FakeChannel",
    "FakeContainer",
    "FakeEngine",
    "FakeHost",
    "FakeWorker",
    "Script",
    "Streamed",
    "silent",
    "volume_mount",
]


class FakeEngine(FakeHost):
    """A Docker daemon in memory, with what it holds: see :class:`FakeHost`."""

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
        """Remember that the connection was closed."""
        self.closed = True

    async def info(self) -> EngineInfo:
        """See the port."""
        async with self.call("info"):
            return replace(self.engine_info, system_time=self.system_time())

    async def containers(self) -> tuple[Container, ...]:
        """See the port. Newest first, as Docker lists them."""
        async with self.call("containers"):
            return tuple(each.row for each in reversed(self.all.values()))

    def events(self, *, since: datetime | None) -> AbstractAsyncContextManager[AsyncIterator[Hint]]:
        """See the port. Ended by :meth:`FakeHost.cut_events`; it knows no idle time."""
        return self._events(since)

    @asynccontextmanager
    async def _events(self, since: datetime | None) -> AsyncIterator[AsyncIterator[Hint]]:
        async with self.call("events"):
            following = self.events_told.follow(since)
        with following as stream:
            yield stream

    async def mounted(self, since: datetime) -> Mounted:
        """See the port."""
        async with self.call("mounted"):
            return self.events_told.mounted(since)

    async def inspect(self, container: str) -> Inspected:
        """See the port."""
        async with self.call("inspect", container):
            found = self.find(container, f"inspect container {container}")
            if found.row.id in self.probed and found.row.state == "paused":
                await found.thawed.wait()
            return found.details

    async def volume(self, name: str) -> Volume | None:
        """See the port."""
        async with self.call("volume", name):
            return self.volumes.get(name)

    async def network(self, name: str) -> bytes | None:
        """See the port."""
        async with self.call("network", name):
            return self.networks.get(name)

    async def image_id(self, reference: str) -> str:
        """See the port. An id is a reference, too."""
        async with self.call("image_id", reference):
            if reference in self.images.values():
                return reference
            if reference not in self.images:
                raise ImageMissing(f"cannot find the image {reference}: No such image: {reference}")
            return self.images[reference]

    async def image(self, reference: str) -> Image | None:
        """See the port. The images of a fake host come from no registry, unless a test says so."""
        async with self.call("image", reference):
            identity = self.images.get(reference, reference)
            if identity not in self.images.values():
                return None
            tags = tuple(name for name, each in self.images.items() if each == identity)
            return Image(identity, self.image_digests.get(identity, ()), tags, "amd64", "linux")

    async def daemon(self) -> DaemonWords:
        """See the port."""
        async with self.call("daemon"):
            who = self.engine_info
            info = {"ID": who.id, "Name": who.name, "ServerVersion": who.version}
            version = {"Version": who.version, "ApiVersion": who.api_version}
            return DaemonWords(msgspec.json.encode(info), msgspec.json.encode(version))

    async def stop(
        self,
        container: str,
        timeout: timedelta | None,
        *,
        grace: timedelta | None = None,  # noqa: ARG002 - the port's signature
    ) -> bool:
        """See the port."""
        async with self.call("stop", container, timeout):
            found = self.find(container, f"stop container {container}")
            if not found.row.running:
                return False
            self.set_state(found.row.id, "exited")
            return True

    async def start(self, container: str) -> bool:
        """See the port."""
        async with self.call("start", container):
            doing = f"start container {container}"
            found = self.find(container, doing)
            if found.row.state == "paused":
                raise EngineError(f"cannot {doing}: cannot start a paused container")
            if found.row.running:
                return False
            self.set_state(found.row.id, "running")
            found.details = replace(found.details, started_at=self.now(), restart_count=0)
            found.probes = 0
            return True

    async def pause(self, container: str) -> None:
        """See the port."""
        async with self.call("pause", container):
            doing = f"pause container {container}"
            found = self.find(container, doing)
            if found.row.state != "running":
                raise EngineError(f"cannot {doing}: it is {found.row.state}")
            found.thawed = anyio.Event()
            self.set_state(found.row.id, "paused")

    async def unpause(self, container: str) -> None:
        """See the port."""
        async with self.call("unpause", container):
            doing = f"unpause container {container}"
            found = self.find(container, doing)
            if found.row.state != "paused":
                raise EngineError(f"cannot {doing}: it is not paused")
            self.set_state(found.row.id, "running")
            found.thawed.set()

    async def exec(
        self,
        container: str,
        argv: tuple[str, ...],
        *,
        user: str = "",
        timeout: timedelta,
        env: Mapping[str, str] | None = None,
    ) -> ExecResult:
        """See the port. The argv of the health check is a probe; the rest is for the handler."""
        doing = f"run {argv[0]} in container {container}"
        async with self.call("exec", container, timeout):
            found = self.find(container, doing)
            if found.row.state != "running":
                raise EngineError(f"cannot {doing}: it is {found.row.state}")
            for _ in ("exec_create", "exec_start", "exec_die"):
                self.events_told.remember(self.system_time())
            check = found.details.healthcheck
            if check is not None and argv == check.argv:
                found.probes += 1
                good = found.healthy_after is not None and found.probes >= found.healthy_after
                return ExecResult(0 if good else 1, "")
            self.execs.append(Executed(found.row.name, argv, user, dict(env or {})))
            result = found.handler(argv, user)
            if result is None:
                raise StillRunning(
                    f"cannot {doing}: it has not ended within {timeout.total_seconds():g} s"
                )
            return result

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
        """See the port. The streamer of the container says what happens; nothing really waits."""
        async with self.call("exec_stream", container, timeout):
            doing = f"run {argv[0]} in container {container}"
            found = self.find(container, doing)
            if found.row.state != "running":
                raise EngineError(f"cannot {doing}: it is {found.row.state}")
            played = found.streamer(argv, user, stdin)
            if played.err:
                err(played.err)
            for piece in played.out:
                await out(piece)
            if played.error is not None:
                raise played.error
            if played.exit_code is None:
                raise StillRunning(
                    f"cannot {doing}: it has not ended within {timeout.total_seconds():g} s"
                )
            return played.exit_code

    def worker(self, spec: WorkerSpec) -> AbstractAsyncContextManager[Channel]:
        """See the port. The other side is played by ``script``."""
        return self._worker(spec)

    @asynccontextmanager
    async def _worker(self, spec: WorkerSpec) -> AsyncIterator[Channel]:
        with anyio.CancelScope(shield=True):  # a cancelled create would leave one behind
            async with self.call("worker", spec.name):
                identity = self._create_worker(spec)
        worker = self.all[identity].worker
        assert worker is not None  # noqa: S101 - made above
        worker.start()
        try:
            yield worker.channel
        except BaseException as error:
            await self._leave(worker, error)
            raise
        await self._leave(worker, None)

    async def _leave(self, worker: FakeWorker, first: BaseException | None) -> None:
        """Remove a worker at the end of its block, cancelled or not; the first error wins."""
        with anyio.CancelScope(shield=True):
            try:
                async with self.call("remove_worker", worker.id):
                    worker.end()
                    self.all.pop(worker.id, None)
            except EngineError as error:
                if first is None:
                    raise
                first.add_note(error.message)

    async def workers(self, state: str) -> tuple[str, ...]:
        """See the port."""
        async with self.call("workers", state):
            rows = (each.row for each in self.all.values())
            return tuple(r.id for r in rows if r.worker and r.labels.get(STATE_LABEL) == state)

    async def remove_worker(self, container: str) -> None:
        """See the port."""
        async with self.call("remove_worker", container):
            try:
                found = self.find(container, "remove the worker")
            except ContainerGone:
                return
            if not found.row.worker:
                raise EngineError(f"cannot remove {container}: it is not a worker of kopiwatch")
            self.remove(found.row.id)

    async def create_stage(self, name: str, labels: dict[str, str]) -> Volume:
        """See the port."""
        async with self.call("create_stage", name):
            self.add_volume(name, labels=labels)
            made = self.volumes[name]
            if any(made.labels.get(key) != value for key, value in labels.items()):
                raise EngineError(f"cannot create the volume {name}: there is one that is not ours")
            return made

    async def stages(self, state: str) -> tuple[str, ...]:
        """See the port."""
        async with self.call("stages", state):
            rows = [v for v in self.volumes.values() if v.labels.get(STATE_LABEL) == state]
            return tuple(volume.name for volume in rows if STAGE_LABEL in volume.labels)

    async def remove_stage(self, name: str) -> None:
        """See the port."""
        async with self.call("remove_stage", name):
            if name not in self.volumes:
                return
            if STAGE_LABEL not in self.volumes[name].labels:
                raise EngineError(
                    f"cannot remove the volume {name}: it is not a stage of kopiwatch"
                )
            workers = [each.spec for each in self.running_workers]
            if any(mount.source == name for spec in workers for mount in spec.mounts):
                raise EngineError(f"cannot remove the volume {name}: it is in use")
            del self.volumes[name]

    def _create_worker(self, spec: WorkerSpec) -> str:
        """What Docker refuses and does when a worker is created."""
        doing = f"create the worker {spec.name}"
        if spec.image not in self.images and spec.image not in self.images.values():
            raise ImageMissing(f"cannot {doing}: No such image: {spec.image}")
        for mount in spec.mounts:
            if mount.kind == "bind" and mount.source in self.missing_paths:
                raise EngineError(f"cannot {doing}: there is no {mount.source} on Docker's host")
            if mount.kind == "volume":
                # Docker creates a missing volume without a word; so does this, for tests to see.
                self.add_volume(mount.source)
        mode, _, peer = spec.network.partition(":")
        if mode == "container" and self.find(peer, f"start {doing}").row.state != "running":
            raise EngineError(f"cannot start the worker {spec.name}: {peer} is not running")
        if any(each.row.name == spec.name for each in self.all.values()):
            raise EngineError(f"cannot {doing}: the name {spec.name} is in use")
        identity = self.add_container(
            spec.name, image=spec.image, labels=spec.labels, network_mode=spec.network
        )
        self.all[identity].worker = FakeWorker(identity, spec, self.script)
        return identity
