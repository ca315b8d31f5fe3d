"""The typed settings that labels, profiles, environment and defaults add up to."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal

import msgspec

Mode = Literal["stop", "pause", "live"]
Strategy = Literal["auto", "gate", "hot", "clone", "copy"]
Scope = Literal["minimal", "standard", "full"]


class MemberSettings(msgspec.Struct, frozen=True):
    """Settings of one member. ``stop_timeout`` None means the container's own.

    ``include`` and ``exclude`` hold volume names or mount destinations, globs allowed; an empty
    ``include`` means all volumes. ``binds`` holds destinations or globs; ``("*",)`` means all of
    them, ``()`` none. ``after`` names members (service or container) that start before this one.
    """

    mode: Mode = "stop"
    stop_timeout: timedelta | None = None
    start_timeout: timedelta = timedelta(minutes=5)
    after: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    binds: tuple[str, ...] = ()


class UnitSettings(msgspec.Struct, frozen=True):
    """Settings of the whole unit; they may stand on any member, and members must agree."""

    window_timeout: timedelta = timedelta(hours=1)
    strategy: Strategy = "auto"
    scope: Scope = "standard"
