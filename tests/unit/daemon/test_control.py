"""The control socket: orders, refusals and news between a command and the daemon, over a socket."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import anyio
import msgspec
import pytest
from anyio.to_thread import run_sync as in_thread
from support import boards
from support.desk_world import FINAL_SECONDS, DeskWorld, desk_world

from kopiwatch.cli import daemon_client
from kopiwatch.cli.daemon_client import DaemonLost, Refused, backup
from kopiwatch.daemon import SOCKET, control
from kopiwatch.daemon.control import PATH_LIMIT, Control
from kopiwatch.daemon.job import Complete, Ended, News, Said
from kopiwatch.daemon.message import BackupOrder, Refusal
from kopiwatch.daemon.submit import submit
from kopiwatch.errors import ConfigError, EngineUnreachable

pytestmark = pytest.mark.anyio


class Here:
    """A desk with an executor behind a control socket in its state folder."""

    def __init__(self, world: DeskWorld) -> None:
        self.world, self.desk = world, world.desk
        self.folder = world.state.path
        self.board = boards.full()
        self.control = Control(
            self.folder, board=lambda: self.board, submit=partial(submit, self.desk)
        )

    @property
    def socket(self) -> Path:
        return self.folder / SOCKET

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Socket and executor, for the length of a block."""
        async with self.world.working(), self.control.serving():
            yield

    def order(self, *units: str, **changes: str) -> BackupOrder:
        """An order of somebody with our settings."""
        config = self.world.config
        mine = BackupOrder(units, repository=config.repository, instance=config.instance)
        return msgspec.structs.replace(mine, **changes)

    async def follow(self, *units: str) -> list[News]:
        """Order a backup and hear all of it."""
        with anyio.fail_after(FINAL_SECONDS):
            async with backup(self.folder, self.order(*units)) as news:
                return [each async for each in news]

    async def refused(self, *units: str, **changes: str) -> Refused:
        """The refusal of an order."""
        with pytest.raises(Refused) as caught:
            async with backup(self.folder, self.order(*units, **changes)):
                pass
        return caught.value

    async def post(self, body: bytes) -> tuple[int, Refusal]:
        """What the daemon answers to this, whatever it is."""
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(self.socket))) as session,
            session.post("http://daemon/backup", data=body) as response,
        ):
            return response.status, msgspec.json.decode(await response.read(), type=Refusal)


@pytest.fixture
async def here(tmp_path, monkeypatch):
    async with desk_world(tmp_path, monkeypatch) as world:
        yield Here(world)


async def first(news: AsyncIterator[News]) -> News:
    """The next of the news, which must come."""
    with anyio.fail_after(FINAL_SECONDS):
        return await anext(news)


def results(heard: list[News]) -> list[tuple[str, str]]:
    return [(e.result.unit, e.result.verdict) for e in heard if isinstance(e, Ended)]


# -- orders ------------------------------------------------------------------------------------


async def test_order_is_carried_out_and_followed_to_its_end(here):
    """Phases, the result with its figures, and the word that this was all."""
    async with here.serving():
        heard = await here.follow("shop")
    assert results(heard) == [("shop", "success")]
    phases = [e.message for e in heard if isinstance(e, Said) and e.action == "phase"]
    assert phases[:3] == ["check", "ready", "stop"]
    assert heard[-1] == Complete()
    (result,) = [e.result for e in heard if isinstance(e, Ended)]
    assert [source.path for source in result.sources] == [
        "recipe",
        "volumes/data",
        "volumes/files",
    ]


async def test_order_without_units_means_all_of_them(here):
    """In one job, one after the other."""
    here.world.stand_alone("alone")
    async with here.serving():
        heard = await here.follow()
    assert sorted(results(heard)) == [("alone", "success"), ("shop", "success")]
    assert heard.count(Complete()) == 1


async def test_order_comes_before_what_the_schedule_wants(here):
    """Somebody waits for it."""
    here.world.stand_alone("alone")
    here.desk.connected = False
    async with here.serving():
        here.world.ask("alone", priority=1)
        async with backup(here.folder, here.order("shop")) as news:
            assert await first(news) == Said("queued", "queued: Docker does not answer")
            here.desk.connected = True
            await here.world.rest()
        assert [unit for unit, _, _ in here.world.verdicts] == ["shop", "alone"]


async def test_two_orders_for_one_unit_are_one_run(here):
    """Both followers get its result."""
    here.desk.connected = False
    heard: list[list[News]] = []

    async def follow() -> None:
        heard.append(await here.follow("shop"))

    async with here.serving(), anyio.create_task_group() as tasks:
        tasks.start_soon(follow)
        tasks.start_soon(follow)
        await here.world.until(lambda: len(here.desk.jobs.of("shop")) == 2)
        here.desk.connected = True
        here.desk.work.ring()
    assert [results(each) for each in heard] == [[("shop", "success")]] * 2
    assert len(here.world.verdicts) == 1


async def test_follower_that_leaves_takes_nothing_with_it(here):
    """A `docker exec` that dies does not end the run."""
    here.world.hangs("go")
    async with here.serving():
        async with backup(here.folder, here.order("shop")) as news:
            await first(news)
        await here.world.until(lambda: "go" in here.world.program.steps)
        here.world.goes_on("go")
        await here.world.until(lambda: here.world.verdicts)
        assert here.world.verdicts == [("shop", "success", "")]


# -- refusals ----------------------------------------------------------------------------------


async def test_unknown_unit_is_refused_as_the_command_itself_would(here):
    """With its exit code and the nearest name."""
    async with here.serving():
        error = await here.refused("shopp")
    assert (error.code, error.exit_code) == ("unknown-unit", 2)
    assert "did you mean 'shop'?" in error.hint
    assert not here.desk.jobs


@pytest.mark.parametrize(
    "other", [{"repository": "filesystem:/elsewhere"}, {"instance": "another"}]
)
async def test_order_that_means_another_daemon_is_refused(here, other):
    """It names both, so that somebody can tell which is wrong."""
    async with here.serving():
        error = await here.refused("shop", **other)
    assert error.exit_code == 3
    assert next(iter(other.values())) in error.message


async def test_order_while_the_daemon_leaves_is_refused(here):
    """Busy, not lost."""
    async with here.serving():
        here.desk.stopping = True
        error = await here.refused("shop")
    assert error.exit_code == 75


async def test_order_without_docker_is_refused_at_once(here):
    """Nobody can say which units there are."""
    async with here.serving():
        here.world.docker_away = EngineUnreachable("Docker does not answer")
        error = await here.refused("shop")
    assert (error.code, error.exit_code) == ("engine-unreachable", 5)


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"units": "shop"}', b'{"units": [1]}', b"\xff\xfe"]
)
async def test_what_is_no_order_is_refused_and_the_daemon_goes_on(here, body):
    """As a usage error, with what is wrong with it."""
    async with here.serving():
        status, refusal = await here.post(body)
        assert (status, refusal.error, refusal.exit_code) == (409, "usage-error", 2)
        assert refusal.message.startswith("not an order: ")
        assert results(await here.follow("shop")) == [("shop", "success")]


async def test_words_that_are_no_http_do_not_end_the_daemon(here):
    """Somebody may talk to the wrong socket."""
    async with here.serving():
        stream = await anyio.connect_unix(here.socket)
        async with stream:
            await stream.send(b"\x00\x01 not http\r\n\r\n")
            with contextlib.suppress(anyio.EndOfStream):
                await stream.receive()
        assert await daemon_client.board(here.folder) is not None


# -- the daemon leaves -------------------------------------------------------------------------


async def test_daemon_that_leaves_in_order_lets_its_followers_go(here):
    """Their news end without a completion, which is how they know."""
    here.desk.connected = False
    async with here.serving(), backup(here.folder, here.order("shop")) as news:
        assert await first(news) == Said("queued", "queued: Docker does not answer")
        here.desk.jobs.close()
        assert [each async for each in news] == []


async def test_daemon_that_goes_away_in_the_middle_is_lost(here, monkeypatch):
    """The follower is told, with where to look."""
    monkeypatch.setattr(control, "SHUTDOWN_SECONDS", 0.01)
    here.desk.connected = False
    async with here.world.working(), contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(here.control.serving())

        async def follow() -> None:
            async with backup(here.folder, here.order("shop")) as news:
                await first(news)
                await stack.aclose()
                await first(news)

        with pytest.raises(DaemonLost) as caught:
            await follow()
    assert "kopiwatch history" in caught.value.hint


# -- the socket --------------------------------------------------------------------------------


async def test_board_travels_unchanged(here):
    """What `status` shows is what the daemon knows."""
    async with here.serving():
        assert await daemon_client.board(here.folder) == here.board


async def test_socket_is_there_as_long_as_the_daemon(here):
    """And not a moment longer: a command would talk to nobody."""
    assert not await daemon_client.find(here.folder)
    async with here.serving():
        assert await daemon_client.find(here.folder)
        assert await daemon_client.board(here.folder) is not None
    assert not await daemon_client.find(here.folder)
    assert not await in_thread(here.socket.exists)
    assert await daemon_client.board(here.folder) is None


async def test_socket_of_a_dead_daemon_is_not_in_the_way(here):
    """A daemon that was killed leaves it; nobody takes that for a living one."""
    with socket.socket(socket.AF_UNIX) as dead:
        await in_thread(dead.bind, str(here.socket))
    assert not await daemon_client.find(here.folder)
    async with here.serving():
        assert results(await here.follow("shop")) == [("shop", "success")]


async def test_only_the_owner_of_the_folder_reaches_the_socket(here):
    """Whoever may write there orders backups, so nobody else may even enter."""
    async with here.serving():
        found = await in_thread(os.stat, here.folder)
    assert found.st_mode & 0o077 == 0


async def test_path_that_is_too_long_for_a_socket_is_said_with_its_limit(here, tmp_path):
    """Linux cuts at 107 bytes; the error says how long the folder's path may be."""
    folder = tmp_path / ("x" * PATH_LIMIT)
    made = Control(folder, board=lambda: here.board, submit=partial(submit, here.desk))
    with pytest.raises(ConfigError) as caught:
        async with made.serving():
            pass
    assert str(PATH_LIMIT - len(SOCKET) - 1) in caught.value.hint


async def test_folder_that_takes_no_socket_is_an_error_of_the_configuration(here, tmp_path):
    """Said at the start, with the folder's setting."""
    made = Control(tmp_path / "none", board=lambda: here.board, submit=partial(submit, here.desk))
    with pytest.raises(ConfigError) as caught:
        async with made.serving():
            pass
    assert "KOPIWATCH_STATE_DIR" in caught.value.hint
