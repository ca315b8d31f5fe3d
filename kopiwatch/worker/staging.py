"""The worker's side of a stage: a copy of the sources that Kopia can read after the window.

Orders (``do``), and what is said at their end (``say``, with a field ``result``). Paths are as the
worker sees them; times are in seconds, sizes in bytes.

``probe-stage`` ``{stages: [folder, …], sources: [{path}, …]}``
    Says ``probed``, one entry per stage: ``{stages: [{stage, writable, why, free, total, sources:
    [{path, clonable, why}, …]}, …]}``. ``clonable`` is the answer of a real FICLONE of a real file
    (a source without files is clonable); ``why`` is "" or the reason in words. ``writable`` is
    false for a folder that is missing, cannot be written, or holds files that are no stage's.

``pre-stage`` ``{stage, parts: [{source, target, how: "clone" | "copy"}, …], reserve}``
    Makes the whole copy while everything runs. ``target`` is relative to ``stage``; ``source`` is a
    folder or a single file. Once more with the same stage: only what has changed since (nothing but
    ``do`` need be given). Says ``pre-staged``: the figures below.

``stage`` ``{}``, or the fields of ``pre-stage`` where there was none
    In the window: what differs from the pre-pass is cloned or copied again, what is gone is
    deleted; times, modes and owners are exactly the source's. Says ``staged``: the figures below.

``unstage`` ``{stages: [folder, …]}``
    Deletes all that lies in those folders, but nothing that is mounted there, and the folders
    themselves stay. Also ends a ``pre-stage`` or ``stage`` that is under way. A folder that is
    missing is no error. Says ``unstaged``: ``{files, bytes, seconds}``.

Figures: ``{files, folders, links, bytes, fresh, fresh_bytes, deleted, vanished, seconds}``: how
many there are (``bytes`` of the files), how many files were cloned or copied by this very order
(``fresh``), how many entries were deleted from the stage, how many vanished under our hands.

While anything is staged, the free space of its file system is watched. Below ``reserve`` bytes the
stage is deleted at once, and a Kopia that reads from it (``go`` with ``"stage": true``, before
``read``) is killed first, which is said as ``exit``. Then ``dropped`` is said, unasked: ``{free,
reserve, killed, files, bytes, seconds}`` (``free`` as it was found). A ``pre-stage`` or ``stage``
that was under way, or comes later, answers with the error ``dropped``, and so does a ``go`` with
``"stage": true``: Kopia stays at its gate. ``unstage`` ends this state.

A worker that writes stages needs CAP_DAC_OVERRIDE, CAP_CHOWN, CAP_FOWNER, and CAP_FSETID, without
which a set group id bit would be lost (that is an error then). A mount inside a stage is neither
entered nor deleted, and no part may lie on or below one. A worker that leaves deletes its stage.

Errors (``reason``, ``text`` in words): ``no-space``; ``no-clone`` (this source cannot be cloned
into this stage); ``stage`` (the folder is missing, not writable, or no stage); ``unreadable`` (a
source cannot be read); ``dropped``; ``stuck``; ``system``. After each of them the live path is as
good as before: nothing is ever written to a source.
"""

from __future__ import annotations

import functools
import math
import selectors
import time

from kopiwatch.worker.child import STUCK, Servant
from kopiwatch.worker.space import watch
from kopiwatch.worker.speech import Refused, say
from kopiwatch.worker.stage import serve
from kopiwatch.worker.sweep import sweep

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

SAYS = {"pre-stage": "pre-staged", "stage": "staged"}
LIMIT_SECONDS = {"pre-stage": 6 * 3600.0, "stage": 3600.0}
KILLED_SECONDS = 0.5
LEAVE_SECONDS = 8.0
"""Docker kills a container 10 s after it was asked to stop."""


class Staging:
    """The stage of a worker: who makes it, and who watches the space that it takes.

    ``stop_reader`` kills a Kopia that reads from the stage, and says whether there was one; it may
    be dying still, but stores nothing any more. ``lock`` is the descriptor that no child may keep.
    """

    def __init__(
        self,
        selector: selectors.BaseSelector,
        lock: Callable[[], int],
        stop_reader: Callable[[], bool],
    ) -> None:
        self.give_up_at = math.inf
        self._selector = selector
        self._lock = lock
        self._stop_reader = stop_reader
        self._maker: Servant | None = None
        self._watcher: Servant | None = None
        self._doing = ""
        self._reserve = 0
        self._low: dict[str, Any] | None = None

    def require(self) -> None:
        """Refuse where the stage was dropped: what is left of it is cut, or about to be."""
        if self._low is not None:
            raise self._dropped()

    def make(self, order: dict[str, Any]) -> None:
        """Carry out ``pre-stage`` or ``stage``; the end is said."""
        self.require()
        if self._doing:
            raise Refused("protocol", f"a {self._doing} is under way")
        if "parts" in order:
            self.end()
            self._begin(order["stage"], order["reserve"])
        if self._maker is None:
            raise Refused("protocol", "there is no stage")
        self._doing = order["do"]
        self.give_up_at = time.monotonic() + LIMIT_SECONDS[self._doing]
        self._maker.ask(order)

    def _begin(self, stage: str, reserve: int) -> None:
        self._reserve = reserve
        self._maker = Servant(serve, [self._lock()])
        self._selector.register(self._maker, selectors.EVENT_READ, self._on_maker)
        siblings = [self._lock(), *self._maker.handles()]
        self._watcher = Servant(functools.partial(watch, stage, reserve), siblings)
        self._selector.register(self._watcher, selectors.EVENT_READ, self._on_watcher)

    def _on_maker(self, maker: Servant) -> None:
        """Say what came of an order."""
        answers = maker.hear()
        word, self._doing, self.give_up_at = SAYS.get(self._doing, ""), "", math.inf
        if answers is None:
            self._end_maker()
            say("error", reason="system", text="the process that held the stage died")
            return
        for answer in answers:
            if "reason" in answer:
                say("error", **answer)
            else:
                say(word, **answer)

    def _on_watcher(self, watcher: Servant) -> None:
        """Drop the stage when space is low, and say so once it is gone."""
        answers = watcher.hear()
        if answers is None:
            answers = [] if self._low is not None else [{"low": 0}]
            self._end_watcher()
        for answer in answers:
            if "low" in answer:
                self._drop(answer["low"])
            elif self._low is not None:
                say("dropped", result={**self._low, **answer.get("swept", answer)})

    def _drop(self, free: int) -> None:
        """Nobody reads from it, nobody writes to it, then it is deleted."""
        killed = self._stop_reader()
        self._low = {"free": free, "reserve": self._reserve, "killed": killed}
        doing = self._doing
        self._end_maker()
        if self._watcher is not None:
            self._watcher.ask({"do": "drop"})
        if doing:
            refusal = self._dropped()
            say("error", reason=refusal.reason, text=refusal.text)

    def _dropped(self) -> Refused:
        free, reserve = (self._low or {}).get("free"), self._reserve
        return Refused(
            "dropped", f"the stage was deleted: {free} bytes were free, {reserve} must stay so"
        )

    def look_at_clock(self) -> None:
        """Give up what takes too long."""
        if self.give_up_at <= time.monotonic():
            doing = self._doing
            self._end_maker()
            say("error", reason="stuck", text=f"the {doing} did not end in time: {STUCK}")

    def leave_off(self) -> None:
        """End what is under way; what is staged stays, and is watched."""
        if self._doing:
            self._end_maker()

    def end(self) -> None:
        """Nobody holds or watches the stage any more, and it may be deleted."""
        self._end_maker()
        self._end_watcher()
        self._low = None

    def leave(self) -> None:
        """Delete the stage: the worker ends, and who gave it orders may be gone."""
        self._end_maker()
        if self._watcher is not None:
            self._watcher.ask({"do": "drop"})
            self._watcher.ended(LEAVE_SECONDS)
            self._end_watcher()

    def _end_maker(self) -> None:
        self._doing, self.give_up_at = "", math.inf
        if self._maker is not None:
            self._selector.unregister(self._maker)
            self._maker.kill(KILLED_SECONDS)
            self._maker = None

    def _end_watcher(self) -> None:
        if self._watcher is not None:
            self._selector.unregister(self._watcher)
            self._watcher.kill(KILLED_SECONDS)
            self._watcher = None


def sweep_all(stages: list[str]) -> dict[str, float]:
    """Delete what lies in several stages; the figures of all. Raises Refused."""
    swept = [sweep(stage) for stage in stages]
    return {name: sum(each[name] for each in swept) for name in ("files", "bytes", "seconds")}
