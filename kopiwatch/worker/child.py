"""Work that may hang for good, done in a child: who touches a dead disk waits for ever."""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import sys
import time

from kopiwatch.worker.speech import READ_BYTES, Refused

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO

STUCK = "a disk below hangs"
LIFE_SECONDS = 1.0
DEEPEST = 100_000
"""Folders within folders: each takes descriptors, so that their limit counts first."""


class _Pipe:
    """In a child: where its result goes, and when it last showed life."""

    writing = -1
    shown_at = 0.0


def show_life() -> None:
    """Say that long work goes on: a blank before the result, once a second at most.

    Does nothing outside a child.
    """
    now = time.monotonic()
    if _Pipe.writing >= 0 and now - _Pipe.shown_at >= LIFE_SECONDS:
        _Pipe.shown_at = now
        os.write(_Pipe.writing, b" ")


def go_deep() -> None:
    """Let a child follow folders as deep as they lie: whoever fills a volume decides that."""
    sys.setrecursionlimit(DEEPEST)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


class Child:
    """A forked process that does ``work`` and hands its result (JSON) back through a pipe.

    Register :meth:`fileno` for reading and call :meth:`take` each time until it says True; then
    :meth:`result`. ``close`` is a descriptor that the child must not keep.
    """

    def __init__(self, work: Callable[[], object], close: int = -1) -> None:
        self._told = b""
        self._reading, writing = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _be_child(work, writing, close)
        os.close(writing)

    def fileno(self) -> int:
        """The pipe's end."""
        return self._reading

    def take(self) -> bool:
        """Take what the pipe holds, waiting for it; True when the child has told all."""
        block = os.read(self._reading, READ_BYTES)
        self._told += block
        return not block

    def result(self) -> object:
        """What the work returned, after :meth:`take` said True. Raises Refused as the work did."""
        os.waitpid(self.pid, 0)
        os.close(self._reading)
        answer = json.loads(self._told.strip() or b'{"reason": "system", "text": "a child died"}')
        if "reason" in answer:
            raise Refused(answer["reason"], answer["text"])
        return answer["result"]

    def give_up(self) -> None:
        """Kill it. It may remain, held by the kernel, and is not waited for."""
        try:
            os.kill(self.pid, signal.SIGKILL)
        finally:
            os.close(self._reading)


def _be_child(work: Callable[[], object], writing: int, close: int) -> None:
    """Do the work, tell the result, and never return."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if close >= 0:
            os.close(close)
        _Pipe.writing = writing
        go_deep()
        gc.disable()  # It ends soon, and would look through a million entries of a walk in vain.
        try:
            answer = {"result": work()}
        except Refused as refusal:
            answer = {"reason": refusal.reason, "text": refusal.text}
        except OSError as error:
            answer = {"reason": "system", "text": str(error)}
        with os.fdopen(writing, "wb") as file:
            file.write(json.dumps(answer).encode())
    finally:
        os._exit(0)


def in_child(what: str, seconds: float, work: Callable[[], object], close: int = -1) -> object:
    """What ``work`` returns, done in a child that is waited for.

    Raises Refused: as ``work`` did, or ``stuck`` when the child has not ended within ``seconds``,
    or before an order came, which can only be to leave off.
    """
    child = Child(work, close)
    end = time.monotonic() + seconds
    while (
        child.fileno()
        in select.select([child.fileno(), 0], [], [], max(0.0, end - time.monotonic()))[0]
    ):
        if child.take():
            return child.result()
    child.give_up()
    raise Refused("stuck", f"{what} did not end in time: {STUCK}")


class Servant:
    """A forked process that takes orders and gives answers, each a JSON object on a line.

    It ends with its orders, or by :meth:`kill`. ``serve`` gets the pipe of its orders, and the
    function that answers. ``close`` are descriptors that it must not keep: the lock, and the ends
    of its siblings' pipes.
    """

    def __init__(
        self, serve: Callable[[BinaryIO, Callable[[object], None]], None], close: list[int]
    ) -> None:
        reading, self._orders = os.pipe()
        self._answers, writing = os.pipe()
        self._told = b""
        self.pid = os.fork()
        if self.pid == 0:
            _be_servant(serve, reading, writing, [*close, self._orders, self._answers])
        os.close(reading)
        os.close(writing)
        self._pidfd = os.pidfd_open(self.pid)

    def fileno(self) -> int:
        """The end of the pipe that answers come from."""
        return self._answers

    def handles(self) -> list[int]:
        """Our descriptors, for a sibling to close."""
        return [self._orders, self._answers, self._pidfd]

    def ask(self, order: object) -> None:
        """Give an order; that it has died, :meth:`hear` says."""
        try:
            os.write(self._orders, json.dumps(order).encode() + b"\n")
        except BrokenPipeError:
            pass

    def hear(self) -> list[Any] | None:
        """The answers that came, waiting for something; None when it has ended."""
        block = os.read(self._answers, READ_BYTES)
        if not block:
            return None
        *lines, self._told = (self._told + block).split(b"\n")
        return [json.loads(line) for line in lines]

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return bool(select.select([self._pidfd], [], [], seconds)[0])

    def kill(self, seconds: float) -> None:
        """SIGKILL, and wait so long for its end; a disk that hangs may hold it in the kernel."""
        os.kill(self.pid, signal.SIGKILL)
        if self.ended(seconds):
            os.waitpid(self.pid, 0)
        for handle in self.handles():
            os.close(handle)


def _be_servant(
    serve: Callable[[BinaryIO, Callable[[object], None]], None],
    reading: int,
    writing: int,
    close: list[int],
) -> None:
    """Serve, and never return. Standard input and output are the worker's own."""

    def answer(what: object) -> None:
        os.write(writing, json.dumps(what).encode() + b"\n")

    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for handle in close:
            if handle >= 0:
                os.close(handle)
        go_deep()
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)
        with os.fdopen(reading, "rb") as orders:
            serve(orders, answer)
    finally:
        os._exit(0)
