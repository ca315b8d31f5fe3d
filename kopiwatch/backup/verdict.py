"""Verdicts: what the stored tree holds is compared with what it must hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from kopiwatch.backup.plausible import IMPLAUSIBLE, sentence
from kopiwatch.backup.result import MemberResult, SourceResult, Verdict
from kopiwatch.kopia.record import Entry, Snapshot

HOOK = "hook"
"""The reason of a run whose hook failed."""


def judge_source(path: str, entry: Entry | None) -> SourceResult:
    """One source as it stands in the tree; ``entry`` None means that it is not there."""
    if entry is None:
        return SourceResult(path, reason="missing")
    if entry.type != "d":
        return SourceResult(path, size=entry.size, files=1)
    if entry.summ is None:
        return SourceResult(path, reason="unreadable")
    summary = entry.summ
    return SourceResult(
        path,
        size=summary.size,
        files=summary.files,
        failed=summary.num_failed,
        ignored=summary.num_ignored_errors,
        reason="unreadable" if summary.num_failed else "",
    )


def judge(
    snapshot: Snapshot,
    sources: Iterable[SourceResult],
    members: Iterable[MemberResult],
    interference: str = "",
    hooks: Iterable[str] = (),
) -> tuple[Verdict, str, str]:
    """The verdict of a run whose Kopia ended well: verdict, reason code, sentence.

    A manifest that is incomplete or has entries that could not be read is ``failed``; one in which
    an expected source is missing is ``partial``. Members that do not run, or are not healthy again,
    fail the run although its data is stored. ``interference`` says who may have written while it
    was read, empty for nobody. ``hooks`` says which post hooks failed. The sentence tells of every
    fault, the reason is that of the first; a source that is only implausible comes last, so that
    its reason means: all else was good.
    """
    if snapshot.incomplete:
        return (
            "failed",
            "incomplete",
            f"Kopia stored an incomplete snapshot ({snapshot.incomplete})",
        )
    stored = tuple(sources)
    faults = [
        *_lacking(source for source in stored if source.reason not in IMPLAUSIBLE),
        *_members(tuple(members)),
        *_tree(snapshot, stored),
        *([_Fault("interference", interference, fatal=False)] if interference else []),
        *_hooks(tuple(hooks)),
        *_implausible(source for source in stored if source.reason in IMPLAUSIBLE),
    ]
    if not faults:
        return "success", "", ""
    verdict: Verdict = "failed" if any(fault.fatal for fault in faults) else "partial"
    return verdict, faults[0].reason, "; ".join(fault.sentence for fault in faults)


class _Fault(NamedTuple):
    """One kind of fault: its reason code, what it says, and whether it makes the run ``failed``."""

    reason: str
    sentence: str
    fatal: bool


def _lacking(sources: Iterable[SourceResult]) -> Iterator[_Fault]:
    if bad := [source for source in sources if source.reason]:
        what = ", ".join(sentence(source) for source in bad)
        fatal = any(source.failed for source in bad)
        yield _Fault(f"source-{bad[0].reason}", f"the stored tree falls short: {what}", fatal)


def _members(members: Sequence[MemberResult]) -> Iterator[_Fault]:
    if down := [member for member in members if member.state == "failed"]:
        what = ", ".join(f"{member.name} ({member.detail})" for member in down)
        yield _Fault("start", f"not brought back: {what}", fatal=True)
    if gone := [member for member in members if member.state == "gone"]:
        what = ", ".join(member.name for member in gone)
        yield _Fault("member-gone", f"somebody removed {what} while it was down", fatal=False)
    back = (member for member in members if member.state not in ("failed", "gone"))
    if sick := [member for member in back if member.healthy is False]:
        what = ", ".join(f"{member.name} ({member.detail})" for member in sick)
        yield _Fault("health", f"runs again, but is not healthy: {what}", fatal=True)


def _tree(snapshot: Snapshot, sources: Iterable[SourceResult]) -> Iterator[_Fault]:
    """Errors that the tree as a whole counts, and that no source has told of."""
    summary = snapshot.root_entry.summ if snapshot.root_entry else None
    told = any(source.failed for source in sources)
    if summary is None or (summary.num_failed and not told):
        yield _Fault("unreadable", "entries of the tree could not be read", fatal=True)


def _hooks(sentences: Sequence[str]) -> Iterator[_Fault]:
    """Late in the order, so that the reason means: what was read is good."""
    if sentences:
        yield _Fault(HOOK, "; ".join(sentences), fatal=False)


def _implausible(sources: Iterable[SourceResult]) -> Iterator[_Fault]:
    if refused := list(sources):
        what = "; ".join(sentence(source) for source in refused)
        yield _Fault(f"source-{refused[0].reason}", what, fatal=False)


def remarks(sources: Iterable[SourceResult]) -> tuple[str, ...]:
    """What does not fail a run and still has to be seen: errors that the policy ignores."""
    return tuple(
        f"{source.path}: {source.ignored} {'entry' if source.ignored == 1 else 'entries'} could "
        "not be read and left out, as Kopia's policy says"
        for source in sources
        if source.ignored
    )
