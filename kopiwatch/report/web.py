"""The exporter's web server: ``/metrics``, ``/healthz``, ``/readyz``, and a line for people."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from kopiwatch.config import Listen, Secret
from kopiwatch.report.credential import Credentials
from kopiwatch.report.exposition import Exposition
from kopiwatch.report.listening import listening
from kopiwatch.report.tls import Certificate

HEADER_BYTES = 8190
"""The longest request line and the longest header; nothing that asks for metrics needs more."""
BODY_BYTES = 1024
IDLE_SECONDS = 90.0
"""A connection without a request is closed after that; Prometheus asks at least every minute."""
SEND_SECONDS = 30.0
_SHUTDOWN_SECONDS = 0.5
_CLEANUP_SECONDS = 2.0

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_HEADERS = {
    "Server": "kopiwatch",
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
}
_PAGE = """\
<!DOCTYPE html>
<html lang="en"><meta charset="utf-8"><title>kopiwatch</title>
<p>kopiwatch runs here. Its metrics are at <a href="metrics">/metrics</a>.</p></html>
"""


class Web:
    """Serves an exposition.

    ``password`` (with ``user``) and ``token`` guard ``/metrics`` and ``/`` where they are given;
    either opens. ``cert`` and ``key`` (PEM files) make it https. ``ready`` says why the rest of
    kopiwatch is not ready, or nothing. ``patience`` is how many seconds a client has to take an
    answer before it is cut off.
    """

    def __init__(
        self,
        exposition: Exposition,
        *,
        listen: Listen,
        user: str = "",
        password: Secret | None = None,
        token: Secret | None = None,
        cert: Path | None = None,
        key: Path | None = None,
        ready: Callable[[], str] = lambda: "",
        patience: float = SEND_SECONDS,
    ) -> None:
        self._exposition = exposition
        self._listen = listen
        self._credentials = Credentials(user, password, token)
        self._certificate = Certificate(cert, key) if cert and key else None
        self._ready = ready
        self._patience = patience

    async def reload_tls(self) -> None:
        """Read the certificate again, for the connections to come.

        Raises ConfigError if it cannot be used; the old one then stays. Without TLS, nothing.
        """
        if self._certificate is not None:
            await self._certificate.load()

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[Listen]:
        """Serve within the block; gives the address (with the real port, where 0 was asked for).

        Raises ConfigError when the address cannot be had, or the certificate cannot be used.
        Leaving takes a second at most, whatever the clients do.
        """
        await self.reload_tls()
        runner = web.AppRunner(
            self._application(),
            access_log=None,
            logger=_logger(),
            keepalive_timeout=IDLE_SECONDS,
            shutdown_timeout=_SHUTDOWN_SECONDS,
            lingering_time=_SHUTDOWN_SECONDS,
            max_line_size=HEADER_BYTES,
            max_field_size=HEADER_BYTES,
            max_headers=64,
        )
        await runner.setup()
        try:
            if runner.server is None:
                raise RuntimeError("aiohttp made no server")
            context = self._certificate.context if self._certificate else None
            server = await listening(self._listen, runner.server, context)
            try:
                yield Listen(self._listen.host, server.sockets[0].getsockname()[1])
            finally:
                server.close()
        finally:
            await _leave(runner)

    def _application(self) -> web.Application:
        application = web.Application(middlewares=[self._in_time], client_max_size=BODY_BYTES)
        application.on_response_prepare.append(_add_headers)
        application.router.add_get("/", self._guarded(self._page))
        application.router.add_get("/metrics", self._guarded(self._metrics))
        application.router.add_get("/healthz", _healthz)
        application.router.add_get("/readyz", self._readyz)
        return application

    def _guarded(self, handler: _Handler) -> _Handler:
        async def guarded(request: web.Request) -> web.StreamResponse:
            if self._credentials.admits(request.headers.get("Authorization", "")):
                return await handler(request)
            response = _text("This needs the credentials that kopiwatch was configured with.", 401)
            for challenge in self._credentials.challenges:
                response.headers.add("WWW-Authenticate", challenge)
            return response

        return guarded

    @web.middleware
    async def _in_time(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Answer, and cut off who does not take the answer."""
        try:
            response = await handler(request)
        except web.HTTPNotFound:
            response = _text("There is nothing here; try /metrics, /healthz or /readyz.", 404)
        try:
            async with asyncio.timeout(self._patience):
                await response.prepare(request)
                await response.write_eof()
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        return response

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        rendered = await self._exposition.body(
            ",".join(request.headers.getall("Accept", [])),
            ",".join(request.headers.getall("Accept-Encoding", [])),
        )
        if rendered is None:
            why = self._ready() or "its state is still being read"
            return _text(f"kopiwatch has no metrics yet: {why}", 503)
        headers = {"Content-Type": rendered.content_type, "Vary": "Accept, Accept-Encoding"}
        if rendered.encoding:
            headers["Content-Encoding"] = rendered.encoding
        return web.Response(body=rendered.body, headers=headers)

    async def _readyz(self, _request: web.Request) -> web.StreamResponse:
        why = self._ready()
        return _text(f"not ready: {why}", 503) if why else _text("ready")

    async def _page(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text=_PAGE, content_type="text/html")


async def _healthz(_request: web.Request) -> web.StreamResponse:
    return _text("alive")


def _text(sentence: str, status: int = 200) -> web.Response:
    return web.Response(text=sentence + "\n", status=status)


async def _add_headers(_request: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(_HEADERS)


async def _leave(runner: web.AppRunner) -> None:
    """Let answers finish for half a second, then hang up; a cancellation does not hurry it."""
    connections = runner.server.connections if runner.server else []
    transports = [connection.transport for connection in connections]
    with anyio.move_on_after(_CLEANUP_SECONDS, shield=True):
        await runner.cleanup()
    for transport in transports:
        if transport is not None:
            transport.abort()


def _logger() -> logging.Logger:
    """For errors of ours; what a port scanner sends is none, and would fill the log."""
    logger = logging.getLogger("kopiwatch.report.web")
    logger.filters = [_is_ours]
    return logger


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)
