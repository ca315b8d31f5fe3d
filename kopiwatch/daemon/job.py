"""Backups that somebody asked for by hand, and whoever follows them."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kopiwatch.backup.result import RunResult


class Said(msgspec.Struct, frozen=True, tag="said"):
    """One event of a run, as a ``Listener`` hears it."""

    action: str
    message: str
    facts: dict[str, str] = msgspec.field(default_factory=dict)


class Ended(msgspec.Struct, frozen=True, tag="ended"):
    """One unit of the job is done."""

    result: RunResult


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    """Every unit of the job is done."""


News = Said | Ended | Complete


class Job:
    """Units to be backed up now. It lives on when nobody follows it any more.

    ``note`` is what each follower hears first: what the job waits for.
    """

    def __init__(self, units: Iterable[str], note: str = "") -> None:
        self.waiting = set(units)
        self._note = note
        self.results: list[RunResult] = []
        self._followers: list[MemoryObjectSendStream[News]] = []

    @property
    def done(self) -> bool:
        """Every unit has a result."""
        return not self.waiting

    def say(self, action: str, message: str, **facts: object) -> None:
        """Tell the followers of an event."""
        self._tell(Said(action, message, {key: str(value) for key, value in facts.items()}))

    def end(self, result: RunResult) -> None:
        """Give a unit its result; the last one ends the following."""
        if result.unit not in self.waiting:
            return
        self.waiting.discard(result.unit)
        self.results.append(result)
        self._tell(Ended(result))
        if self.done:
            self._tell(Complete())
            self.close()

    def close(self) -> None:
        """Let all followers go: done, or we are leaving."""
        followers, self._followers = self._followers, []
        for follower in followers:
            follower.close()

    @asynccontextmanager
    async def follow(self) -> AsyncIterator[MemoryObjectReceiveStream[News]]:
        """All news from now on, and the results so far, until the job is done or closed."""
        send, receive = anyio.create_memory_object_stream[News](math.inf)
        if self._note:
            send.send_nowait(Said("queued", self._note))
        for result in self.results:
            send.send_nowait(Ended(result))
        if self.done:
            send.send_nowait(Complete())
            send.close()
        else:
            self._followers.append(send)
        try:
            async with receive:
                yield receive
        finally:
            if send in self._followers:
                self._followers.remove(send)
            send.close()

    def _tell(self, news: News) -> None:
        for follower in tuple(self._followers):
            try:
                follower.send_nowait(news)
            except (anyio.BrokenResourceError, anyio.ClosedResourceError):
                self._followers.remove(follower)  # it left; a run never breaks for that


class Jobs:
    """The jobs that are not done."""

    def __init__(self) -> None:
        self._jobs: list[Job] = []

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, units: Iterable[str], note: str = "") -> Job:
        """A new job for these units."""
        job = Job(units, note)
        self._jobs.append(job)
        return job

    def of(self, unit: str) -> tuple[Job, ...]:
        """The jobs that wait for this unit just now; a run that began before counts for none."""
        return tuple(job for job in self._jobs if unit in job.waiting)

    def sweep(self) -> None:
        """Forget the jobs that are done."""
        self._jobs = [job for job in self._jobs if not job.done]

    def close(self) -> None:
        """Let everybody go who follows."""
        for job in self._jobs:
            job.close()
