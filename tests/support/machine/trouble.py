"""What may go wrong while a process works: values that say when, where and how."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Port = Literal["docker", "kopia", "worker", "disk"]

ENGINE_FAULTS = ("refused", "unreachable", "gone", "lost", "slow")
"""Not done; Docker away for some seconds; somebody removed it first; done, answer lost; late."""
STOP_FAULTS = (*ENGINE_FAULTS, "cut")
"""``cut``: the call breaks at once, and Docker carries the stop out later."""
REPOSITORY_FAULTS = ("refused", "unreachable", "lost", "slow")
WORKER_FAULTS: dict[str, tuple[str, ...]] = {
    "start": ("dies", "mute", "hangs", "noise"),
    "set-up": ("dies", "mute", "hangs", "noise", "error", "late"),
    "launch": ("dies", "mute", "hangs", "noise", "error", "late", "exit-1", "exit-0", "ungated"),
    "go": ("dies", "mute", "hangs", "noise", "error", "late", "exit-1", "exit-0"),
    "flush": (
        *("dies", "mute", "hangs", "noise", "error", "late", "exit-1", "exit-0"),
        *("stored-dies", "stored-mute", "stored-exit-1", "unstored", "incomplete"),
        *("missing-source", "unreadable"),
    ),
    "kill": ("dies", "mute", "hangs", "noise"),
}
DISK_FAULTS = ("file", "folder", "unlink")
"""A file is not written; it is, but the fsync of its folder fails; it cannot be removed."""


@dataclass(frozen=True)
class Moment:
    """The ``turn``-th turn of the process's loop since a phase began: any await can be met so.

    A phase that takes fewer turns ends with it.
    """

    phase: str
    turn: int


@dataclass(frozen=True)
class Fault:
    """The ``nth`` call of ``what`` (``*``: of anything) at one port goes wrong, ``times`` times."""

    port: Port
    what: str
    nth: int
    how: str
    times: int = 1


@dataclass(frozen=True)
class Happening:
    """Somebody, or Docker, does something to a slot (an index, taken modulo their number)."""

    at: Moment
    what: str
    slot: int


@dataclass(frozen=True)
class Death:
    """The process vanishes; its worker hears of it after ``linger`` seconds.

    ``torn``: in the middle of writing a file beside the journals.
    """

    at: Moment
    linger: float
    torn: bool = False


@dataclass(frozen=True)
class Trouble:
    """All that goes wrong in the life of one process."""

    faults: tuple[Fault, ...] = ()
    happenings: tuple[Happening, ...] = ()
    death: Death | None = None
    signal: Moment | None = None


class Course:
    """The trouble of one process as it unfolds. ``fired`` counts what came to pass, by kind."""

    def __init__(self, trouble: Trouble) -> None:
        self.trouble = trouble
        self.fired: Counter[str] = Counter()
        self.phase = ""
        self._turn = 0
        self._past: set[str] = set()
        self._done: set[str] = set()
        self._calls: Counter[tuple[str, str]] = Counter()
        self._left = list(trouble.happenings)

    def begin(self, phase: str) -> None:
        self._past.add(self.phase)
        self.phase, self._turn = phase, 0

    def turn(self) -> tuple[list[Happening], bool, Death | None]:
        """One turn of the loop: what happens now, whether a signal comes, whether it dies."""
        self._turn += 1
        happening = [each for each in self._left if self._due(each.at)]
        for each in happening:
            self._left.remove(each)
            self.fired[f"somebody {each.what}"] += 1
        signal = self._once("signal", self.trouble.signal)
        death = self.trouble.death
        dies = death is not None and self._once("death", death.at)
        return happening, signal, death if dies else None

    def _due(self, at: Moment) -> bool:
        here = self.phase == at.phase and self._turn > at.turn
        return here or (at.phase in self._past and self.phase != at.phase)

    def _once(self, what: str, at: Moment | None) -> bool:
        if at is None or what in self._done or not self._due(at):
            return False
        self._done.add(what)
        self.fired[what] += 1
        return True

    def take(self, port: Port, what: str) -> str:
        """How this call goes wrong; empty when it does not."""
        self._calls[port, what] += 1
        self._calls[port, "*"] += 1
        for fault in self.trouble.faults:
            count = self._calls[port, fault.what]
            met = fault.port == port and fault.what in (what, "*")
            if met and fault.nth <= count < fault.nth + fault.times:
                self.fired[f"{port} {fault.how}"] += 1
                return fault.how
        return ""

    @property
    def clean(self) -> bool:
        """Nothing went wrong."""
        return not self.fired
