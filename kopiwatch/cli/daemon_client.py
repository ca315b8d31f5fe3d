"""Talking to the living daemon through its control socket."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import anyio.to_thread
import msgspec

from kopiwatch.daemon import SOCKET
from kopiwatch.daemon.job import News
from kopiwatch.daemon.message import BackupOrder, Refusal
from kopiwatch.errors import KopiwatchError
from kopiwatch.report.board import Board

ANSWER_SECONDS = 60.0


class Refused(KopiwatchError):
    """The daemon refuses; code and exit code are those of its own error."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message, hint=refusal.hint)
        self._code = refusal.error
        self.exit_code = refusal.exit_code  # type: ignore[misc]  # another process's, as it said

    @property
    def code(self) -> str:
        """The daemon's own."""
        return self._code


class DaemonLost(KopiwatchError):
    """The daemon went away while it was followed."""


def lives(state_dir: Path) -> bool:
    """Whether a daemon listens on the control socket of this state folder. Blocks for a moment."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(2)
        try:
            probe.connect(str(state_dir / SOCKET))
        except OSError:
            return False
    return True


async def find(state_dir: Path) -> bool:
    """:func:`lives`, without holding up the event loop."""
    return await anyio.to_thread.run_sync(lives, state_dir)


@asynccontextmanager
async def backup(state_dir: Path, order: BackupOrder) -> AsyncIterator[AsyncIterator[News]]:
    """Hand an order over; iterate over what happens until every unit has a result.

    Raises Refused with the daemon's own words, DaemonLost if it goes away meanwhile. Leaving early
    does not stop the job.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=5)
    connector = aiohttp.UnixConnector(str(state_dir / SOCKET))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            async with session.post(
                "http://daemon/backup", data=msgspec.json.encode(order)
            ) as response:
                if response.status != 200:
                    raise Refused(msgspec.json.decode(await response.read(), type=Refusal))
                yield _news(response)
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            raise DaemonLost(
                f"the daemon went away: {str(error) or type(error).__name__}",
                hint="it brings back what it stopped; see its log, and `kopiwatch history`",
            ) from error


async def _news(response: aiohttp.ClientResponse) -> AsyncIterator[News]:
    buffer = b""
    async for chunk in response.content.iter_any():
        *lines, buffer = (buffer + chunk).split(b"\n")
        for line in lines:
            yield msgspec.json.decode(line, type=News)


async def board(state_dir: Path) -> Board | None:
    """The daemon's own view of everything; None if no daemon answers."""
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS, sock_connect=5)
    connector = aiohttp.UnixConnector(str(state_dir / SOCKET))
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as session:
        try:
            async with session.get("http://daemon/status") as response:
                return msgspec.json.decode(await response.read(), type=Board)
        except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError):
            return None
