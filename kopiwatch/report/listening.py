"""Binding the exporter's port, and saying what is in the way."""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import cast

from aiohttp import web
from anyio.to_thread import run_sync

from kopiwatch.config import Listen
from kopiwatch.errors import ConfigError
from kopiwatch.report.port_holder import holders

CONNECTIONS = 200
"""How many may be open: Prometheus keeps one; others wait in vain until some are closed."""
_HANDSHAKE_SECONDS = 10.0
_GOODBYE_SECONDS = 1.0
_HINT = "KOPIWATCH_LISTEN says where the exporter listens, such as 127.0.0.1:9187"


async def listening(
    listen: Listen, server: web.Server, context: ssl.SSLContext | None
) -> asyncio.Server:
    """Serve there. Raises ConfigError when that address cannot be had."""

    def accept() -> asyncio.Protocol:
        if len(server.connections) >= CONNECTIONS:
            return _Refusal()
        return cast("asyncio.Protocol", server())

    try:
        return await asyncio.get_running_loop().create_server(
            accept,
            listen.host,
            listen.port,
            ssl=context,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if context else None,
            ssl_shutdown_timeout=_GOODBYE_SECONDS if context else None,
        )
    except OSError as error:
        why = await _why(listen, error)
        raise ConfigError(f"the exporter cannot listen on {listen}: {why}", hint=_HINT) from error


class _Refusal(asyncio.Protocol):
    """Hangs up at once."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).abort()


async def _why(listen: Listen, error: OSError) -> str:
    if isinstance(error, socket.gaierror):
        return f"there is no address for that name ({error.strerror})"
    match error.errno:
        case errno.EADDRINUSE:
            found = await run_sync(holders, listen.port)
            return f"the port is in use by {' and '.join(found) or 'a process that is hidden here'}"
        case errno.EACCES | errno.EPERM:
            return f"port {listen.port} is reserved to those with CAP_NET_BIND_SERVICE"
        case errno.EADDRNOTAVAIL:
            return "this machine has no such address"
    return error.strerror or str(error)
