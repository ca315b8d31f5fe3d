"""How a run ended: phases, window, sources, members, verdict."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

Verdict = Literal["success", "partial", "failed", "skipped"]
Phase = Literal[
    "wait",
    "check",
    "dumps",
    "hot",
    "ready",
    "hooks-pre",
    "stop",
    "read",
    "start",
    "health",
    "hooks-post",
    "flush",
    "verify",
    "keep",
    "report",
]
MemberState = Literal["started", "ran-already", "taken-over", "gone", "failed"]


IN_WINDOW: tuple[Phase, ...] = ("stop", "read", "start")
"""The phases from the first stop to the last start."""
AFTER_WINDOW: tuple[Phase, ...] = (
    "health",
    "hooks-post",
    "flush",
    "verify",
    "keep",
    "report",
)
"""The phases in which every member has been started again."""


class PhaseTime(msgspec.Struct, frozen=True):
    """When a phase began (UTC), and how long it took in seconds."""

    phase: Phase
    began: datetime
    seconds: float


class SourceResult(msgspec.Struct, frozen=True):
    """What the stored tree holds of one source: bytes, files, entries that could not be read.

    ``reason`` is empty when the source is good; ``missing`` when it is not in the tree, and
    ``unreadable`` when entries failed. ``empty``, ``collapsed`` and ``vanished`` are refused beside
    the last good restore point, whose figures are ``size_before`` and ``files_before``.
    """

    path: str
    size: int = 0
    files: int = 0
    failed: int = 0
    ignored: int = 0
    reason: str = ""
    size_before: int | None = None
    files_before: int | None = None


class MemberResult(msgspec.Struct, frozen=True):
    """How a member came back. ``healthy`` is None where it has no health check to pass."""

    name: str
    state: MemberState
    healthy: bool | None = None
    detail: str = ""


HookName = Literal["pre", "post", "before_run", "after_run", "before_restore", "after_restore"]


class HookResult(msgspec.Struct, frozen=True):
    """How a hook ended.

    ``target`` is the container that it ran in, or the program on kopiwatch's own side. ``reason``
    is empty when it exited 0, else ``failed``, ``timeout``, ``cancelled`` or ``not-run``;
    ``detail`` says it in words, ``hint`` what to do. ``exit_code`` is None where there is none.
    ``output`` is the end of what it printed, both streams, with kopiwatch's own secrets masked.
    ``tolerated`` says that its failure is only a warning. ``began`` is UTC.
    """

    hook: HookName
    target: str
    began: datetime
    seconds: float = 0.0
    exit_code: int | None = None
    reason: str = ""
    detail: str = ""
    hint: str = ""
    output: str = ""
    tolerated: bool = False

    @property
    def sentence(self) -> str:
        """What went wrong."""
        what = "hook in" if self.hook in ("pre", "post") else "hook"
        return f"the {self.hook} {what} {self.target} {self.detail}"


class RunResult(msgspec.Struct, frozen=True):
    """One attempt to back up one unit.

    ``reason`` is a stable code, empty for a success; ``message`` is the sentence for people, and
    ``hint`` what to do. ``window`` is downtime in seconds, 0 when nobody was stopped. ``snapshot``
    is the manifest's id, empty when there is none, and ``data_at`` when its reading began (UTC):
    how old the data in it is. ``broke_in`` is the phase that ended with an error, if one did.
    ``deleted`` counts the manifests that retention let go afterwards; ``keep_failed`` says that it
    could not, which is no part of the verdict. ``hooks`` are in the order in which they ran.
    ``strategy`` is how the window was kept short
    (``plain``, ``gate``, ``hot``, ``clone``, ``copy``; empty when it came to no choice) and
    ``strategy_reason`` why, as a sentence. ``upload_rate`` is bytes per second, 0 where the run
    had too little to upload to tell.
    """

    run: str
    unit: str
    verdict: Verdict
    began: datetime
    ended: datetime
    reason: str = ""
    message: str = ""
    hint: str = ""
    tail: str = ""
    snapshot: str = ""
    window: float = 0.0
    phases: tuple[PhaseTime, ...] = ()
    sources: tuple[SourceResult, ...] = ()
    members: tuple[MemberResult, ...] = ()
    warnings: tuple[str, ...] = ()
    exit_code: int = 0
    data_at: datetime | None = None
    broke_in: Phase | None = None
    deleted: int = 0
    keep_failed: bool = False
    hooks: tuple[HookResult, ...] = ()
    strategy: str = ""
    strategy_reason: str = ""
    upload_rate: float = 0.0

    @property
    def before_window(self) -> bool:
        """It ended before anybody was stopped, so trying again costs no downtime."""
        return not any(time.phase in IN_WINDOW for time in self.phases)

    @property
    def failed_in(self) -> Phase | None:
        """The phase that ended with an error, else the last one before the report."""
        if self.broke_in is not None:
            return self.broke_in
        reached = [time.phase for time in self.phases if time.phase != "report"]
        return reached[-1] if reached else None

    @property
    def size(self) -> int:
        """Bytes of all sources."""
        return sum(source.size for source in self.sources)

    @property
    def files(self) -> int:
        """Files of all sources."""
        return sum(source.files for source in self.sources)
