"""A connection that Docker has handed over to a container's standard streams."""

from __future__ import annotations

import asyncio
import struct

import aiohttp
from aiodocker.stream import Stream

from kopiwatch.engine.failure import Attempt, translated
from kopiwatch.errors import EngineError

STDERR = 2
"""The number of standard error in Docker's multiplexed stream (API 1.41)."""

_HEADER = struct.Struct(">BxxxL")
"""Which stream, and how many bytes of it follow."""


class Demultiplexer:
    """Takes Docker's multiplexed stream (API 1.41) apart, in whatever pieces it comes."""

    def __init__(self) -> None:
        self._pending = bytearray()

    def feed(self, piece: bytes) -> list[tuple[int, bytes]]:
        """What the program wrote, as far as it is complete: which stream, and the bytes."""
        self._pending += piece
        written = []
        while len(self._pending) >= _HEADER.size:
            stream, length = _HEADER.unpack_from(self._pending)
            end = _HEADER.size + length
            if len(self._pending) < end:
                break
            written.append((stream, bytes(self._pending[_HEADER.size : end])))
            del self._pending[:end]
        return written

    @property
    def torn(self) -> bool:
        """Whether the last piece lacks its rest."""
        return bool(self._pending)


class Attachment:
    """aiodocker's stream, with what it lacks: half-close, and errors that say what happened.

    ``attempt`` is what is being done, for errors.
    """

    def __init__(self, stream: Stream, attempt: Attempt) -> None:
        self._stream = stream
        self._attempt = attempt

    async def open(self) -> None:
        """Ask for the streams; on return they are attached."""
        with translated(self._attempt):
            await self._stream.__aenter__()

    async def read(self) -> tuple[int, bytes] | None:
        """The next piece: which stream (1 output, 2 errors) and its bytes; None at the end.

        A cancelled read loses nothing.
        """
        with translated(self._attempt):
            message = await self._stream.read_out()
        return None if message is None else (message.stream, message.data)

    async def write(self, data: bytes) -> None:
        """Write to standard input, waiting while the other end is slow. EngineError when gone."""
        transport = self._transport()
        if transport is None or transport.is_closing():
            raise EngineError(f"cannot {self._attempt.doing}: it is gone")
        try:
            await self._stream.write_in(data)
        except (aiohttp.ClientError, OSError, RuntimeError, AssertionError) as error:
            raise EngineError(f"cannot {self._attempt.doing}: it is gone") from error

    def end_input(self) -> None:
        """Close standard input and leave the output open.

        TLS cannot be half closed by asyncio: there the whole connection ends, and Docker closes
        the standard input of a container made with StdinOnce all the same.
        """
        transport = self._transport()
        if transport is None or transport.is_closing():
            return
        if transport.can_write_eof():
            transport.write_eof()
        else:
            transport.close()

    def close(self) -> None:
        """End the connection, however far it got. Safe to call twice."""
        transport = self._transport()
        self._stream._closed = True  # noqa: SLF001 - its close() asserts a live connection
        if transport is not None:
            transport.close()
        response = self._stream._resp  # noqa: SLF001
        if response is not None:
            response.close()

    def _transport(self) -> asyncio.WriteTransport | None:
        """The socket below, None before it is open and after it was lost."""
        response = self._stream._resp  # noqa: SLF001 - aiodocker 0.27 has no half-close
        connection = response.connection if response is not None else None
        transport = connection.transport if connection is not None else None
        return transport if isinstance(transport, asyncio.WriteTransport) else None
