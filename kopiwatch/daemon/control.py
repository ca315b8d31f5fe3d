"""The daemon's control socket: HTTP on a Unix socket in the state folder.

Whoever may write there (0700) may order backups. A job outlives the connection that ordered it.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import msgspec
from aiohttp import web

from kopiwatch.daemon import SOCKET
from kopiwatch.daemon.job import Job
from kopiwatch.daemon.message import BackupOrder, Refusal
from kopiwatch.errors import ConfigError, KopiwatchError
from kopiwatch.report.board import Board

PATH_LIMIT = 107
"""The longest path of a Unix socket on Linux, in bytes."""
SHUTDOWN_SECONDS = 1.0


class Control:
    """Serves the socket. ``board`` gives the state of just now, ``submit`` takes an order."""

    def __init__(
        self,
        folder: Path,
        *,
        board: Callable[[], Board],
        submit: Callable[[BackupOrder], Awaitable[Job]],
    ) -> None:
        self._path = folder / SOCKET
        self._board = board
        self._submit = submit

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Bind for the length of a block. Only one daemon may do that at a time (its own lock).

        Raises ConfigError where the path is too long or the folder does not take sockets.
        """
        app = web.Application()
        app.router.add_get("/healthz", self._alive)
        app.router.add_get("/status", self._status)
        app.router.add_post("/backup", self._backup)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_SECONDS)
        await runner.setup()
        try:
            await anyio.to_thread.run_sync(self._make_room)
            try:
                await web.UnixSite(runner, str(self._path)).start()
            except OSError as error:
                raise ConfigError(
                    f"the control socket {self._path} cannot be made: {error.strerror or error}",
                    hint="KOPIWATCH_STATE_DIR must be on a file system that takes sockets",
                ) from error
            yield
        finally:
            await runner.cleanup()
            with contextlib.suppress(OSError):
                await anyio.to_thread.run_sync(self._path.unlink)

    def _make_room(self) -> None:
        if len(str(self._path).encode()) > PATH_LIMIT:
            raise ConfigError(
                f"the state folder's path is too long for a socket in it: {self._path}",
                hint=f"KOPIWATCH_STATE_DIR may have {PATH_LIMIT - len(SOCKET) - 1} bytes",
            )
        self._path.unlink(missing_ok=True)

    async def _alive(self, _request: web.Request) -> web.Response:
        return web.Response(text="alive\n")

    async def _status(self, _request: web.Request) -> web.Response:
        return web.Response(
            body=msgspec.json.encode(self._board()), content_type="application/json"
        )

    async def _backup(self, request: web.Request) -> web.StreamResponse:
        try:
            order = msgspec.json.decode(await request.read(), type=BackupOrder)
            job = await self._submit(order)
        except msgspec.DecodeError as error:
            return _refused(Refusal("usage-error", f"not an order: {error}", exit_code=2))
        except KopiwatchError as error:
            return _refused(Refusal(error.code, error.message, error.hint, error.exit_code))
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        async with job.follow() as news:
            try:
                await response.prepare(request)
                async for each in news:
                    await response.write(msgspec.json.encode(each) + b"\n")
                await response.write_eof()
            except ConnectionError:
                pass  # whoever followed is gone; the job is not
        return response


def _refused(refusal: Refusal) -> web.Response:
    return web.Response(
        status=409, body=msgspec.json.encode(refusal), content_type="application/json"
    )
