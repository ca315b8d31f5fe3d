"""The state of everything at one moment: what the exporter and ``kopiwatch status`` show.

A board is a value. Whoever knows something new makes a new board; whoever shows it never asks back.
"""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

from kopiwatch.backup.result import Phase, Verdict

UnitState = Literal["scheduled", "unscheduled", "invalid", "missing"]
Trigger = Literal["schedule", "catch-up", "retry", "command"]


class LastRun(msgspec.Struct, frozen=True):
    """The newest attempt of a unit that ended. Times are UTC; lengths are seconds, sizes bytes.

    ``window`` is downtime. ``phases`` are the lengths of the phases that it went through.
    ``expected`` counts the sources that its recipe names, ``stored`` those that are good in the
    repository. ``fatal`` and ``ignored`` are Kopia's entry errors. ``accepted`` says that somebody
    took on record as good what the verdict refused, ``rebuilt`` that only the repository told of
    it: lengths and trigger are unknown then.
    """

    run: str
    verdict: Verdict
    began: datetime
    ended: datetime
    reason: str = ""
    message: str = ""
    trigger: Trigger = "command"
    window: float = 0.0
    phases: dict[Phase, float] = msgspec.field(default_factory=dict)
    size: int = 0
    files: int = 0
    fatal: int = 0
    ignored: int = 0
    expected: int = 0
    stored: int = 0
    accepted: bool = False
    rebuilt: bool = False

    @property
    def good(self) -> bool:
        """A success, or accepted since."""
        return self.verdict == "success" or self.accepted

    @property
    def seconds(self) -> float | None:
        """How long it took; None for a run that only the repository told of."""
        return None if self.rebuilt else (self.ended - self.began).total_seconds()


class Totals(msgspec.Struct, frozen=True):
    """What a unit's runs add up to since its history began; ``downtime`` is seconds."""

    runs: int = 0
    failures: int = 0
    downtime: float = 0.0


class UnitBoard(msgspec.Struct, frozen=True):
    """One unit. Times are UTC; None where there is none.

    ``last_success`` is the data's time of the newest complete restore point. ``deadline`` is the
    time after which it is too old, None where the unit has none; ``max_age`` is that as a label
    says it, in seconds. ``left_stopped`` names containers that we stopped and that do not run.
    ``points`` counts complete restore points, None while the repository was not asked.
    ``problems`` are sentences about broken labels; ``invalid_labels`` are (container, label) pairs.
    """

    unit: str
    state: UnitState
    kind: str = ""
    schedule: str = ""
    timezone: str = "UTC"
    mode: str = "stop"
    present: bool = True
    first_seen: datetime | None = None
    last_success: datetime | None = None
    deadline: datetime | None = None
    max_age: float | None = None
    next_run: datetime | None = None
    running: str = ""
    running_since: datetime | None = None
    queued: bool = False
    last_run: LastRun | None = None
    consecutive_failures: int = 0
    totals: Totals = Totals()
    left_stopped: tuple[str, ...] = ()
    points: int | None = None
    oldest_point: datetime | None = None
    problems: tuple[str, ...] = ()
    invalid_labels: tuple[tuple[str, str], ...] = ()
    warnings: tuple[str, ...] = ()

    def overdue(self, now: datetime) -> bool:
        """Its newest complete restore point is too old at ``now``."""
        return self.deadline is not None and now > self.deadline


class WatcherBoard(msgspec.Struct, frozen=True):
    """The connection to Docker's events.

    ``events`` counts them by action, ``resyncs`` the lists by reason, ``drift`` those of the
    regular lists that found what no event had told. ``trouble`` says why it is not connected.
    """

    connected: bool = False
    trouble: str = ""
    last_event: datetime | None = None
    last_resync: datetime | None = None
    events: dict[str, int] = msgspec.field(default_factory=dict)
    resyncs: dict[str, int] = msgspec.field(default_factory=dict)
    reconnects: int = 0
    drift: int = 0
    oversized: int = 0


class RepositoryBoard(msgspec.Struct, frozen=True):
    """The repository, as the last real probe found it. ``check_seconds`` is what that took.

    ``backend`` is its kind (``filesystem``). ``failures`` counts failed operations by name.
    ``breaker`` says that runs wait until a probe succeeds.
    """

    backend: str = ""
    up: bool | None = None
    trouble: str = ""
    last_check: datetime | None = None
    check_seconds: float | None = None
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    breaker: bool = False


class Queued(msgspec.Struct, frozen=True):
    """A run that waits for its turn. ``since`` is when it was queued."""

    unit: str
    due: datetime
    since: datetime
    trigger: Trigger
    priority: int = 100


BUCKETS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 21600.0)
"""Upper bounds in seconds of every histogram here: from a quick stop to a first backup."""


class Histogram(msgspec.Struct, frozen=True):
    """Observed lengths: how many fell into each of :data:`BUCKETS` and beyond, and their sum."""

    counts: tuple[int, ...] = (0,) * (len(BUCKETS) + 1)
    total: float = 0.0

    def observed(self, seconds: float) -> Histogram:
        """With one more."""
        place = sum(seconds > bound for bound in BUCKETS)
        counts = tuple(n + (i == place) for i, n in enumerate(self.counts))
        return Histogram(counts, self.total + seconds)


class Board(msgspec.Struct, frozen=True):
    """Everything at ``at``.

    ``ready`` says that the state is seeded and the first list of containers done. ``failures``
    counts failed runs of all units by the phase they failed in; ``skipped`` runs that did not
    happen, by reason. ``recoveries`` counts containers that were started again after a crash.
    ``lock_held`` says that a run or a restore holds the run lock, ours or another process's.
    ``last_tick`` is when the scheduler last looked at the clock.
    ``phase_seconds`` has each observed length of a phase since start, for the histogram: bounded by
    the buckets, so it holds counts per bucket and a sum (see :class:`Histogram`).
    """

    at: datetime
    ready: bool = False
    version: str = ""
    kopia_version: str = ""
    revision: str = ""
    units: tuple[UnitBoard, ...] = ()
    watcher: WatcherBoard = WatcherBoard()
    repository: RepositoryBoard = RepositoryBoard()
    queue: tuple[Queued, ...] = ()
    failures: dict[str, int] = msgspec.field(default_factory=dict)
    skipped: dict[str, int] = msgspec.field(default_factory=dict)
    docker_failures: dict[str, int] = msgspec.field(default_factory=dict)
    recoveries: int = 0
    lock_held: bool = False
    last_tick: datetime | None = None
    history_failures: int = 0
    history_error: str = ""
    config_error: str = ""
    phase_seconds: dict[str, Histogram] = msgspec.field(default_factory=dict)
    lock_wait: Histogram | None = None
