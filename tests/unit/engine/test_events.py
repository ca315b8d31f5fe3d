"""Docker's stream of events: what its lines become, and how it ends, on a server of our own."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import anyio
import msgspec
import pytest
from aiohttp import web

from kopiwatch.engine import decode_host, events
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.port import Hint, Mounted, VolumeMount
from kopiwatch.errors import EngineDenied, EngineError, EngineUnreachable, EventTooLarge

ID = "e032c933f2c53c713c7f517eb9c360c75a462970b2be84dd0616473058ec467c"
AT = datetime(2026, 11, 25, 6, 43, 37, 452644, tzinfo=UTC)
NANO = 1795589017452644353

DOCKER_20 = {
    "status": "start",
    "id": ID,
    "from": "app:1",
    "Type": "container",
    "Action": "start",
    "Actor": {"ID": ID, "Attributes": {"image": "app:1", "kopi.enable": "true", "name": "db"}},
    "scope": "local",
    "time": 1795589017,
    "timeNano": NANO,
}
DOCKER_29 = {
    "Type": "container",
    "Action": "start",
    "Actor": {"ID": ID, "Attributes": {"image": "app:1", "kopi.enable": "true", "name": "db"}},
    "scope": "local",
    "time": 1795589017,
    "timeNano": NANO,
}
PODMAN = {
    "status": "remove",
    "id": ID,
    "from": "localhost/app:1",
    "Type": "container",
    "Action": "remove",
    "Actor": {
        "ID": ID,
        "Attributes": {
            "image": "localhost/app:1",
            "kopi.enable": "true",
            "name": "db",
            "podId": "",
        },
    },
    "scope": "local",
    "time": 1795589017,
    "timeNano": NANO,
    "HealthStatus": "",
}


def line(raw: dict[str, object]) -> bytes:
    return json.dumps(raw).encode() + b"\n"


@pytest.mark.parametrize(
    ("raw", "action"), [(DOCKER_20, "start"), (DOCKER_29, "start"), (PODMAN, "remove")]
)
def test_events_of_all_daemons_become_the_same_hint(raw, action):
    assert events.decode_event(line(raw)) == Hint(action, ID, AT)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"timeNano": None}, AT.replace(microsecond=0)),
        ({"timeNano": None, "time": None}, None),
        ({"timeNano": 0, "time": 0}, None),
        ({"timeNano": -1}, None),
        ({"timeNano": 2**63 - 1}, datetime(2262, 4, 11, 23, 47, 16, 854775, tzinfo=UTC)),
        ({"timeNano": None, "time": 10**15}, None),
    ],
)
def test_time_that_cannot_be_told_is_unknown(change, expected):
    assert events.decode_event(line(DOCKER_20 | change)).at == expected


def test_action_loses_what_follows_its_colon():
    hint = events.decode_event(line(DOCKER_20 | {"Action": "exec_create: /bin/sh -c true"}))
    assert hint.action == "exec_create"


def test_labels_cannot_change_what_a_hint_says():
    labels = {"Action": "destroy", "ID": "other", "timeNano": "1", "exitCode": "7"}
    raw = DOCKER_20 | {"Actor": {"ID": ID, "Attributes": labels}}
    assert events.decode_event(line(raw)) == Hint("start", ID, AT)


@pytest.mark.parametrize(
    "raw",
    [
        {},
        {"Action": "start"},
        {"Action": "start", "Actor": {"ID": ""}},
        {"Action": "", "Actor": {"ID": ID}},
        {"Action": 3, "Actor": {"ID": ID}},
        {"message": "events are not to be had"},
    ],
)
def test_event_without_action_or_id_is_not_understood(raw):
    with pytest.raises(msgspec.DecodeError):
        events.decode_event(line(raw))


def test_docker_is_asked_for_labelled_containers_by_key():
    assert json.loads(events.filters(None)) == {
        "type": ["container"],
        "event": ["create", "start", "die", "destroy", "remove", "rename", "update"],
        "label": ["kopi.enable"],
    }


@pytest.mark.parametrize(
    ("version", "label"),
    [("5.6.2", "kopi.enable=true"), ("5.7.0", "kopi.enable"), ("6.0.0-dev", "kopi.enable")],
)
def test_podman_is_asked_by_key_since_it_can(version, label):
    body = json.dumps(
        {
            "ApiVersion": "1.44",
            "Components": [{"Name": "Podman Engine", "Version": version}, {"Name": "Conmon"}],
        }
    ).encode()
    assert json.loads(events.filters(decode_host.podman(body)))["label"] == [label]


@pytest.mark.parametrize(
    ("components", "expected"),
    [
        (None, None),
        ([], None),
        ([{"Name": "Engine", "Version": "20.10.24+dfsg1"}], None),
        ([{"Name": "Podman Engine", "Version": "strange"}], (0, 0)),
        ([{"Name": "Podman Engine"}], (0, 0)),
    ],
)
def test_only_podman_is_podman(components, expected):
    body = json.dumps({"ApiVersion": "1.41", "Components": components}).encode()
    assert decode_host.podman(body) == expected


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (AT, "1795589017.452644000"),
        (datetime(1970, 1, 1, tzinfo=UTC), "0.000000000"),
        (AT.astimezone(timezone(timedelta(hours=5, minutes=30))), "1795589017.452644000"),
    ],
)
def test_since_is_seconds_with_nine_decimals(moment, expected):
    assert events.stamp(moment) == expected


def test_system_time_is_decoded_and_unknown_when_it_cannot_be_told():
    body = b'{"ID": "X", "SystemTime": "2026-11-25T06:43:37.211279246Z"}'
    assert decode_host.info(body, "1.41").system_time == AT.replace(microsecond=211279)
    assert decode_host.info(b'{"SystemTime": "noon"}', "1.41").system_time is None
    assert decode_host.info(b"{}", "1.41").system_time is None


# The stream, on a server that plays the daemon.

Play = Callable[[web.Request, web.StreamResponse], Awaitable[None]]


@asynccontextmanager
async def serving(folder: Path, play: Play, asked: list[str]) -> AsyncIterator[DockerEngine]:
    """An engine on a daemon whose events are what ``play`` writes."""

    async def version(_: web.Request) -> web.Response:
        return web.json_response({"ApiVersion": "1.41"})

    async def stream(request: web.Request) -> web.StreamResponse:
        asked.append(request.query_string)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await play(request, response)
        return response

    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_get("/v1.41/events", stream)
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    await web.UnixSite(runner, str(folder / "docker.sock")).start()
    try:
        async with await DockerEngine.connect(f"unix://{folder}/docker.sock") as engine:
            yield engine
    finally:
        await runner.cleanup()


async def heard(folder: Path, play: Play, idle: float = 5) -> list[Hint]:
    """All hints until the stream ends."""
    async with (
        serving(folder, play, []) as engine,
        events.events(engine._connection, None, idle=idle) as hints,
    ):
        return [hint async for hint in hints]


@pytest.mark.anyio
async def test_stream_that_the_daemon_ends_is_over_without_an_error(tmp_path):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20) + line(DOCKER_29) + b"\r\n" + line(PODMAN))

    actions = [hint.action for hint in await heard(tmp_path, play)]
    assert actions == ["start", "start", "remove"]


@pytest.mark.anyio
async def test_lines_may_come_in_any_pieces(tmp_path):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        data = (line(DOCKER_20) + line(PODMAN)) * 3
        for start in range(0, len(data), 97):
            await response.write(data[start : start + 97])
            await asyncio.sleep(0)

    assert len(await heard(tmp_path, play)) == 6


@pytest.mark.anyio
async def test_torn_last_line_is_dropped(tmp_path):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20) + line(DOCKER_20)[:50])

    assert len(await heard(tmp_path, play)) == 1


@pytest.mark.anyio
async def test_silence_ends_the_stream_without_an_error(tmp_path):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20))
        await asyncio.sleep(10)

    began = time.monotonic()
    assert len(await heard(tmp_path, play, idle=0.3)) == 1
    assert 0.25 < time.monotonic() - began < 5


@pytest.mark.anyio
async def test_silence_without_even_headers_ends_the_stream_too(tmp_path, monkeypatch):
    monkeypatch.setattr(events, "HEADERS_SECONDS", 0.1)

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await asyncio.sleep(10)

    assert await heard(tmp_path, play, idle=0.3) == []


@pytest.mark.anyio
async def test_headers_that_come_with_the_first_event_hold_nobody_up(tmp_path, monkeypatch):
    """Podman before 5.3 and some proxies send none until something happens."""
    monkeypatch.setattr(events, "HEADERS_SECONDS", 0.1)
    happen = asyncio.Event()

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await happen.wait()
        await response.prepare(request)
        await response.write(line(PODMAN))

    async with (
        serving(tmp_path, play, []) as engine,
        engine.events(since=None) as hints,
    ):
        happen.set()
        assert [hint.action async for hint in hints] == ["remove"]


@pytest.mark.anyio
async def test_cut_connection_is_unreachable(tmp_path):
    first = asyncio.Event()

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20))
        await first.wait()
        assert request.transport is not None
        request.transport.close()

    async with serving(tmp_path, play, []) as engine, engine.events(since=None) as hints:
        assert (await anext(hints)).action == "start"
        first.set()
        with pytest.raises(EngineUnreachable, match="follow Docker's events"):
            await anext(hints)


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.anyio
async def test_oversized_event_is_told_after_those_before_it(tmp_path, whole):
    big = {"image": "x", "label": "y" * 600 * 1024}
    data = line(DOCKER_20 | {"Actor": {"ID": ID, "Attributes": big}})

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20) + (data if whole else data[:-1]))
        await asyncio.sleep(10)

    async with serving(tmp_path, play, []) as engine, engine.events(since=None) as hints:
        assert (await anext(hints)).action == "start"
        with pytest.raises(EventTooLarge, match="KiB") as caught:
            await anext(hints)
    assert "labels" in caught.value.hint


@pytest.mark.anyio
async def test_event_just_below_the_limit_is_read(tmp_path):
    big = {"label": "y" * 500 * 1024}

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(line(DOCKER_20 | {"Actor": {"ID": ID, "Attributes": big}}))

    assert [hint.container for hint in await heard(tmp_path, play)] == [ID]


@pytest.mark.parametrize("garbage", [b"<html>\n", b"{}\n", b'{"Action": "start"\n', b"\xff\xfe\n"])
@pytest.mark.anyio
async def test_event_that_is_not_understood_is_an_error_of_its_own(tmp_path, garbage):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        await response.write(garbage)
        await asyncio.sleep(10)

    async with serving(tmp_path, play, []) as engine, engine.events(since=None) as hints:
        with pytest.raises(EventTooLarge, match="not understood"):
            await anext(hints)


@pytest.mark.parametrize(
    ("status", "kind", "part"),
    [(403, EngineDenied, "403"), (400, EngineError, "too old"), (500, EngineError, "too old")],
)
@pytest.mark.anyio
async def test_refusal_is_raised_on_entering_and_a_proxys_names_the_switch(
    tmp_path, status, kind, part
):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        response.set_status(status)
        await response.prepare(request)
        await response.write(b'{"message": "client version 1.41 is too old"}')

    async with serving(tmp_path, play, []) as engine:
        with pytest.raises(EngineError, match=part) as caught:
            async with engine.events(since=None):
                pass
    assert type(caught.value) is kind
    assert (status != 403) or "EVENTS=1" in caught.value.hint


@pytest.mark.anyio
async def test_daemon_that_is_gone_is_unreachable_on_entering(tmp_path):
    async def play(request: web.Request, response: web.StreamResponse) -> None:
        assert request.transport is not None
        request.transport.abort()

    async with serving(tmp_path, play, []) as engine:
        with pytest.raises(EngineUnreachable):
            async with engine.events(since=None):
                pass


@pytest.mark.anyio
async def test_since_is_sent_as_the_daemon_reads_it(tmp_path):
    asked: list[str] = []

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)

    async with serving(tmp_path, play, asked) as engine:
        for since in (None, AT):
            async with engine.events(since=since) as hints:
                assert [hint async for hint in hints] == []
    assert "since" not in asked[0]
    assert "since=1795589017.452644000" in asked[1]


@pytest.mark.parametrize("headers", [True, False])
@pytest.mark.anyio
async def test_leaving_closes_the_connection_also_when_cancelled(tmp_path, headers, monkeypatch):
    """A connection that stays open would be a follower that never reads."""
    monkeypatch.setattr(events, "HEADERS_SECONDS", 0.05)
    closed = asyncio.Event()

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        if headers:
            await response.prepare(request)
        try:
            await asyncio.sleep(20)
        finally:
            closed.set()

    async with serving(tmp_path, play, []) as engine:
        with anyio.move_on_after(0.2):
            async with engine.events(since=None) as hints:
                await anext(hints)
        with anyio.fail_after(5):
            await closed.wait()


@pytest.mark.anyio
async def test_ten_thousand_events_are_read_in_a_second(tmp_path):
    """A slow reader slows down every container operation of the host."""

    async def play(request: web.Request, response: web.StreamResponse) -> None:
        await response.prepare(request)
        for _ in range(100):
            await response.write(line(DOCKER_20) * 100)

    began = time.monotonic()
    assert len(await heard(tmp_path, play)) == 10_000
    assert time.monotonic() - began < 1


def past(*events: dict[str, object]) -> bytes:
    return b"".join(json.dumps(event).encode() + b"\n" for event in events)


def test_past_mounts_are_taken_if_writable_and_named_by_their_container():
    """Each kind of event as Docker 20.10 writes it; a container's labels change nothing."""

    def mount(volume: str, writable: str, by: str = ID) -> dict[str, object]:
        attributes = {"container": by, "destination": "/x", "driver": "local"}
        attributes["read/write"] = writable
        return {
            "Type": "volume",
            "Action": "mount",
            "Actor": {"ID": volume, "Attributes": attributes},
        }

    labelled = {"name": "liar", "container": "c", "read/write": "true"}
    told = events.decode_mounts(
        past(
            DOCKER_20,
            mount("data", "true"),
            mount("files", "false"),
            mount("late", "true", "another"),
            {"Type": "volume", "Action": "unmount", "Actor": {"ID": "data", "Attributes": {}}},
            {"Type": "container", "Action": "mount", "Actor": {"ID": "x", "Attributes": labelled}},
            {"Type": "network", "Action": "connect"},
        )
    )
    assert told == Mounted((VolumeMount("data", ID, "db"), VolumeMount("late", "another")), True)


def test_as_many_past_events_as_docker_keeps_may_not_be_all():
    assert events.decode_mounts(past(*[DOCKER_29] * 199)).complete
    assert not events.decode_mounts(past(*[DOCKER_29] * 200)).complete
