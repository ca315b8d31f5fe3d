"""A small proxy between a client and a daemon, whose connections a test can cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path


class Cutter:
    """Listens on the Unix socket ``path`` and passes everything on to the daemon at ``url``."""

    def __init__(self, path: Path, url: str) -> None:
        self.path = path
        self._target = url.removeprefix("unix://")
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Pass on until the end of the block; then every connection is cut."""
        server = await asyncio.start_unix_server(self._accept, self.path)
        try:
            yield
        finally:
            server.close()
            self.cut()
            for task in list(self._tasks):
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """End every connection that there is, in the middle of whatever it carries."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._pass_on(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            try:
                back, forth = await asyncio.open_unix_connection(self._target)
            except OSError:
                return
            self._writers.add(forth)
            try:
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(_pump(reader, forth))
                    tasks.create_task(_pump(back, writer))
            finally:
                self._writers.discard(forth)
                forth.transport.abort()
        finally:
            self._writers.discard(writer)
            writer.transport.abort()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    if not writer.transport.is_closing() and writer.can_write_eof():
        writer.write_eof()
