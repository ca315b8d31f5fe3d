"""Taking turns: one run at a time, but for what disturbs nobody.

When a run of a batch has its window behind it and Kopia has stored all, the next one prepares: it
looks at its containers and starts its worker. While a run only looks at its members for 2 s, the
next one goes on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import anyio


class Turns:
    """Whose turn it is among the runs of one process, all under its run lock.

    Who wants to end a run that has begun goes before who wants to begin one. One at a time
    prepares. ``leaving`` says that whoever has the turn does not mind. ``whole``: each keeps its
    turn to its end, and nobody prepares meanwhile.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self.busy = False
        self.ending: deque[anyio.Event] = deque()
        self.beginning: deque[anyio.Event] = deque()
        self.watched: dict[anyio.Event, frozenset[str]] = {}
        self.leaving = False
        self.door = anyio.Semaphore(1)
        self.preparing = anyio.Event()

    def hand_on(self) -> None:
        """The turn goes to whoever waits for it, else to nobody."""
        self.leaving = False
        for queue in (self.ending, self.beginning):
            if queue:
                queue.popleft().set()
                return
        self.busy = False
        self.preparing.set()

    def leave(self) -> None:
        """Whoever has the turn does not mind that the next one prepares."""
        if not self.whole:
            self.leaving = True
            self.preparing.set()


class Turn:
    """The turn of one run. Whatever starts Kopia or holds a container needs it."""

    def __init__(self, turns: Turns | None = None) -> None:
        self._turns = turns or Turns()
        self._mine = False
        self._begun = False
        self._at_door = False
        self._taking = anyio.Lock()

    async def prepare(self) -> None:
        """Wait until what starts no Kopia and holds nobody may be done; then :meth:`take`.

        Had already is good.
        """
        turns = self._turns
        if self._mine or self._at_door:
            return
        await turns.door.acquire()
        self._at_door = True
        while turns.busy and not turns.leaving:
            turns.preparing = anyio.Event()
            await turns.preparing.wait()

    def leave(self) -> None:
        """The window is past and everything stored: let the next one prepare."""
        if self._mine:
            self._turns.leave()

    async def take(self) -> None:
        """Wait for the turn; had already is good. Several tasks of a run may wait for it."""
        turns = self._turns
        async with self._taking:
            if self._mine:
                return
            if turns.busy:
                queue = turns.ending if self._begun else turns.beginning
                await self._wait(queue)
            turns.busy = self._mine = self._begun = True
        self._leave_door()

    def _leave_door(self) -> None:
        if self._at_door:
            self._at_door = False
            self._turns.door.release()

    async def _wait(self, queue: deque[anyio.Event]) -> None:
        mine = anyio.Event()
        queue.append(mine)
        try:
            await mine.wait()
        except BaseException:
            if mine.is_set():
                self._turns.hand_on()
            else:
                queue.remove(mine)
            raise

    def give(self) -> None:
        """Let the next have it; given already is good."""
        self._leave_door()
        if self._mine:
            self._mine = False
            self._turns.hand_on()

    @contextmanager
    def watching(self, containers: Collection[str]) -> Iterator[None]:
        """Give the turn away, and look at these containers (ids) for the length of the block.

        The turn is not taken again. Among whole turns it is not given away.
        """
        seen = anyio.Event()
        self._turns.watched[seen] = frozenset(containers)
        if not self._turns.whole:
            self.give()
        try:
            yield
        finally:
            del self._turns.watched[seen]
            seen.set()

    async def unwatched(self, containers: Collection[str]) -> None:
        """Wait until nobody looks at one of these: who is stopped now would look fallen over."""
        for seen, watched in list(self._turns.watched.items()):
            if not watched.isdisjoint(containers):
                await seen.wait()
