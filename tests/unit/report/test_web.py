"""The web server, asked over real connections by good, odd and bad clients."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import logging
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import time
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from support.boards import full, large

from kopiwatch.config import Listen, Secret
from kopiwatch.errors import ConfigError
from kopiwatch.report.exposition import Exposition
from kopiwatch.report.listening import CONNECTIONS
from kopiwatch.report.port_holder import holders
from kopiwatch.report.web import Web

pytestmark = pytest.mark.anyio

HERE = Listen("127.0.0.1", 0)
PASSWORD, TOKEN = "pass:wörd", "t0ken"


@pytest.fixture
def exposition():
    made = Exposition()
    made.update(full())
    return made


@asynccontextmanager
async def served(exposition: Exposition, **given: object):
    """A web that serves, and how to ask it: ``await ask(path, …)`` gives status, headers, body."""
    web = Web(exposition, **({"listen": HERE} | given))
    async with (
        web.serving() as bound,
        aiohttp.ClientSession(auto_decompress=False) as session,
    ):

        async def ask(path: str, method: str = "GET", **more: object):
            url = f"http://127.0.0.1:{bound.port}{path}"
            async with session.request(method, url, **more) as response:
                return response.status, response.headers, await response.read()

        ask.port = bound.port
        yield ask


def basic(user: str, password: str) -> dict[str, str]:
    word = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"Authorization": f"Basic {word}"}


async def test_metrics_are_served_as_prometheus_asks(exposition):
    """OpenMetrics in gzip, which reads back."""
    wanted = {"Accept": "application/openmetrics-text", "Accept-Encoding": "gzip"}
    async with served(exposition) as ask:
        status, headers, body = await ask("/metrics", headers=wanted)
    assert status == 200
    assert headers["Content-Encoding"] == "gzip"
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Server"] == "kopiwatch"
    assert len(list(read_openmetrics(gzip.decompress(body).decode()))) > 60


async def test_metrics_are_plain_text_for_others(exposition):
    """A client that asks for nothing gets uncompressed text."""
    async with served(exposition) as ask:
        status, headers, body = await ask("/metrics", skip_auto_headers=["Accept-Encoding"])
    assert status == 200
    assert "Content-Encoding" not in headers
    assert headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"kopiwatch_ready 1\n" in body


async def test_scrape_before_the_state_is_seeded_is_told_to_wait():
    """503 and the reason: missing series instead of wrong ones."""
    async with served(Exposition(), ready=lambda: "Docker does not answer") as ask:
        status, _, body = await ask("/metrics")
    assert status == 503
    assert body.decode() == "kopiwatch has no metrics yet: Docker does not answer\n"


async def test_readiness_says_why_not(exposition):
    """200 or 503, as the function says at that moment; alive all the while."""
    why = ["the first list is not done"]
    async with served(exposition, ready=lambda: why[0]) as ask:
        status, _, body = await ask("/readyz")
        assert (status, body) == (503, b"not ready: the first list is not done\n")
        assert (await ask("/healthz"))[0] == 200
        why[0] = ""
        assert (await ask("/readyz"))[0] == 200


async def test_page_points_to_the_metrics(exposition):
    """A person who opens the address finds the way."""
    async with served(exposition) as ask:
        status, headers, body = await ask("/")
    assert status == 200
    assert headers["Content-Type"].startswith("text/html")
    assert b'href="metrics"' in body


async def test_everything_else_is_not_there(exposition):
    """404 for paths, 405 for methods."""
    async with served(exposition) as ask:
        for path in ("/metric", "/metrics/", "/.env", "//metrics", "/healthz/../metrics2"):
            assert (await ask(path))[0] == 404
        for method in ("POST", "PUT", "DELETE", "OPTIONS"):
            assert (await ask("/metrics", method, data=b"x" * 10))[0] == 405


async def test_head_has_the_length_and_no_body(exposition):
    """As a GET would answer."""
    async with served(exposition) as ask:
        for path in ("/metrics", "/healthz", "/readyz", "/"):
            status, headers, body = await ask(path, "HEAD")
            assert (status, body) == (200, b"")
            assert int(headers["Content-Length"]) > 0


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        (basic("prom", PASSWORD), 200),
        (basic("prom", PASSWORD + "x"), 401),
        (basic("other", PASSWORD), 401),
        (basic("prom:", PASSWORD[1:]), 401),
        ({"Authorization": f"Bearer {TOKEN}"}, 200),
        ({"Authorization": f"bEARER  {TOKEN}"}, 200),
        ({"Authorization": f"Bearer {TOKEN}x"}, 401),
        ({"Authorization": "Bearer "}, 401),
        ({"Authorization": f"Basic {TOKEN}"}, 401),
        ({"Authorization": "Basic ÿ%%%"}, 401),
        ({"Authorization": "Basic"}, 401),
        ({"Authorization": f"Digest {TOKEN}"}, 401),
    ],
)
async def test_either_credential_opens_and_nothing_else(exposition, headers, status):
    """For metrics and the page; a refusal names both ways and no secret."""
    given = {"user": "prom", "password": Secret(PASSWORD), "token": Secret(TOKEN)}
    async with served(exposition, **given) as ask:
        for path in ("/metrics", "/"):
            got, answered, body = await ask(path, headers=headers)
            assert got == status
            if status == 401:
                ways = [way.split()[0] for way in answered.getall("WWW-Authenticate")]
                assert ways == ["Basic", "Bearer"]
                assert b"kopiwatch_" not in body
        assert (await ask("/healthz", headers=headers))[0] == 200
        assert (await ask("/readyz", headers=headers))[0] == 200


async def test_token_alone_refuses_users(exposition):
    """What was not configured does not open: no empty user, no empty password."""
    async with served(exposition, token=Secret(TOKEN)) as ask:
        for headers in (basic("", ""), basic("", TOKEN), {}):
            status, answered, _ = await ask("/metrics", headers=headers)
            assert status == 401
            assert answered.getall("WWW-Authenticate") == ['Bearer realm="kopiwatch"']


async def test_long_headers_are_refused_and_not_logged(exposition, caplog):
    """400; and what is no HTTP at all fills no log."""
    with caplog.at_level(logging.DEBUG):
        async with served(exposition) as ask:
            status, _, _ = await ask("/metrics", headers={"X-Long": "x" * 20_000})
            assert status == 400
            for nonsense in (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET\r\n\r\n"):
                reader, writer = await asyncio.open_connection("127.0.0.1", ask.port)
                writer.write(nonsense)
                assert b" 400 " in await reader.readline()
                writer.close()
            assert (await ask("/healthz"))[0] == 200
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []


class Broken(Exposition):
    """One whose rendering has a bug."""

    async def body(self, accept: str = "", encodings: str = "") -> None:
        raise ZeroDivisionError(accept, encodings)


async def test_bug_in_a_scrape_is_logged_and_costs_that_scrape_only(caplog):
    """500, an error in the log, and the server lives."""
    async with served(Broken()) as ask:
        status, _, body = await ask("/metrics")
        assert status == 500
        assert b"ZeroDivisionError" not in body
        assert (await ask("/healthz"))[0] == 200
    assert [r.exc_info[0] for r in caplog.records if r.exc_info] == [ZeroDivisionError]


async def test_silent_and_slow_clients_hold_up_nobody():
    """Others scrape while some send nothing, half a request, or read nothing."""
    exposition = Exposition()
    exposition.update(large(2000))  # more than what the kernel takes
    async with served(exposition) as ask:
        writers = []
        for words in (b"", b"GET /metr", b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"):
            with socket.socket() as made:
                made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                made.setblocking(False)
                await asyncio.get_running_loop().sock_connect(made, ("127.0.0.1", ask.port))
                _, writer = await asyncio.open_connection(sock=made.dup(), limit=1024)
            writer.write(words)
            writers.append(writer)
        begun = time.monotonic()
        for _ in range(3):
            assert (await ask("/metrics"))[0] == 200
        assert time.monotonic() - begun < 3
        begun = time.monotonic()
    assert time.monotonic() - begun < 2, "leaving waits for nobody"
    for writer in writers:
        writer.transport.abort()


async def test_client_that_does_not_take_its_answer_is_cut_off(caplog):
    """When its time is up, the rest is dropped; the log is quiet, and others go on."""
    exposition = Exposition()
    exposition.update(large(2000))
    async with served(exposition, patience=0.1) as ask:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", ask.port))
        await loop.sock_sendall(client, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (await ask("/metrics", headers={"Accept-Encoding": "gzip"}))[0] == 200
        await asyncio.sleep(0.3)
        got = b""
        with contextlib.suppress(ConnectionResetError):
            while piece := await loop.sock_recv(client, 1 << 20):
                got += piece
        client.close()
        head, _, body = got.partition(b"\r\n\r\n")
        length = int(re.search(rb"Content-Length: ([0-9]+)", head)[1])
        assert 0 < len(body) < length
    assert caplog.records == []


async def test_connections_are_limited(exposition):
    """Who comes when all places are taken is hung up on, and there is room again later."""
    async with served(exposition) as ask:
        opened = [await asyncio.open_connection("127.0.0.1", ask.port) for _ in range(CONNECTIONS)]
        with pytest.raises((aiohttp.ClientConnectionError, ConnectionResetError)):
            await ask("/healthz")
        for _, writer in opened:
            writer.close()
        with anyio.fail_after(5):
            while True:
                try:
                    assert (await ask("/healthz"))[0] == 200
                    break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.02)


async def test_port_in_use_says_by_whom(exposition):
    """The program's name and its process."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError) as caught:
            async with Web(exposition, listen=Listen("127.0.0.1", port)).serving():
                pass
    assert caught.value.exit_code == 3
    name = (await anyio.Path("/proc/self/comm").read_text()).strip()
    assert caught.value.message == (
        f"the exporter cannot listen on 127.0.0.1:{port}: "
        f"the port is in use by {name} (process {os.getpid()})"
    )
    assert "KOPIWATCH_LISTEN" in caught.value.hint


async def test_address_of_another_machine_is_an_error_that_says_so(exposition):
    """And so is a name that does not exist."""
    for host, why in (("192.0.2.1", "no such address"), ("nowhere.invalid", "no address for")):
        with pytest.raises(ConfigError, match=why):
            async with Web(exposition, listen=Listen(host, 19187)).serving():
                pass


def test_holder_is_found_in_another_process():
    """By its socket's inode, over IPv6, too; nobody listens on a port that is free again."""
    program = (
        "import socket, sys; s = socket.create_server(('::1', 0), family=socket.AF_INET6); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-I", "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        port = int(other.stdout.readline())
        (found,) = holders(port)
        assert found.endswith(f"(process {other.pid})")
        other.stdin.close()
    assert holders(port) == ()


def test_holder_that_is_hidden_is_nobody(tmp_path):
    """A port in use without a process that we may see, and a machine without the tables."""
    assert holders(9187, tmp_path) == ()
    row = "   0: 0100007F:23E3 00000000:0000 0A 00000000:00000000 00:00000000 00000000 0 0 4711 1"
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text(f"  sl  local_address …\n{row}\n")
    assert holders(9187, tmp_path) == ()


async def test_serving_ends_with_its_block_and_the_port_is_free(exposition):
    """A connection that is kept alive does not hold it up."""
    async with served(exposition) as ask:
        assert (await ask("/healthz"))[0] == 200
        port = ask.port
    async with served(exposition, listen=Listen("127.0.0.1", port)) as ask:
        assert (await ask("/healthz"))[0] == 200


async def test_cancelled_server_leaves_nothing_behind(exposition):
    """The port is free after a cancellation."""
    port = 0
    with anyio.CancelScope() as scope:
        async with Web(exposition, listen=HERE).serving() as bound:
            port = bound.port
            scope.cancel()
            await anyio.sleep(60)
    assert port
    async with Web(exposition, listen=Listen("127.0.0.1", port)).serving():
        pass


# --- TLS ---


def openssl(*arguments: str) -> None:
    if shutil.which("openssl") is None:
        raise RuntimeError("these tests make certificates with openssl; install the package")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A chain and a key for 127.0.0.1, signed by itself."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
        *("-days", "2", "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"),
        *("-keyout", str(key), "-out", str(cert)),
    )
    return cert, key


@pytest.fixture
def pair(tmp_path):
    return certificate(tmp_path, "one")


def trusting(cert: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(cert))


async def get(port: int, context: ssl.SSLContext) -> int:
    url = f"https://127.0.0.1:{port}/healthz"
    async with (
        aiohttp.ClientSession() as session,
        session.get(url, ssl=context) as response,
    ):
        await response.read()
        return response.status


async def test_https_is_served_to_a_client_that_checks(exposition, pair):
    """By address, without a host name in the handshake; plain HTTP gets no answer."""
    cert, key = pair
    async with Web(exposition, listen=HERE, cert=cert, key=key).serving() as bound:
        assert await get(bound.port, trusting(cert)) == 200
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError):
                await session.get(f"http://127.0.0.1:{bound.port}/healthz")


async def test_old_tls_is_refused(exposition, pair):
    """TLS 1.1 and older are broken."""
    cert, key = pair
    old, good = trusting(cert), trusting(cert)
    with pytest.warns(DeprecationWarning, match="TLSv1 is deprecated"):
        old.minimum_version = good.minimum_version = ssl.TLSVersion.TLSv1
    with pytest.warns(DeprecationWarning, match=r"TLSv1_1 is deprecated"):
        old.maximum_version = ssl.TLSVersion.TLSv1_1
    good.maximum_version = ssl.TLSVersion.TLSv1_2
    for context in (old, good):
        context.set_ciphers("ALL:@SECLEVEL=0")
    async with Web(exposition, listen=HERE, cert=cert, key=key).serving() as bound:
        assert await get(bound.port, good) == 200
        with pytest.raises(aiohttp.ClientConnectorError):
            await get(bound.port, old)


async def test_silent_client_does_not_hold_up_handshakes(exposition, pair):
    """It costs itself its time, and leaving does not wait for it."""
    cert, key = pair
    begun = time.monotonic()
    async with Web(exposition, listen=HERE, cert=cert, key=key).serving() as bound:
        silent = [await asyncio.open_connection("127.0.0.1", bound.port) for _ in range(20)]
        assert await get(bound.port, trusting(cert)) == 200
    assert time.monotonic() - begun < 5
    for _, writer in silent:
        writer.transport.abort()


async def test_renewed_certificate_is_presented_after_a_reload(exposition, pair, tmp_path):
    """New connections see the new one; a bad one changes nothing and is named."""
    cert, key = pair
    old, new = trusting(cert), certificate(tmp_path, "two")
    web = Web(exposition, listen=HERE, cert=cert, key=key)
    async with web.serving() as bound:
        assert await get(bound.port, old) == 200
        await anyio.Path(cert).write_text("half a certificate")
        with pytest.raises(ConfigError, match=f"{cert} holds none"):
            await web.reload_tls()
        assert await get(bound.port, old) == 200
        for source, target in zip(new, pair, strict=True):
            shutil.copy(source, target)
        await web.reload_tls()
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await get(bound.port, old)
        assert await get(bound.port, trusting(new[0])) == 200


async def test_bad_certificate_files_are_named_with_the_reason(exposition, pair, tmp_path):
    """Missing, empty, mixed up, not belonging together, behind a passphrase."""
    cert, key = pair
    _, other = certificate(tmp_path, "other")
    locked, broken, missing = (tmp_path / name for name in ("locked", "broken", "missing"))
    openssl("ec", "-aes128", "-passout", "pass:x", "-in", str(key), "-out", str(locked))
    broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
    for given, why in (
        ((missing, key), f"{missing} cannot be read: No such file"),
        ((tmp_path, key), f"{tmp_path} cannot be read: Is a directory"),
        ((cert, missing), f"{missing} cannot be read"),
        ((key, cert), f"{key} holds none"),
        ((cert, cert), f"a PEM private key, and {cert} holds none"),
        ((cert, other), "they do not belong together"),
        ((cert, locked), f"{locked} is protected by a passphrase"),
        ((broken, key), f"cannot use the certificate {broken}"),
    ):
        with pytest.raises(ConfigError) as caught:
            async with Web(exposition, listen=HERE, cert=given[0], key=given[1]).serving():
                pass
        assert why in caught.value.message
        assert caught.value.exit_code == 3
