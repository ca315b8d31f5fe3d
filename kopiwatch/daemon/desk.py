"""What the loops of the daemon share: what is known, what is to be done, what was counted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable

import msgspec

from kopiwatch.backup.house import Listener
from kopiwatch.backup.result import RunResult
from kopiwatch.backup.state import StateFolder
from kopiwatch.bell import Bell
from kopiwatch.clock import Clock
from kopiwatch.config import Config
from kopiwatch.daemon.job import Jobs
from kopiwatch.daemon.ledger import Ledger
from kopiwatch.daemon.probe import Found, Holdings, backend_of
from kopiwatch.errors import (
    HistoryError,
    KopiwatchError,
    NotConnected,
    RepositoryFull,
    RepositoryNotFound,
)
from kopiwatch.report.board import Histogram, Queued, RepositoryBoard
from kopiwatch.report.history import History
from kopiwatch.report.summary import level_of, summary
from kopiwatch.units.group import Discovery
from kopiwatch.watch.breaker import Breaker
from kopiwatch.watch.queue import Queue
from kopiwatch.words import counted


class Desk:
    """The daemon's memory. Only the event loop touches it, so nothing here is locked.

    ``found`` is None until the first list of containers. ``settled`` says that what an earlier life
    left has been dealt with, ``seeded`` that the history knows what the repository knows.
    ``lock_held`` says that a run or a restore is alive, ours or another process's.
    ``connected`` says that Docker's events flow. ``running`` is the run of just now.
    ``work`` wakes the executor, ``plan`` the planner, ``show`` the publisher, ``write`` the writer
    of phases.
    """

    def __init__(
        self,
        config: Config,
        state: StateFolder,
        identity: str,
        history: History,
        *,
        fresh: bool,
        listener: Listener,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self.config = config
        self.state = state
        self.identity = identity
        self.listener = listener
        self.clock = clock
        self.work, self.plan = Bell(clock), Bell(clock)
        self.show, self.write = Bell(clock), Bell(clock)
        self.ledger = Ledger(history, state.path, listener, clock, self.changed)
        self.queue = Queue(random=random)
        self.breaker = Breaker(random=random)
        self.jobs = Jobs()
        self.found: Discovery | None = None
        self.connected = False
        self.settled = False
        self.seeded = not fresh
        self._merged = False
        self.stopping = False
        self.lock_held = False
        self.kopia_version = ""
        self.revision = os.environ.get("KOPIWATCH_REVISION", "")
        self.running: Queued | None = None
        self.left_stopped: dict[str, tuple[str, ...]] = {}
        self.holdings: dict[str, Holdings] | None = None
        self.repository = RepositoryBoard(backend=backend_of(config))
        self.skipped: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.repository_failures: Counter[str] = Counter()
        self.docker_failures: Counter[str] = Counter()
        self.recoveries = 0
        self.phases: dict[str, Histogram] = {}
        self.lock_wait = Histogram()
        self.config_error = ""
        self._said: dict[str, str] = {}

    @property
    def ready(self) -> bool:
        """The state is seeded and the first list of containers done."""
        return self.seeded and self.found is not None

    @property
    def unready(self) -> str:
        """Why it is not ready; empty if it is."""
        if not self.seeded:
            why = self.repository.trouble or "it is being read"
            return f"the history is not yet rebuilt from the repository: {why}"
        return "" if self.found is not None else "Docker's containers are not listed yet"

    @property
    def held(self) -> str:
        """Why no run may begin just now, as a sentence for people; empty if one may."""
        if not self.connected:
            return "Docker does not answer"
        return "the repository does not answer" if self.breaker.open else ""

    def changed(self) -> None:
        """Something that is shown is different now."""
        self.show.ring()

    def say_once(self, about: str, error: KopiwatchError) -> None:
        """Say a trouble when it begins or becomes another one, not each time it is met."""
        if self._said.get(about) != error.message:
            self._said[about] = error.message
            self.listener.say(about, error.message, hint=error.hint, level="error")

    def said_well(self, about: str, message: str = "") -> None:
        """That trouble is over; said if there was one."""
        if self._said.pop(about, None) is not None and message:
            self.listener.say(about, message)

    def tell(self, result: RunResult) -> None:
        """One line per run."""
        self.listener.say(
            "run",
            summary(result),
            unit=result.unit,
            run=result.run,
            verdict=result.verdict,
            reason=result.reason,
            hint=result.hint,
            level=level_of(result),
        )
        for warning in result.warnings:
            self.listener.say(
                "warning", f"{result.unit}: {warning}", unit=result.unit, level="warning"
            )

    def observe(self, result: RunResult) -> None:
        """Count a run that ended."""
        if result.verdict == "skipped":
            self.skipped[result.reason] += 1
        elif result.verdict != "success":
            self.failures[result.failed_in or "check"] += 1
        if result.keep_failed:
            self.repository_failures["keep"] += 1
            failures = dict(self.repository_failures)
            self.repository = msgspec.structs.replace(self.repository, failures=failures)
        for time in result.phases:
            before = self.phases.get(time.phase, Histogram())
            self.phases[time.phase] = before.observed(time.seconds)

    def waited(self, seconds: float) -> None:
        """A run waited for the run lock."""
        self.lock_wait = self.lock_wait.observed(seconds)

    def more_points(self, result: RunResult) -> None:
        """A success is a restore point more; the next probe counts them anew."""
        if self.holdings is None or result.data_at is None:
            return
        before = self.holdings.get(result.unit, Holdings(0, result.data_at))
        after = msgspec.structs.replace(before, count=before.count + 1)
        self.holdings = self.holdings | {result.unit: after}

    async def probed(self, found: Found) -> None:
        """Take over what a probe of the repository found."""
        error = found.error
        self.kopia_version = found.kopia or self.kopia_version
        if error is None:
            self.said_well("repository", "the repository answers again")
            self.holdings = found.holdings
            self.breaker.answered()
            await self._seed(found)
        else:
            self.repository_failures["probe"] += 1
            self.say_once("repository", error)
            if isinstance(error, (RepositoryNotFound, NotConnected)):
                self.seeded = True  # nothing there to be read
        self.repository = RepositoryBoard(
            backend=backend_of(self.config),
            up=error is None or isinstance(error, RepositoryFull),
            trouble=error.message if error else "",
            last_check=found.at,
            check_seconds=found.seconds,
            failures=dict(self.repository_failures),
            breaker=self.breaker.open,
        )
        self.changed()
        self.plan.ring()

    async def _seed(self, found: Found) -> None:
        """Once in a life: a new, lost or poor history learns from the repository what there is."""
        if self._merged and not self.ledger.poor:
            return
        try:
            done = await self.ledger.rebuild(found.runs)
        except HistoryError as error:
            self.say_once("history", error)
            return
        self._merged = True
        self.seeded = True
        if done.added:
            self.listener.say(
                "rebuilt",
                f"the history learned of {counted(done.added, 'run')} from the repository",
            )
