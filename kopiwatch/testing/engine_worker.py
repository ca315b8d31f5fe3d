"""The other side of a fake worker's channel, played by a script of the test."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable

import anyio
import anyio.lowlevel

from kopiwatch.engine.port import WorkerSpec
from kopiwatch.errors import EngineError

Script = Callable[["FakeWorker", bytes | None], None]
"""Plays a worker: called with None at its start, then with each line sent to it."""


def silent(worker: FakeWorker, line: bytes | None) -> None:
    """A script that never says anything; it leaves when its input ends."""


class FakeWorker:
    """A worker that runs: what it was told (``orders``), and what it may say.

    Its script is called with None when the worker starts, and with each line that is sent to it;
    it answers with :meth:`say`, :meth:`complain` and :meth:`end`. A test may call these at any
    other time, too, which is how something comes late. The end of its input ends it.
    """

    def __init__(self, identity: str, spec: WorkerSpec, script: Script) -> None:
        self.id = identity
        self.spec = spec
        self.script = script
        self.orders: list[bytes] = []
        self.ended = False
        self.channel = FakeChannel(self)

    def start(self) -> None:
        """Let the script say its first words."""
        self.script(self, None)

    def say(self, line: bytes) -> None:
        """Write a line to standard output."""
        if not self.ended:
            self.channel.queue.append(line)
            self.channel.wake()

    def complain(self, text: str) -> None:
        """Write to standard error."""
        self.channel.errors += text

    def end(self) -> None:
        """End the worker: what it said can still be read, nothing can be sent."""
        self.ended = True
        self.channel.wake()

    def take(self, line: bytes) -> None:
        """One line of standard input."""
        self.orders.append(line)
        self.script(self, line)


class FakeChannel:
    """See :class:`kopiwatch.engine.port.Channel`."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.queue: deque[bytes] = deque()
        self.errors = ""
        self.input_closed = False
        self._news = anyio.Event()

    def wake(self) -> None:
        """Something changed for whoever waits for a line."""
        self._news.set()
        self._news = anyio.Event()

    async def send(self, line: bytes) -> None:
        """Give the worker a line. Raises EngineError when it is gone."""
        await anyio.lowlevel.checkpoint()
        if self.worker.ended or self.input_closed:
            raise EngineError("cannot talk to the worker: it is gone", tail=self.errors)
        self.worker.take(line)

    def lines(self) -> AsyncIterator[bytes]:
        """What it says, until it ends; iterating again goes on where the last one stopped."""
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        while not self.queue:
            if self.worker.ended:
                raise StopAsyncIteration
            await self._news.wait()
        await anyio.lowlevel.checkpoint_if_cancelled()
        return self.queue.popleft()

    async def close(self) -> None:
        """End its input, and with it the worker."""
        self.input_closed = True
        self.worker.end()

    def stderr(self) -> str:
        """The last kilobytes of standard error so far."""
        return self.errors[-8192:]
