"""The connection to Docker: address, TLS, version, and one way to make a call."""

from __future__ import annotations

import re
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import SplitResult, urlsplit

import aiodocker
import aiohttp
import anyio.to_thread
import msgspec
from aiodocker.exceptions import DockerError
from yarl import URL

from kopiwatch.engine import decode_host
from kopiwatch.engine.failure import Attempt, translated
from kopiwatch.errors import ConfigError, EngineError, EngineUnreachable

CALL_SECONDS = 30.0
CONNECT_SECONDS = 5.0
DEFAULT_TIMEOUT = aiohttp.ClientTimeout(total=CALL_SECONDS, sock_connect=CONNECT_SECONDS)
ENDLESS_TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)

_SCHEMES = ("unix", "tcp", "http", "https")
_ADDRESS_HINT = "use unix:///var/run/docker.sock or tcp://host:port"


class Answer(msgspec.Struct, frozen=True):
    """What Docker answered: the HTTP status (below 400) and the body as it came."""

    status: int
    body: bytes


class Connection:
    """One aiodocker client, and plain calls on its session.

    aiodocker opens the socket and attaches streams. Calls go through its session directly, because
    its own methods hide the status (204 or 304) and the body as it came. ``podman`` is Podman's
    version, None where it is not Podman that answers.
    """

    def __init__(self, docker: aiodocker.Docker, where: str) -> None:
        self.docker = docker
        self.where = where
        self.podman: tuple[int, int] | None = None

    @classmethod
    async def open(cls, url: str, environ: Mapping[str, str]) -> Self:
        """Connect to exactly this URL and agree on the API version: the daemon's newest.

        The URL always comes from the configuration: aiodocker 0.27 would let a Docker context win
        over ``DOCKER_HOST``. TLS is used for TCP when ``DOCKER_TLS_VERIFY`` is not empty, with
        ``ca.pem``, ``cert.pem`` and ``key.pem`` from ``DOCKER_CERT_PATH``, as the Docker CLI does.
        Raises ConfigError for an address or certificates that cannot be used, EngineUnreachable,
        EngineDenied or EngineError for a daemon that does not answer as one.
        """
        parts = check_address(url)
        where = url
        context = None
        if parts.scheme != "unix":
            context = await anyio.to_thread.run_sync(_tls_context, environ)
            scheme = "https" if context else parts.scheme
            where = f"{scheme}://{parts.netloc.rpartition('@')[2]}"
            url = f"{scheme}://{parts.netloc}{parts.path.rstrip('/')}"
        docker = aiodocker.Docker(url=url, timeout=DEFAULT_TIMEOUT, ssl_context=context)
        connection = cls(docker, where)
        try:
            answer = await connection.call("ask Docker for its version", "GET", "version")
            with translated(Attempt("ask Docker for its version", where)):
                docker.api_version = f"v{decode_host.api_version(answer.body)}"
                connection.podman = decode_host.podman(answer.body)
        except BaseException:
            await docker.close()
            raise
        return connection

    @property
    def api_version(self) -> str:
        """The API version in use, such as ``1.41``."""
        return self.docker.api_version.removeprefix("v")

    def attempt(self, doing: str, method: str = "GET", path: str = "") -> Attempt:
        """A call to this daemon, for :func:`kopiwatch.engine.failure.translated`."""
        return Attempt(doing, self.where, method, path)

    async def call(
        self,
        doing: str,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout = DEFAULT_TIMEOUT,
        late: type[EngineError] = EngineUnreachable,
        absent: str = "",
    ) -> Answer:
        """Make one call and read the whole answer. ``path`` is quoted already.

        ``absent`` names a kind of thing (``volume``) that may be missing: Docker's word that there
        is none is an answer then, with status 404. Raises EngineError and its subclasses, see
        :func:`kopiwatch.engine.failure.translated`; ``late`` when the answer has not come within
        ``timeout``.
        """
        with translated(Attempt(doing, self.where, method, path, late)):
            async with self._request(method, path, params, body, timeout) as response:
                content = await response.read()
            if _refused(response.status):
                words = _words(content, response.status)
                if not (response.status == 404 and absent and _says_none(words, absent)):
                    raise DockerError(response.status, words)
            return Answer(response.status, content)

    async def pour(
        self,
        doing: str,
        path: str,
        body: Mapping[str, Any],
        into: Callable[[bytes], Awaitable[None]],
    ) -> None:
        """POST, and hand over the answer piece by piece until it ends; without a deadline.

        ``into`` is awaited before more is read; what it raises must be an error of ours, or it
        would read as one of Docker's.
        No upgrade is asked for. HAProxy (2.4 to 3.0), of which most socket proxies are made, takes
        that out of a request with a body; Docker then answers 200, and who waits for an upgraded
        connection waits for ever. Raises as :meth:`call` does.
        """
        with translated(Attempt(doing, self.where, "POST", path)):
            async with self._request("POST", path, None, body, ENDLESS_TIMEOUT) as response:
                if _refused(response.status):
                    words = _words(await response.read(), response.status)
                    raise DockerError(response.status, words)
                async for piece in response.content.iter_any():
                    await into(piece)

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
        timeout: aiohttp.ClientTimeout,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Send one request; the response's headers are there."""
        async with self.docker.session.request(
            method,
            self._url(path, params),
            data=None if body is None else msgspec.json.encode(body),
            headers={"Content-Type": "application/json"},
            timeout=timeout,
            allow_redirects=False,
        ) as response:
            yield response

    async def stream(
        self,
        attempt: Attempt,
        params: Mapping[str, str],
        timeout: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """Make a call whose answer goes on and on; on return its headers are here.

        Whoever calls closes the response. Raises like :meth:`call`, except for a socket that was
        silent for ``timeout.sock_read``: that stays ``aiohttp.SocketTimeoutError``.
        """
        try:
            with translated(attempt):
                response = await self.docker.session.request(
                    attempt.method,
                    self._url(attempt.path, params),
                    timeout=timeout,
                    allow_redirects=False,
                )
                if _refused(response.status):
                    async with response:
                        content = await response.read()
                    raise DockerError(response.status, _words(content, response.status))
                return response
        except EngineUnreachable as error:
            if isinstance(error.__cause__, aiohttp.SocketTimeoutError):
                raise error.__cause__ from None
            raise

    def _url(self, path: str, params: Mapping[str, str] | None) -> URL:
        version = self.docker.api_version
        prefix = "" if version == "auto" else f"{version}/"
        url = URL(f"{self.docker.docker_host}/{prefix}{path}", encoded=True)
        return url.with_query(params) if params else url

    async def close(self) -> None:
        """Close the session. Safe to call twice."""
        await self.docker.close()


def check_address(url: str) -> SplitResult:
    """The parts of a Docker address that we can use. Raises ConfigError, which says what is wrong.

    ``unix:///path``, ``tcp://host:port``, ``http://…`` and ``https://…`` are.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise ConfigError(
            f"the Docker address is not an address: {error}", hint=_ADDRESS_HINT
        ) from error
    shown = re.sub(r"//[^/@]*@", "//***@", url)
    if parts.scheme not in _SCHEMES:
        raise ConfigError(
            f"the Docker address {shown!r} does not begin with unix://, tcp://, http:// or https://",
            hint=_ADDRESS_HINT,
        )
    if parts.scheme == "unix":
        if parts.netloc or not parts.path.startswith("/"):
            raise ConfigError(
                f"the Docker address {shown!r} names no absolute path; a socket has three slashes",
                hint=_ADDRESS_HINT,
            )
    elif not parts.hostname or (port is None and parts.scheme == "tcp"):
        raise ConfigError(
            f"the Docker address {shown!r} needs a host and a port", hint=_ADDRESS_HINT
        )
    return parts


def _tls_context(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """TLS as ``DOCKER_TLS_VERIFY`` and ``DOCKER_CERT_PATH`` ask for it, or None."""
    if not environ.get("DOCKER_TLS_VERIFY"):
        return None
    folder = Path(environ.get("DOCKER_CERT_PATH") or Path.home() / ".docker")
    try:
        context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"DOCKER_TLS_VERIFY is set, but the certificates in {folder} cannot be used: {error}",
            hint="DOCKER_CERT_PATH must hold ca.pem, cert.pem and key.pem",
        ) from error
    return context


def _refused(status: int) -> bool:
    """Neither done nor nothing to do (304); a redirection leads away from Docker."""
    return status >= 400 or 300 <= status < 304


def _says_none(words: str, kind: str) -> bool:
    """Docker itself says that there is no such thing; a 404 of anybody else does not count.

    ``get x: no such volume`` (20.10 to 29), ``network x not found``, Podman ``network not found``.
    """
    low = words.lower()
    return f"no such {kind}" in low or (kind in low and "not found" in low)


def _words(content: bytes, status: int) -> str:
    """The sentence in a refusal: Docker's ``message``, or the text of a proxy."""
    try:
        message = msgspec.json.decode(content).get("message")
    except (msgspec.DecodeError, AttributeError):
        message = None
    text = message if isinstance(message, str) else content[:200].decode(errors="replace")
    # A proxy's refusal is a page of HTML: its words are enough.
    return " ".join(re.sub(r"<[^>]*>", " ", text).split()) or f"status {status}"
