"""Keeps the list of containers true: events are hints, the list is the truth.

For each connection: a fresh client (a daemon that was upgraded under an old one refuses it), follow
the events, list, then list again after each burst of events and at regular times. A list that fails
changes nothing. All that was measured for this is in the docstrings of
:mod:`kopiwatch.engine.events`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from datetime import datetime, timedelta
from pathlib import Path

import anyio
import msgspec
from msgspec.structs import replace

from kopiwatch.clock import Clock
from kopiwatch.engine.port import IDLE_SECONDS, Engine, Hint
from kopiwatch.errors import EngineError, EngineUnreachable, EventTooLarge
from kopiwatch.task import unwrapped
from kopiwatch.units.container import Container
from kopiwatch.watch.backoff import Backoff
from kopiwatch.watch.facts import Reason, Sighting, WatchFacts
from kopiwatch.watch.flag import Flag
from kopiwatch.watch.outage import REPEAT_SECONDS, Listener, Outage, length
from kopiwatch.watch.stale import Inode, StaleRule, look_up

QUIET_SECONDS = 2.0
"""A list waits until events have been quiet for so long: when 20 containers start at once, gaps of
0.97 s were seen between their events."""
CAP_SECONDS = 10.0
"""A list waits no longer than this after the first event, quiet or not."""
FULL_SECONDS = 300.0
FULL_SPREAD = 0.1
"""A list every 5 min ± 10 %, with or without events: many hosts shall not beat in time."""
SINCE_MARGIN = timedelta(seconds=2)
"""Events are asked for from so long before the list on: the answer's headers come before the
subscription is in place."""
STABLE_SECONDS = 30.0
"""Only after a connection of more than this the next failure counts as the first."""
ROUTINE_SECONDS = 60.0
"""A stream that ends after more than this is routine: proxies cut them every few minutes."""

__all__ = ["Listener", "Reason", "Sighting", "WatchFacts", "Watcher"]

Seen = Callable[[Engine, Sighting], Awaitable[None]]


class _End(msgspec.Struct, frozen=True):
    """How a connection ended. ``lived`` is seconds since its good first list, 0 without one."""

    error: EngineError | None
    lived: float = 0.0


class Watcher:
    """Follows one Docker daemon for ever, see :meth:`run`.

    ``connect`` gives a fresh client. ``seen`` is given each good list that differs from the last
    one that it was given (the sentence "Up 3 minutes" aside), and the first of each connection; an
    error in it is a bug and is raised by :meth:`run`. ``changed`` is called after each change of
    :attr:`facts`, for each event too: it must be quick. ``random`` gives 0 to 1. ``relevant`` tells
    the containers whose events are followed. ``socket`` is the path of Docker's Unix socket for
    :class:`kopiwatch.watch.stale.StaleRule`; None turns that off.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractAsyncContextManager[Engine]],
        seen: Seen,
        *,
        changed: Callable[[], None],
        listener: Listener,
        clock: Clock,
        random: Callable[[], float],
        relevant: Callable[[Container], bool],
        socket: Path | None = None,
        inode: Inode = look_up,
    ) -> None:
        self._connect = connect
        self._seen = seen
        self._changed = changed
        self._listener = listener
        self._clock = clock
        self._random = random
        self._relevant = relevant
        self._backoff = Backoff(random)
        self._outage = Outage(listener, clock)
        self._stale = StaleRule(socket, clock, inode)
        self._wake = Flag(clock)
        # What the reader leaves for the one who lists.
        self._dirty = False
        self._nudged = False
        self._first_heard = self._last_heard = 0.0
        self._over = False
        self._broken: EngineError | None = None
        # Where to go on after a reconnect.
        self._newest: set[Hint] = set()
        self._resume: datetime | None = None
        self._without_since = False
        self._next_reason: Reason = "connect"
        self._full_at = 0.0
        # What the last list held, as given to seen, and as events would have told it.
        self._passed: tuple[Container, ...] | None = None
        self._known: dict[str, tuple[str, bool]] | None = None
        self._suspicion: tuple[float, str] | None = None
        self._facts = WatchFacts()
        self._events: Counter[str] = Counter()
        self._resyncs: Counter[str] = Counter()
        self._oversized_said: float | None = None
        self._connections = 0

    @property
    def facts(self) -> WatchFacts:
        """How it goes, as of now."""
        return replace(
            self._facts,
            trouble=self._outage.trouble,
            since_trouble=self._outage.since,
            events=dict(self._events),
            resyncs=dict(self._resyncs),
        )

    def nudge(self) -> None:
        """Ask for a list now. Without a connection the next one begins with a list anyway."""
        self._nudged = True
        self._wake.set()

    async def run(self) -> None:
        """Watch until cancelled.

        Raises StaleSocket (see :mod:`kopiwatch.watch.stale`), ConfigError for an address that
        cannot be used, and whatever ``seen`` raises. Any other failure of Docker leads to a new
        connection, after a while that grows to 30 s.
        """
        while True:
            end = await self._watch()
            self._judge(end)
            if end.error is not None:
                await self._stale.failed(end.error)
            await self._clock.sleep(self._backoff.next())

    async def _watch(self) -> _End:
        """One connection from beginning to end."""
        async with AsyncExitStack() as stack:
            try:
                engine = await stack.enter_async_context(self._connect())
                since = await self._since(engine)
                hints = await stack.enter_async_context(engine.events(since=since))
            except EngineError as error:
                return _End(error)
            self._over, self._broken = False, None
            with unwrapped():
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._read, hints)
                    end = await self._keep_listing(engine, blind=since is None)
                    tasks.cancel_scope.cancel()
        return end

    async def _since(self, engine: Engine) -> datetime | None:
        """From when on events are wanted, by the daemon's clock; None: from now on."""
        if self._without_since:
            return None
        if self._resume is not None:
            return self._resume
        now = (await engine.info()).system_time
        return None if now is None else now - SINCE_MARGIN

    # The reader: sets flags and counts, nothing else. A slow one would slow down all of Docker.

    async def _read(self, hints: AsyncIterator[Hint]) -> None:
        try:
            async for hint in hints:
                self._hear(hint)
        except EngineError as error:
            self._broken = error
        self._over = True
        self._wake.set()

    def _hear(self, hint: Hint) -> None:
        if hint in self._newest:
            return  # told again after a reconnect, because since is inclusive
        if hint.at is not None:
            self._newest = {*(self._newest if hint.at == self._resume else ()), hint}
            self._resume = hint.at
        self._suspicion = None
        self._soil()
        self._events[hint.action] += 1
        self._note(last_event=self._clock.now())

    def _soil(self) -> None:
        """A list is due when it has been quiet for a while."""
        self._last_heard = self._clock.seconds()
        if not self._dirty:
            self._dirty, self._first_heard = True, self._last_heard
            self._wake.set()

    # The one who lists.

    async def _keep_listing(self, engine: Engine, *, blind: bool) -> _End:
        """The first list of a connection, and all others until it ends.

        ``blind``: events are told from now on only, and Docker says that it tells them a moment
        before it does. What happens in that moment is seen by one more list.
        """
        began = self._clock.seconds()
        self._suspicion = None
        reason: Reason | None = self._next_reason
        first = True
        while reason is not None:
            asked, told = self._clock.now(), self._dirty
            self._dirty = self._nudged = False
            try:
                rows = await engine.containers()
            except EngineError as error:
                self._note(failed_lists=self._facts.failed_lists + 1)
                return _End(error, 0.0 if first else self._clock.seconds() - began)
            if first:
                self._connected()
                first = False
                if blind:
                    self._soil()
            self._resyncs[reason] += 1
            self._compare(rows, reason, told=told)
            await self._pass_on(engine, Sighting(rows, asked, reason))
            # Last: whoever shows each change and then pauses would show the news after the pause.
            self._note(last_resync=asked)
            reason = await self._due()
        lived = self._clock.seconds() - began
        silent = self._clock.seconds() - max(began, self._last_heard)
        # A second less: the connection's own timer began before we heard of the event.
        idle = self._broken is None and silent >= IDLE_SECONDS - 1
        self._next_reason = "idle" if idle else "connect"
        return _End(self._broken, lived)

    async def _due(self) -> Reason | None:
        """Wait until a list is due; why it is, or None when the stream is over."""
        while not self._over:
            now = self._clock.seconds()
            if self._suspicion is not None and now >= self._suspicion[0]:
                self._drifted(self._suspicion[1])
                self._suspicion = None
            due = self._full_at
            if self._dirty:
                due = min(due, self._last_heard + QUIET_SECONDS, self._first_heard + CAP_SECONDS)
            if self._nudged:
                return "event"
            if now >= due:
                return "interval" if now >= self._full_at else "event"
            if self._suspicion is not None:
                due = min(due, self._suspicion[0])
            await self._wake.wait(due - now)
        return None

    def _connected(self) -> None:
        """The first list of a connection was good."""
        self._without_since = False
        self._next_reason = "connect"
        self._connections += 1
        self._stale.clear()
        self._outage.over()
        self._note(connected=True, reconnects=self._connections - 1)
        level = "info" if self._connections == 1 else "debug"
        self._listener.say("watching", "following Docker's events", level=level)

    async def _pass_on(self, engine: Engine, sighting: Sighting) -> None:
        """Give a list to ``seen``, unless it says what the last one said."""
        comparable = tuple(replace(row, status="") for row in sighting.rows)
        if sighting.reason == "connect" or comparable != self._passed:
            await self._seen(engine, sighting)
            self._passed = comparable

    def _compare(self, rows: tuple[Container, ...], reason: Reason, *, told: bool) -> None:
        """Look whether a regular list shows what no event had told.

        Only what events tell is compared: not pausing, and not the image's name, which changes
        when its tag moves. The event may still be on its way, so this is only a suspicion.
        """
        known = {row.id: (row.name, row.running) for row in rows if self._relevant(row)}
        before, self._known = self._known, known
        now = self._clock.seconds()
        if reason != "event":
            spread = FULL_SPREAD * (2 * self._random() - 1)
            self._full_at = now + FULL_SECONDS * (1 + spread)
        regular = reason in ("interval", "idle")
        if before is not None and regular and not told and not self._dirty and known != before:
            changed = {name for name, _ in (known.items() ^ before.items())}
            names = sorted((known.get(each) or before[each])[0] for each in changed)
            self._suspicion = (now + QUIET_SECONDS, ", ".join(names))

    def _drifted(self, names: str) -> None:
        self._note(drift=self._facts.drift + 1)
        self._listener.say(
            "drift",
            f"the regular list shows changes that no event had told: {names}",
            level="warning",
        )

    # Between two connections.

    def _judge(self, end: _End) -> None:
        """Say what has to be said about the end of a connection, and remember it."""
        self._facts = replace(self._facts, connected=False)
        if end.lived > STABLE_SECONDS:
            self._backoff.reset()
        if isinstance(end.error, EventTooLarge):
            self._passed_over(end.error)
        elif self._over and end.lived > ROUTINE_SECONDS:
            why = f": {end.error.message}" if end.error else ""
            self._listener.say(
                "events-ended",
                f"the stream of events ended after {length(end.lived)}{why}",
                level="debug",
            )
        else:
            self._outage.failed(end.error or _short(end.lived))
        self._changed()

    def _passed_over(self, error: EventTooLarge) -> None:
        """Go on without looking back: asked again, Docker would tell the same event again."""
        self._without_since = True
        self._resume, self._newest = None, set()
        now = self._clock.seconds()
        said = self._oversized_said
        loud = said is None or now - said >= REPEAT_SECONDS
        if loud:
            self._oversized_said = now
        self._facts = replace(self._facts, oversized=self._facts.oversized + 1)
        level = "warning" if loud else "debug"
        self._listener.say("event-oversized", error.message, level=level, hint=error.hint)

    def _note(self, **changes: object) -> None:
        """Change facts and let it be known."""
        self._facts = replace(self._facts, **changes)
        self._changed()


def _short(seconds: float) -> EngineError:
    return EngineUnreachable(
        f"Docker's stream of events ended after {length(seconds)}",
        hint="look whether the daemon was restarted, or whether a proxy cuts connections",
    )
