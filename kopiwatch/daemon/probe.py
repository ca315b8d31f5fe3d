"""Looks whether the repository is there and ours, and what it holds of our units."""

from __future__ import annotations

from datetime import datetime

import msgspec

from kopiwatch import wiring
from kopiwatch.clock import Clock
from kopiwatch.config import Config
from kopiwatch.errors import ConfigError, KopiwatchError
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.kopia.space import require_space
from kopiwatch.report.history_record import RebuiltRun
from kopiwatch.restore.point import Point, points


class Holdings(msgspec.Struct, frozen=True):
    """The complete restore points of a unit: how many, and how old the oldest is (UTC)."""

    count: int
    oldest: datetime


class Found(msgspec.Struct, frozen=True):
    """What a probe found. ``error`` is None if the repository is there and ours.

    ``kopia`` is Kopia's version, empty if it could not be asked.
    """

    at: datetime
    seconds: float
    error: KopiwatchError | None = None
    kopia: str = ""
    points: tuple[Point, ...] = ()

    @property
    def holdings(self) -> dict[str, Holdings]:
        """The complete points by unit."""
        found: dict[str, Holdings] = {}
        for point in self.points:
            if point.complete:
                before = found.get(point.unit)
                oldest = min(point.at, before.oldest) if before else point.at
                found[point.unit] = Holdings((before.count if before else 0) + 1, oldest)
        return found

    @property
    def runs(self) -> tuple[RebuiltRun, ...]:
        """The points as the runs that made them, for a history that lost them."""
        # What is not judged yet may be alive.
        judged = (point for point in self.points if point.run and point.state != "unfinished")
        return tuple(rebuilt(point) for point in judged)


def rebuilt(point: Point) -> RebuiltRun:
    """What a restore point tells of its run."""
    return RebuiltRun(
        run=point.run,
        unit=point.unit,
        at=point.at,
        verdict="partial" if point.accepted else "success" if point.complete else "failed",
        reason=point.accepted or point.reason,
        snapshot=point.snapshot,
        size=point.size,
        files=point.files,
        mode=point.mode,
        instance=point.instance,
        accepted=bool(point.accepted),
    )


async def probe(config: Config, clock: Clock) -> Found:
    """Open the repository for real, compare its id, and list our points.

    Never raises an error of the repository: that is what was to be found out.
    """
    began, start = clock.now(), clock.seconds()
    error: KopiwatchError | None = None
    mine: tuple[Point, ...] = ()
    kopia = ""
    try:
        repository = await wiring.reading(config, "run: probe")
        kopia = await repository.kopia.version()
        status = await repository.status()
        snapshots = await repository.snapshots()
        unfinished = await wiring.unfinished(config)
        everything = points(snapshots, host=repository.host, unfinished=unfinished)
        mine = tuple(point for point in everything if point.instance == config.instance)
        require_space(status)
    except KopiwatchError as caught:
        error = caught
    return Found(began, clock.seconds() - start, error, kopia, mine)


def backend_of(config: Config) -> str:
    """The kind of the configured repository; empty where its address is not understood."""
    try:
        return parse_repository(config.repository).identity.type
    except ConfigError:
        return ""
