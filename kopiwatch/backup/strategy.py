"""Which strategy a run takes, and why: a pure function from figures and probes.

The estimates are measured (Kopia 0.23.1, 2 cores; 20,000 files and 1 GiB, 1 % changed): Kopia
looks at a file in 10 µs and hashes a changed GiB in 3.3 s; a clone looks at a file in 6 µs, clones
a changed one in 50 µs, and 1 GiB with scattered changes in 40 ms.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from kopiwatch.units.setting import Strategy
from kopiwatch.words import seconds, size

Chosen = Literal["", "plain", "gate", "hot", "clone", "copy"]
"""What a run does. ``plain`` is a read without a window; empty: nothing is chosen yet."""

MIB = 1 << 20
GIB = 1 << 30
SMALL_BYTES = 32 * MIB
"""A written source up to this size is copied where it cannot be cloned."""
DEFAULT_RATE = 100e6
"""Bytes per second that are taken for the upload until one is on record: a local disk."""
GAIN_SECONDS = 0.3
"""By how much a window must become shorter for it to be worth more work outside of it."""
MEASURED_BYTES = 64 * MIB
MEASURED_SECONDS = 0.5

_LOOK = 10e-6
_HASH = 3.3 / GIB
_CLONE_LOOK = 6e-6
_CLONE_FILE = 50e-6
_CLONE_DIRTY = 40e-3 / GIB
_COPY = 0.2 / GIB


class SourceFacts(msgspec.Struct, frozen=True):
    """What is known of one source before the window.

    ``size`` and ``changed_size`` are bytes; ``changed`` ones are newer than the last run whose
    members were held, all of them if there was none. ``written`` says that some container mounts
    it writable.
    """

    path: str
    files: int = 0
    size: int = 0
    changed_files: int = 0
    changed_size: int = 0
    written: bool = True


class StageFacts(msgspec.Struct, frozen=True):
    """One place where a stage could be made, as probed by the worker.

    ``root`` is its place for the worker, ``name`` what people know it by. ``free`` and ``total``
    are bytes of its file system. ``refused`` says of each source that cannot be cloned into it why.
    """

    root: str
    name: str
    free: int
    total: int
    refused: dict[str, str] = msgspec.field(default_factory=dict)


class Choice(msgspec.Struct, frozen=True):
    """A strategy, the sentence that says why, and the stage's place where there is one.

    ``cloned`` and ``copied`` are the paths of the sources that go into the stage. A ``warning``
    says that it is less than what was asked for.
    """

    strategy: Chosen
    reason: str
    stage: str = ""
    cloned: tuple[str, ...] = ()
    copied: tuple[str, ...] = ()
    warning: str = ""


class Impossible(msgspec.Struct, frozen=True):
    """What a label asks for and the file system cannot do: which source, why, and the way out."""

    reason: str
    hint: str


def choose(
    label: Strategy,
    sources: Iterable[SourceFacts],
    stages: Iterable[StageFacts],
    *,
    held: bool,
    rate: float = DEFAULT_RATE,
) -> Choice | Impossible:
    """The strategy of one run.

    ``label`` is ``kopi.strategy``; ``held`` says whether anybody is stopped or frozen. ``rate`` is
    that of the upload, bytes per second. ``auto`` is never :class:`Impossible`.

    What the label asks for is done, or impossible where the file system cannot do it. Where merely
    room is missing, which may be there tomorrow, it is the gate with a warning. Without a window
    there is nothing to shorten: ``plain``, whatever the label says.
    """
    known, places = tuple(sources), tuple(stages)
    if not held:
        return Choice("plain", "nobody is held down, so there is no window to shorten")
    if label == "gate":
        return Choice("gate", "its label says so")
    if label == "hot":
        return Choice("hot", "its label says so")
    if label == "clone":
        return _labelled_clone(known, places)
    if label == "copy":
        return _labelled_copy(known, places)
    return _auto(known, places, rate)


def worth_a_clone(label: Strategy, sources: Iterable[SourceFacts], rate: float) -> bool:
    """Whether it matters which stages there are."""
    if label == "auto":
        known = tuple(sources)
        return gate_seconds(known, rate) - clone_seconds(known) > GAIN_SECONDS
    return label in ("clone", "copy")


def gate_seconds(sources: Iterable[SourceFacts], rate: float) -> float:
    """How long Kopia reads in the window of a gate, in seconds."""
    return hot_seconds(sources := tuple(sources)) + changed_bytes(sources) / rate


def hot_seconds(sources: Iterable[SourceFacts]) -> float:
    """The same where the content is in the repository already: it is hashed again, not sent."""
    return sum(_LOOK * each.files + _HASH * each.changed_size for each in sources)


def clone_seconds(sources: Iterable[SourceFacts]) -> float:
    """How long the second pass of a clone takes in the window, at most."""
    return sum(
        _CLONE_LOOK * each.files
        + _CLONE_FILE * each.changed_files
        + _CLONE_DIRTY * each.changed_size
        for each in sources
        if each.written
    )


def copy_seconds(sources: Iterable[SourceFacts]) -> float:
    """The same for a copy."""
    written = [each for each in sources if each.written]
    return clone_seconds(written) + sum(_COPY * each.changed_size for each in written)


def changed_bytes(sources: Iterable[SourceFacts]) -> int:
    """Bytes that were not there, or were others, in the last run."""
    return sum(each.changed_size for each in sources)


def measured_rate(sources: Iterable[SourceFacts], taken: float) -> float:
    """Bytes per second of an upload that took so many seconds with its hashing; 0 if unknown.

    Where little had changed, or hashing alone explains the time, nothing is known.
    """
    known = tuple(sources)
    upload = taken - hot_seconds(known)
    if changed_bytes(known) < MEASURED_BYTES or upload < MEASURED_SECONDS:
        return 0.0
    return changed_bytes(known) / upload


def spare_bytes(stage: StageFacts, changed: int) -> int:
    """What must be free for ``auto``: who rewrites a file that is cloned needs room for both."""
    return max(stage.total // 10, 2 * GIB, 2 * changed)


def _auto(sources: tuple[SourceFacts, ...], stages: tuple[StageFacts, ...], rate: float) -> Choice:
    changed = _changed_written(sources)
    able = [stage for stage in stages if not _stuck(sources, stage)]
    roomy = [stage for stage in able if stage.free >= spare_bytes(stage, changed)]
    at_gate, cloned = gate_seconds(sources, rate), clone_seconds(sources)
    gain = at_gate - cloned > GAIN_SECONDS
    if roomy and gain:
        why = f"about {seconds(cloned)} in the window instead of {seconds(at_gate)}"
        return _staged("clone", sources, roomy[0], why)
    if not gain:
        but = ""
    elif able:
        needed = size(spare_bytes(able[0], changed))
        but = f"; no clone: {size(able[0].free)} are free on {able[0].name}, {needed} are wanted"
    elif stages:
        path, why = next(iter(_stuck(sources, stages[0]).items()))
        but = f"; no clone: {path} cannot be cloned ({why})"
    else:
        but = "; no clone: there is no place for one"
    upload = changed_bytes(sources) / rate
    if upload > GAIN_SECONDS:
        moved = f"{size(changed_bytes(sources))} changed, about {seconds(upload)} of upload"
        return Choice("hot", f"{moved}{but}")
    return Choice("gate", f"about {seconds(at_gate)} of reading in the window{but}")


def _labelled_clone(
    sources: tuple[SourceFacts, ...], stages: tuple[StageFacts, ...]
) -> Choice | Impossible:
    able = [stage for stage in stages if not _stuck(sources, stage)]
    if not able:
        return _no_stage(sources, stages)
    needed = 2 * _changed_written(sources)
    roomy = [stage for stage in able if stage.free >= needed]
    if roomy:
        return _staged("clone", sources, roomy[0], "its label says so")
    return _no_room("clone", able[0], needed)


def _labelled_copy(
    sources: tuple[SourceFacts, ...], stages: tuple[StageFacts, ...]
) -> Choice | Impossible:
    if not stages:
        return _no_stage(sources, stages)
    needed = sum(each.size for each in sources if each.written) * 6 // 5
    roomy = [stage for stage in stages if stage.free >= needed]
    if not roomy:
        return _no_room("copy", stages[0], needed)
    return Choice(
        "copy",
        "its label says so",
        stage=roomy[0].root,
        copied=tuple(each.path for each in sources if each.written),
    )


def _staged(
    strategy: Chosen, sources: tuple[SourceFacts, ...], stage: StageFacts, reason: str
) -> Choice:
    written = [each.path for each in sources if each.written]
    return Choice(
        strategy,
        reason,
        stage=stage.root,
        cloned=tuple(path for path in written if path not in stage.refused),
        copied=tuple(path for path in written if path in stage.refused),
    )


def _stuck(sources: tuple[SourceFacts, ...], stage: StageFacts) -> dict[str, str]:
    """The written sources that can neither be cloned into a stage nor are small, and why."""
    large = [each.path for each in sources if each.written and each.size > SMALL_BYTES]
    return {path: stage.refused[path] for path in large if path in stage.refused}


def _changed_written(sources: tuple[SourceFacts, ...]) -> int:
    return changed_bytes(each for each in sources if each.written)


def _no_stage(sources: tuple[SourceFacts, ...], stages: tuple[StageFacts, ...]) -> Impossible:
    if not stages:
        return Impossible("there is no place for a stage", "see the warnings of this run")
    stage = stages[-1]
    path, why = next(iter(_stuck(sources, stage).items()))
    return Impossible(
        f"{path} cannot be cloned into {stage.name}: {why}",
        "name a folder on the same file system in KOPIWATCH_STAGE_PATHS (it must know reflinks: "
        "xfs or btrfs), or use kopi.strategy=auto",
    )


def _no_room(strategy: Chosen, stage: StageFacts, needed: int) -> Choice:
    reason = (
        f"no room for a {strategy}: {size(stage.free)} are free on {stage.name}, "
        f"{size(needed)} are needed"
    )
    return Choice("gate", reason, warning=f"{reason}; the gate was used instead")
