"""Addresses, TLS, and what answers of all kinds become, on a small server of our own."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from kopiwatch.engine import connection
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.failure import proxy_switches
from kopiwatch.errors import (
    ConfigError,
    ContainerGone,
    EngineDenied,
    EngineError,
    EngineUnreachable,
)


@asynccontextmanager
async def serving(
    folder: Path, answer: Callable[[web.Request], web.StreamResponse]
) -> AsyncIterator[DockerEngine]:
    """An engine on a server that knows its version and gives ``answer`` to everything else."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.path == "/version":
            return web.json_response({"ApiVersion": "1.41"})
        response = answer(request)
        return await response if asyncio.iscoroutine(response) else response

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "docker.sock")).start()
    try:
        async with await DockerEngine.connect(f"unix://{folder}/docker.sock") as engine:
            yield engine
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("", "does not begin"),
        ("nonsense", "does not begin"),
        ("ssh://host", "does not begin"),
        ("npipe:////./pipe/docker", "does not begin"),
        ("unix://var/run/docker.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("tcp://", "host and a port"),
        ("tcp://host", "host and a port"),
        ("tcp://host:many", "not an address"),
        ("http://[::1", "not an address"),
    ],
)
@pytest.mark.anyio
async def test_garbage_address_is_a_configuration_error(url, part):
    with pytest.raises(ConfigError, match=part) as caught:
        await DockerEngine.connect(url)
    assert "unix:///var/run/docker.sock" in caught.value.hint


@pytest.mark.parametrize("url", ["tcp://user:s3cret@host", "ftp://user:s3cret@host:1"])
def test_password_in_an_address_is_not_shown(url):
    with pytest.raises(ConfigError) as caught:
        connection.check_address(url)
    assert "s3cret" not in caught.value.message


@pytest.mark.anyio
async def test_missing_socket_is_unreachable_at_once(tmp_path):
    began = time.monotonic()
    with pytest.raises(EngineUnreachable, match="no such socket") as caught:
        await DockerEngine.connect(f"unix://{tmp_path}/none.sock")
    assert time.monotonic() - began < 1
    assert str(tmp_path) in caught.value.message
    assert "DOCKER_HOST" in caught.value.hint


@pytest.mark.anyio
async def test_dead_socket_names_the_stale_mount(tmp_path):
    """A socket file outlives its daemon; a bind-mounted one never comes back to life."""
    server = await asyncio.start_unix_server(lambda _r, _w: None, tmp_path / "dead.sock")
    server.close()
    await server.wait_closed()
    with pytest.raises(EngineUnreachable, match="nobody listens") as caught:
        await DockerEngine.connect(f"unix://{tmp_path}/dead.sock")
    assert "recreate this container" in caught.value.hint


@pytest.mark.anyio
async def test_tls_without_certificates_is_a_configuration_error(tmp_path):
    environ = {"DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
    with pytest.raises(ConfigError, match="certificates"):
        await DockerEngine.connect("tcp://127.0.0.1:2376", environ=environ)


@pytest.mark.anyio
async def test_server_that_is_not_docker_is_said_to_be_none(tmp_path):
    async def greet(_: web.Request) -> web.Response:
        return web.json_response({"hello": "world"})

    app = web.Application()
    app.router.add_get("/version", greet)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(tmp_path / "x.sock")).start()
    try:
        with pytest.raises(EngineError, match="not understood") as caught:
            await DockerEngine.connect(f"unix://{tmp_path}/x.sock")
        assert "Docker" in caught.value.hint
    finally:
        await runner.cleanup()


@pytest.mark.anyio
async def test_refusal_of_a_proxy_names_the_switch(tmp_path):
    def refuse(_: web.Request) -> web.Response:
        page = "<html><body><h1>403 Forbidden</h1>\nRequest forbidden</body></html>"
        return web.Response(status=403, text=page, content_type="text/html")

    async with serving(tmp_path, refuse) as engine:
        with pytest.raises(EngineDenied) as caught:
            await engine.stop("db", timedelta(seconds=1))
    assert "ALLOW_STOP=1" in caught.value.hint
    assert "<" not in caught.value.message
    assert "stop container db" in caught.value.message


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", "containers/json", "CONTAINERS=1"),
        ("POST", "containers/x/stop", "ALLOW_STOP=1 (or CONTAINERS=1 and POST=1)"),
        ("POST", "containers/x/start", "ALLOW_START=1 (or CONTAINERS=1 and POST=1)"),
        ("POST", "containers/x/pause", "CONTAINERS=1, POST=1"),
        ("POST", "containers/create", "CONTAINERS=1, POST=1"),
        ("DELETE", "containers/x", "CONTAINERS=1, POST=1"),
        ("POST", "containers/x/exec", "CONTAINERS=1, POST=1, EXEC=1"),
        ("POST", "exec/y/start", "EXEC=1, POST=1"),
        ("GET", "volumes/v", "VOLUMES=1"),
        ("GET", "networks/n", "NETWORKS=1"),
        ("GET", "images/i/json", "IMAGES=1"),
        ("GET", "info", "INFO=1"),
        ("GET", "version", "VERSION=1"),
    ],
)
def test_each_call_has_its_switch(method, path, expected):
    assert proxy_switches(method, path) == expected


@pytest.mark.parametrize(
    ("message", "kind"),
    [
        ("No such container: db", ContainerGone),
        ('no container with name or ID "db" found: no such container', ContainerGone),
        ("page not found", EngineError),
        ("not found", EngineError),
    ],
)
@pytest.mark.anyio
async def test_only_dockers_own_word_makes_a_container_gone(tmp_path, message, kind):
    """Gone means: forget it. A proxy's 404 must not make us forget what we hold down."""

    def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": message}, status=404)

    async with serving(tmp_path, answer) as engine:
        with pytest.raises(EngineError) as caught:
            await engine.start("db")
    assert type(caught.value) is kind


@pytest.mark.parametrize(
    ("message", "gone"),
    [
        ("get v: no such volume", True),
        ("page not found", False),
        ("Not Found", False),
    ],
)
@pytest.mark.anyio
async def test_only_dockers_own_word_makes_a_volume_missing(tmp_path, message, gone):
    def answer(_: web.Request) -> web.Response:
        return web.json_response({"message": message}, status=404)

    async with serving(tmp_path, answer) as engine:
        if gone:
            assert await engine.volume("v") is None
        else:
            with pytest.raises(EngineError):
                await engine.volume("v")


@pytest.mark.anyio
async def test_redirect_is_an_error_and_not_followed(tmp_path):
    def answer(_: web.Request) -> web.Response:
        return web.Response(status=301, headers={"Location": "/v1.41/info"})

    async with serving(tmp_path, answer) as engine:
        with pytest.raises(EngineError, match="301"):
            await engine.info()


@pytest.mark.anyio
async def test_broken_answer_is_not_an_empty_list(tmp_path):
    async with serving(tmp_path, lambda _: web.Response(text="[{")) as engine:
        with pytest.raises(EngineError, match="not understood"):
            await engine.containers()


@pytest.mark.anyio
async def test_connection_cut_in_the_middle_is_unreachable(tmp_path):
    async def cut(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "1000"})
        await response.prepare(request)
        await response.write(b"[")
        assert request.transport is not None
        request.transport.close()
        return response

    async with serving(tmp_path, cut) as engine:
        with pytest.raises(EngineUnreachable, match="closed the connection"):
            await engine.containers()


@pytest.mark.anyio
async def test_silent_daemon_is_unreachable_after_the_deadline(tmp_path, monkeypatch):
    quick = aiohttp.ClientTimeout(total=0.2, sock_connect=0.2)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(5)
        return web.Response()

    async with serving(tmp_path, hang) as engine:
        doing = "list the containers"
        with pytest.raises(EngineUnreachable, match="did not answer in time"):
            await engine._connection.call(doing, "GET", "containers/json", timeout=quick)


@pytest.mark.parametrize(
    ("timeout", "config", "expected"),
    [
        (None, {}, {"query": {}, "total": 70}),
        (None, {"StopTimeout": 3600}, {"query": {}, "total": 3660}),
        (None, {"StopTimeout": -1}, {"query": {}, "total": None}),
        (timedelta(seconds=1.2), {}, {"query": {"t": "2"}, "total": 61.2}),
        (timedelta(0), {}, {"query": {"t": "0"}, "total": 60}),
    ],
)
@pytest.mark.anyio
async def test_stop_outlasts_the_containers_own_timeout(
    tmp_path, monkeypatch, timeout, config, expected
):
    seen = {}
    call = connection.Connection.call

    async def spy(self, doing, method, path, **keywords):
        if path.endswith("/stop"):
            seen.update(total=keywords["timeout"].total)
        return await call(self, doing, method, path, **keywords)

    def answer(request: web.Request) -> web.Response:
        if request.method == "GET":
            return web.json_response({"Id": "x", "Config": config})
        seen.update(query=dict(request.query))
        return web.Response(status=204)

    monkeypatch.setattr(connection.Connection, "call", spy)
    async with serving(tmp_path, answer) as engine:
        assert await engine.stop("db", timeout)
    assert seen == expected


@pytest.mark.parametrize("name", ["", "/", "a/b", "../json", "a b", "-x", "ä"])
@pytest.mark.anyio
async def test_impossible_container_name_never_reaches_docker(tmp_path, name):
    async with serving(tmp_path, lambda _: web.json_response([])) as engine:
        with pytest.raises(ContainerGone):
            await engine.inspect(name)


@pytest.mark.anyio
async def test_odd_volume_names_are_quoted(tmp_path):
    asked = []

    def answer(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        return web.json_response({"message": "no such volume"}, status=404)

    async with serving(tmp_path, answer) as engine:
        for name in ("", "..", "a/b", "a b", "a%2fb?x=1"):
            assert await engine.volume(name) is None
    assert asked == [
        "/v1.41/volumes/a%2Fb",
        "/v1.41/volumes/a%20b",
        "/v1.41/volumes/a%252fb%3Fx%3D1",
    ]
