"""Docker's stream of events, as hints.

aiodocker's own ``DockerEvents`` is not used: it cannot say when the stream is there, puts an
unbounded queue between, and after a lost connection ``subscribe()`` is a silent no-op (0.27).

What the daemon does, and why this is as it is (Docker 20.10 to 29, Podman 4 to 6):

- Headers come *before* the subscription is in place, so only a ``since`` of before closes the gap.
- It keeps 256 events of all kinds in memory, none across its own restart.
- A reader that is slow for 1,024 events slows down every container operation of the host and then
  loses events without a trace: whoever iterates must do nothing but set a flag.
- Values of one filter key are alternatives, except several labels, which must all match.
- ``since`` is seconds since 1970 with a fraction; a time in words is an error (500).
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import aiohttp
import anyio
import msgspec

from kopiwatch.engine.body import read
from kopiwatch.engine.connection import CONNECT_SECONDS, Connection
from kopiwatch.engine.failure import Attempt, translated
from kopiwatch.engine.port import IDLE_SECONDS, Hint, Mounted, VolumeMount
from kopiwatch.errors import EngineUnreachable, EventTooLarge
from kopiwatch.units.label import ENABLE

ACTIONS = ("create", "start", "die", "destroy", "remove", "rename", "update")
"""What changes a container's row; ``remove`` is Podman's ``destroy``. Without the three events of
each health probe: those would be most of all events, and say nothing that a list would show."""
LINE_BYTES = 512 * 1024
"""The largest event that is read. All labels of a container stand in each of its events."""
HEADERS_SECONDS = 5.0
"""How long the headers are waited for. Podman before 5.3 and some proxies hold them back until the
first event; whether the daemon is alive is for the list to find out."""
SURE_EVENTS = 200
"""So few past events are surely all: Docker keeps 256 of all kinds, of which the last moment's are
not asked for."""
REPLAY_TIMEOUT = aiohttp.ClientTimeout(total=5.0, sock_connect=CONNECT_SECONDS)
FIRST_WITH_KEYS = (5, 7)
"""The first Podman whose label filter takes a key alone."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Actor(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID")


class _Event(msgspec.Struct, frozen=True):
    action: str = msgspec.field(name="Action")
    actor: _Actor = msgspec.field(name="Actor")
    seconds: int | None = msgspec.field(name="time", default=None)
    nanoseconds: int | None = msgspec.field(name="timeNano", default=None)


def decode_event(line: bytes) -> Hint:
    """One line of ``GET /events``. Raises ``msgspec.DecodeError``.

    ``status``, ``id`` and ``from`` are not read: they are gone since API 1.52. Nor are the
    attributes: a container's labels stand among them and can hide what Docker says. Of an action
    such as ``exec_start: sh`` only the word before the colon is kept.
    """
    raw = read(line, _Event)
    action = raw.action.partition(":")[0]
    if not action or not raw.actor.id:
        raise msgspec.DecodeError("an event without an action or an id")
    return Hint(action, raw.actor.id, _time(raw))


class _Attributes(msgspec.Struct, frozen=True):
    """Of a volume's event they are Docker's alone; of a container's, no label can hide the name."""

    name: str = ""
    container: str = ""
    writable: str = msgspec.field(name="read/write", default="")


class _Told(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID", default="")
    attributes: _Attributes = msgspec.field(name="Attributes", default=_Attributes())


class _Past(msgspec.Struct, frozen=True):
    kind: str = msgspec.field(name="Type", default="")
    action: str = msgspec.field(name="Action", default="")
    actor: _Told = msgspec.field(name="Actor", default=_Told())


def decode_mounts(body: bytes) -> Mounted:
    """The writable mounts among past events of all kinds. Raises ``msgspec.DecodeError``.

    Clearly fewer events than Docker keeps: none was lost. That is why all kinds are asked for.
    """
    told = [read(line, _Past) for line in body.splitlines() if line.strip()]
    names = {e.actor.id: e.actor.attributes.name for e in told if e.kind == "container"}
    mounts = (
        VolumeMount(e.actor.id, by.container, names.get(by.container, ""))
        for e in told
        for by in (e.actor.attributes,)
        if (e.kind, e.action, by.writable) == ("volume", "mount", "true")
    )
    return Mounted(tuple(dict.fromkeys(mounts)), len(told) < SURE_EVENTS)


async def mounted(connection: Connection, since: datetime, until: datetime) -> Mounted:
    """Ask once for what happened between two moments of the daemon's clock.

    ``until`` lies in the past: Docker would keep the answer open until it comes. Takes about 1 ms
    for a few events, 18 ms for all that Docker keeps (20.10).
    """
    doing = "ask Docker which volumes were mounted"
    params = {"since": stamp(since), "until": stamp(until)}
    answer = await connection.call(doing, "GET", "events", params=params, timeout=REPLAY_TIMEOUT)
    with translated(connection.attempt(doing)):
        return decode_mounts(answer.body)


def filters(podman: tuple[int, int] | None) -> str:
    """The filter of the stream, as JSON. ``podman`` is Podman's version, None for Docker.

    By the label's key alone, because ``true``, ``1``, ``yes`` and ``on`` all mean yes. A Podman
    before 5.7 knows no such filter: there only ``kopi.enable=true`` is told of at once, and a
    container that says yes in another word is seen by the next regular list.
    """
    old = podman is not None and podman < FIRST_WITH_KEYS
    return json.dumps(
        {
            "type": ["container"],
            "event": list(ACTIONS),
            "label": [f"{ENABLE}=true" if old else ENABLE],
        }
    )


def stamp(moment: datetime) -> str:
    """Seconds since 1970 with nine decimals, exactly."""
    since = moment - _EPOCH
    return f"{since.days * 86400 + since.seconds}.{since.microseconds * 1000:09d}"


@asynccontextmanager
async def events(
    connection: Connection, since: datetime | None, *, idle: float = IDLE_SECONDS
) -> AsyncIterator[AsyncIterator[Hint]]:
    """Follow the events of labelled containers; see :meth:`kopiwatch.engine.port.Engine.events`.

    ``idle`` is the seconds of silence after which the iteration ends.
    """
    params = {"filters": filters(connection.podman)}
    if since is not None:
        params["since"] = stamp(since)
    attempt = connection.attempt("follow Docker's events", "GET", "events")
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=idle)
    request = asyncio.ensure_future(connection.stream(attempt, params, timeout))
    try:
        await asyncio.wait({request}, timeout=HEADERS_SECONDS)
        stream = _Hints(request, attempt)
        if request.done():
            await stream.begin()
        yield stream
    finally:
        request.cancel()
        # Its outcome was the iteration's to tell; here only the connection must not stay open.
        with anyio.CancelScope(shield=True):
            await asyncio.wait({request})
        if not request.cancelled() and request.exception() is None:
            request.result().close()


class _Hints:
    """The iteration: lines out of pieces, hints out of lines. Nothing is read ahead of need."""

    def __init__(self, request: asyncio.Future[aiohttp.ClientResponse], attempt: Attempt) -> None:
        self._request = request
        self._attempt = attempt
        self._response: aiohttp.ClientResponse | None = None
        self._lines: deque[bytes] = deque()
        self._rest = bytearray()
        self._ended = False

    def __aiter__(self) -> AsyncIterator[Hint]:
        return self

    async def __anext__(self) -> Hint:
        while not self._ended:
            while self._lines:
                line = self._lines.popleft()
                if line.strip():
                    return self._hint(line)
            if len(self._rest) > LINE_BYTES:
                raise self._too_large(f"it has more than {LINE_BYTES // 1024} KiB")
            await self._receive()
        raise StopAsyncIteration

    async def begin(self) -> None:
        """Wait for the headers."""
        try:
            self._response = await self._request
        except aiohttp.SocketTimeoutError:
            self._ended = True

    async def _receive(self) -> None:
        """Take what has come, or notice the end. A torn last line is dropped: it is a hint."""
        if self._response is None:
            await self.begin()
            return
        try:
            with translated(self._attempt):
                piece = await self._response.content.readany()
        except EngineUnreachable as error:
            if isinstance(error.__cause__, aiohttp.SocketTimeoutError):
                self._ended = True
                return
            raise
        if not piece:
            self._ended = True
        elif b"\n" not in piece:
            self._rest += piece
        else:
            first, *more = piece.split(b"\n")
            self._lines.append(bytes(self._rest) + first)
            self._lines.extend(more[:-1])
            self._rest = bytearray(more[-1])

    def _hint(self, line: bytes) -> Hint:
        if len(line) > LINE_BYTES:
            raise self._too_large(f"it has {len(line) // 1024} KiB")
        try:
            return decode_event(line)
        except msgspec.DecodeError as error:
            raise self._too_large(f"it is not understood ({error})") from error

    def _too_large(self, reason: str) -> EventTooLarge:
        return EventTooLarge(
            f"cannot {self._attempt.doing}: an event of {self._attempt.where} is passed over: "
            f"{reason}",
            hint="a container with very large labels makes such events; it is listed all the same",
        )


def _time(raw: _Event) -> datetime | None:
    """The microsecond, rounded down: asked for events since then, Docker tells this one again."""
    nanoseconds = raw.nanoseconds or (raw.seconds or 0) * 1_000_000_000
    if nanoseconds <= 0:
        return None
    try:
        return _EPOCH + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return None
