"""The worker container: what Docker is asked to create, and the line protocol over its streams.

The recipe was measured on API 1.41. ``Mounts``, never ``Binds``: a missing bind source is an error
and not a new folder on the host. ``NoCopy``: otherwise Docker copies the image's files into an
empty volume of the user, read-only or not. Never ``VolumesFrom``, never ``v=1``: both can take an
anonymous volume of the user with them. Logging off: the output is ours, and holds file names.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import anyio

from kopiwatch.engine import decode, decode_host
from kopiwatch.engine.connection import CONNECT_SECONDS, Connection
from kopiwatch.engine.failure import translated
from kopiwatch.engine.port import WorkerMount, WorkerSpec
from kopiwatch.engine.reference import container_path, image_path, shown
from kopiwatch.engine.stream import STDERR, Attachment
from kopiwatch.errors import ContainerGone, EngineError
from kopiwatch.units.container import WORKER_LABEL

STDERR_BYTES = 8 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
REMOVE_SECONDS = 60.0
START_SECONDS = 300.0
"""A start mounts the volumes, and a mount over the network takes its time."""
REMOVE_TIMEOUT = aiohttp.ClientTimeout(total=REMOVE_SECONDS, sock_connect=CONNECT_SECONDS)
START_TIMEOUT = aiohttp.ClientTimeout(total=START_SECONDS, sock_connect=CONNECT_SECONDS)

_NO_SOURCE = re.compile(r"source path does not exist:?\s*(\S.*)", re.IGNORECASE)


class DockerChannel:
    """A line protocol over an attached worker, see :class:`kopiwatch.engine.port.Channel`.

    Nothing is read in the background: output waits in the worker's pipe until somebody iterates.
    """

    def __init__(self, attachment: Attachment) -> None:
        self._attachment = attachment
        self._pending = bytearray()
        self._searched = 0
        self._errors = bytearray()
        self._ended = False

    async def send(self, line: bytes) -> None:
        """Write one line (a newline is added). Raises EngineError when the worker is gone."""
        if self._ended:
            raise EngineError("cannot talk to the worker: it is gone", tail=self.stderr())
        await self._attachment.write(line + b"\n")

    def lines(self) -> AsyncIterator[bytes]:
        """Each line of standard output, without its newline, until the worker ends.

        Iterating again goes on where the last one stopped, and a cancelled wait loses nothing. A
        last line without a newline was torn by the worker's end: it goes to :meth:`stderr`.
        Raises EngineError for a line of more than 64 MiB.
        """
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while True:
            end = self._pending.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(self._pending[:end])
                del self._pending[: end + 1]
                self._searched = 0
                return line
            self._searched = len(self._pending)
            if self._searched > MAX_LINE_BYTES:
                raise EngineError(f"the worker wrote a line of more than {MAX_LINE_BYTES} bytes")
            if self._ended:
                raise StopAsyncIteration
            await self._receive()

    async def close(self) -> None:
        """Close standard input: the worker takes that as an order to leave."""
        self._attachment.end_input()

    def stderr(self) -> str:
        """The last 8 KiB of standard error that were read so far."""
        return self._errors.decode(errors="replace")

    async def _receive(self) -> None:
        """Take one piece from the stream and put it where it belongs."""
        piece = await self._attachment.read()
        if piece is None:
            self._ended = True
            self._complain(bytes(self._pending))
            self._pending.clear()
            self._searched = 0
        elif piece[0] == STDERR:
            self._complain(piece[1])
        else:
            self._pending += piece[1]

    def _complain(self, data: bytes) -> None:
        self._errors += data
        del self._errors[:-STDERR_BYTES]


def body(spec: WorkerSpec, declared: tuple[str, ...] = ()) -> dict[str, Any]:
    """What ``POST /containers/create`` is given (Docker API 1.41).

    ``declared`` are the volumes that the image itself declares: they get an empty tmpfs. Otherwise
    each worker would leave an anonymous volume behind, since workers go without ``v=1``.
    """
    targets = {mount.target.rstrip("/") for mount in spec.mounts}
    tmpfs = {"/run": "", "/tmp": ""}  # noqa: S108 - a mount point inside the worker
    tmpfs |= {path: "" for path in declared if path.rstrip("/") not in targets}
    return {
        "Image": spec.image,
        "Entrypoint": list(spec.entrypoint),
        "Cmd": [],
        "Labels": spec.labels,
        "Tty": False,
        "OpenStdin": True,
        "StdinOnce": True,
        "AttachStdin": True,
        "AttachStdout": True,
        "AttachStderr": True,
        # Our image's own check asks for a daemon, which a worker is not.
        "Healthcheck": {"Test": ["NONE"]},
        "HostConfig": {
            "NetworkMode": spec.network,
            "Mounts": [_mount(mount) for mount in spec.mounts],
            "Tmpfs": tmpfs,
            "LogConfig": {"Type": "none"},
            "AutoRemove": False,
            "ReadonlyRootfs": True,
            "SecurityOpt": ["no-new-privileges"],
            "CapDrop": ["ALL"],
            "CapAdd": list(spec.capabilities),
            "RestartPolicy": {"Name": "no"},
        },
    }


def _mount(mount: WorkerMount) -> dict[str, Any]:
    made: dict[str, Any] = {
        "Type": mount.kind,
        "Source": mount.source,
        "Target": mount.target,
        "ReadOnly": not mount.writable,
    }
    if mount.kind == "volume":
        made["VolumeOptions"] = {"NoCopy": True}
    return made


@asynccontextmanager
async def worker(connection: Connection, spec: WorkerSpec) -> AsyncIterator[DockerChannel]:
    """Create, attach, start, and force-remove in the end, whatever happened inside.

    Raises ImageMissing, EngineError that names a bind source which the host does not have, or any
    other EngineError. A removal that fails is raised, or noted on the error that came first.
    """
    # Shielded: a cancelled create would leave a container whose id nobody knows.
    with anyio.CancelScope(shield=True):
        container = await _create(connection, spec)
    attempt = connection.attempt(
        f"talk to the worker {spec.name}", "POST", f"containers/{container}/attach"
    )
    handle = connection.docker.containers.container(container)
    attachment = Attachment(handle.attach(stdin=True, stdout=True, stderr=True), attempt)
    try:
        # Before the start: what it says first must not be lost.
        await attachment.open()
        await connection.call(
            f"start the worker {spec.name}",
            "POST",
            f"containers/{container}/start",
            timeout=START_TIMEOUT,
            late=EngineError,
        )
        yield DockerChannel(attachment)
    except BaseException as error:
        await _leave(connection, container, attachment, error)
        raise
    await _leave(connection, container, attachment, None)


async def remove(connection: Connection, container: str) -> None:
    """Force-remove a worker and wait until it is gone; never its volumes.

    Raises EngineError for a container that carries no worker label: it is not ours to remove.
    """
    doing = f"remove the worker {shown(container)}"
    path = container_path(container)
    try:
        answer = await connection.call(doing, "GET", f"{path}/json")
        with translated(connection.attempt(doing)):
            labels = decode.labels(answer.body)
        if WORKER_LABEL not in labels:
            raise EngineError(f"cannot {doing}: it is not a worker of kopiwatch")
    except ContainerGone:
        return
    await _remove(connection, doing, path)


async def _create(connection: Connection, spec: WorkerSpec) -> str:
    """Create the container. Returns its id."""
    doing = f"create the worker {spec.name}"
    image = await connection.call(doing, "GET", image_path(spec.image))
    with translated(connection.attempt(doing)):
        declared = decode_host.image(image.body)[1]
    try:
        answer = await connection.call(
            doing,
            "POST",
            "containers/create",
            params={"name": spec.name},
            body=body(spec, declared),
            late=EngineError,  # Docker itself looks at each bind source, and one may hang
        )
    except EngineError as error:
        found = _NO_SOURCE.search(error.message)
        if found is None:
            raise
        raise EngineError(
            f"cannot {doing}: there is no {found[1]} on Docker's host",
            hint="a bind mount's source vanished; the container that mounts it shows where it was",
        ) from error
    with translated(connection.attempt(doing)):
        return decode.created_id(answer.body)


async def _leave(
    connection: Connection,
    container: str,
    attachment: Attachment,
    first: BaseException | None,
) -> None:
    """Close the streams and remove the worker, cancelled or not; the first error wins."""
    attachment.close()
    with anyio.CancelScope(shield=True):
        try:
            await _remove(connection, "remove the worker", container_path(container))
        except EngineError as error:
            if first is None:
                raise
            first.add_note(error.message)


async def _remove(connection: Connection, doing: str, path: str) -> None:
    """Force-remove; if somebody else removes it already, wait until it is gone."""
    try:
        await connection.call(
            doing, "DELETE", path, params={"force": "1"}, timeout=REMOVE_TIMEOUT, late=EngineError
        )
    except ContainerGone:
        return
    except EngineError as error:
        # 409: "removal of container … is already in progress"
        if "already in progress" not in error.message:
            raise
        await _vanish(connection, doing, path)


async def _vanish(connection: Connection, doing: str, path: str) -> None:
    with anyio.move_on_after(REMOVE_SECONDS):
        while True:
            try:
                await connection.call(doing, "GET", f"{path}/json")
            except ContainerGone:
                return
            await anyio.sleep(0.05)
    raise EngineError(f"cannot {doing}: its removal has not ended within {REMOVE_SECONDS:.0f} s")
