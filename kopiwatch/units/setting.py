"""The typed settings that labels, profiles, environment and defaults add up to."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

from kopiwatch.units.dump import DumpSettings
from kopiwatch.units.retention import Retention
from kopiwatch.units.schedule import DEFAULT, Schedule
from kopiwatch.units.value import Hours

Mode = Literal["stop", "pause", "live"]
Strategy = Literal["auto", "gate", "hot", "clone", "copy"]
Scope = Literal["minimal", "standard", "full"]


class MemberSettings(msgspec.Struct, frozen=True):
    """Settings of one member. ``stop_timeout`` None means the container's own.

    ``include`` and ``exclude`` hold volume names or mount destinations, globs allowed; an empty
    ``include`` means all volumes. ``binds`` holds destinations or globs; ``("*",)`` means all of
    them, ``()`` none. ``after`` names members (service or container) that start before this one.
    ``dump`` is the dump of the database in it, None without one.
    """

    mode: Mode = "stop"
    stop_timeout: timedelta | None = None
    start_timeout: timedelta = timedelta(minutes=5)
    after: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()
    dump: DumpSettings | None = None


class UnitSettings(msgspec.Struct, frozen=True):
    """Settings of the whole unit; they may stand on any member, and members must agree.

    ``timezone`` is that of the schedule and of the days that retention counts. ``max_age`` None
    means that the schedule decides when the unit is overdue. ``catch_up``: whether a missed run is
    made up for, or in which hours. A lower ``priority`` goes first. ``collapse`` is a percentage of
    the last good size, under which a source is refused; None refuses none for its size.
    """

    schedule: Schedule = DEFAULT
    timezone: str = "UTC"
    max_age: timedelta | None = None
    catch_up: bool | Hours = True
    priority: int = 100
    window_timeout: timedelta = timedelta(hours=1)
    strategy: Strategy = "auto"
    scope: Scope = "standard"
    retention: Retention = Retention()
    collapse: int | None = 20
