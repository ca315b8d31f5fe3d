"""Commands inside containers: Docker's three calls, and the streams between them (API 1.41)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import anyio
from aiodocker.stream import Stream
from yarl import URL

from kopiwatch.engine import decode
from kopiwatch.engine.connection import Connection
from kopiwatch.engine.failure import translated
from kopiwatch.engine.reference import container_path, shown
from kopiwatch.engine.stream import STDERR, Attachment, Demultiplexer
from kopiwatch.errors import EngineError

UPGRADE_SECONDS = 20.0
"""How long Docker may take to hand over a connection that standard input can go through."""
CUT_SECONDS = 30.0
"""A command that still runs so long after its streams have ended was cut off from us."""
_START = b'{"Detach":false,"Tty":false}'

Take = Callable[[int, bytes], Awaitable[None]]
"""Receives each piece of output: which stream (1 output, 2 errors), and its bytes."""


class Execution:
    """One command in one container. :meth:`run` once."""

    def __init__(
        self,
        connection: Connection,
        container: str,
        argv: tuple[str, ...],
        user: str,
        env: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self._connection = connection
        self._container = container
        self._argv = argv
        self._user = user
        self._env = env
        self.doing = f"run {argv[0] if argv else 'nothing'} in container {shown(container)}"

    async def run(self, take: Take, *, stdin: bytes = b"", linger: float | None = None) -> int:
        """Run it and hand over its output as it comes; the exit code.

        ``take`` is awaited before more is read, so a slow reader slows the command down. ``linger``
        is how many seconds the command may run on after its streams have ended; None for ever.
        Raises EngineError, also when the connection was cut in the middle.
        """
        execution = await self._create(with_input=bool(stdin))
        if stdin:
            await self._converse(execution, stdin, take)
        else:
            await self._listen(execution, take)
        code = None
        with anyio.move_on_after(linger):
            code = await self._exit_code(execution)
        if code is None:
            raise self._cut()
        return code

    async def _create(self, *, with_input: bool) -> str:
        """Prepare the command; its id."""
        answer = await self._connection.call(
            self.doing,
            "POST",
            f"{container_path(self._container)}/exec",
            body={
                "Cmd": list(self._argv),
                "User": self._user,
                "Env": [f"{name}={value}" for name, value in self._env.items()],
                "AttachStdin": with_input,
                "AttachStdout": True,
                "AttachStderr": True,
                "Tty": False,
            },
        )
        with translated(self._connection.attempt(self.doing)):
            return decode.created_id(answer.body)

    async def _listen(self, execution: str, take: Take) -> None:
        """Start it and read until its streams end."""
        streams = Demultiplexer()

        async def pass_on(piece: bytes) -> None:
            for stream, data in streams.feed(piece):
                await take(stream, data)

        body = {"Detach": False, "Tty": False}
        await self._connection.pour(self.doing, f"exec/{execution}/start", body, pass_on)
        if streams.torn:
            raise self._cut()

    async def _converse(self, execution: str, stdin: bytes, take: Take) -> None:
        """The same, with something for its standard input, which needs an upgraded connection."""

        async def where() -> tuple[URL, bytes, bool]:
            return URL(f"exec/{execution}/start"), _START, False

        attempt = self._connection.attempt(self.doing)
        attachment = Attachment(Stream(self._connection.docker, where), attempt)
        try:
            opened = False
            with anyio.move_on_after(UPGRADE_SECONDS):
                await attachment.open()
                opened = True
            if not opened:
                raise EngineError(
                    f"cannot {self.doing}: nothing can be written to its standard input",
                    hint="a socket proxy in between does not pass on upgraded connections",
                )
            await attachment.write(stdin)
            while (piece := await attachment.read()) is not None:
                await take(*piece)
        finally:
            attachment.close()

    async def _exit_code(self, execution: str) -> int:
        """The exit code. The streams may end a moment before the exit is on record."""
        delay = 0.005
        while True:
            answer = await self._connection.call(self.doing, "GET", f"exec/{execution}/json")
            with translated(self._connection.attempt(self.doing)):
                code = decode.exec_exit_code(answer.body)
            if code is not None:
                return code
            await anyio.sleep(delay)
            delay = min(2 * delay, 0.25)

    def _cut(self) -> EngineError:
        return EngineError(
            f"cannot {self.doing}: the connection to it was cut",
            hint="Docker, or a proxy in between, ended it before the command did",
        )


class Tail:
    """Keeps the end of what a command prints."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._kept = bytearray()

    async def take(self, _stream: int, data: bytes) -> None:
        """More of it, of either stream."""
        self.add(data)

    def add(self, data: bytes) -> None:
        """More of it."""
        self._kept += data
        del self._kept[: -self._limit]

    def __str__(self) -> str:
        return self._kept.decode(errors="replace")


def sorted_out(out: Callable[[bytes], Awaitable[None]], err: Callable[[bytes], None]) -> Take:
    """Output to the one, errors to the other."""

    async def take(stream: int, data: bytes) -> None:
        if stream == STDERR:
            err(data)
        else:
            await out(data)

    return take
