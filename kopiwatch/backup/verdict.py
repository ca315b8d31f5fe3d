"""Verdicts: what the stored tree holds is compared with what it must hold."""

from __future__ import annotations

from collections.abc import Iterable

from kopiwatch.backup.result import MemberResult, SourceResult, Verdict
from kopiwatch.kopia.record import Entry, Snapshot


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
    snapshot: Snapshot, sources: Iterable[SourceResult], members: Iterable[MemberResult]
) -> tuple[Verdict, str, str]:
    """The verdict of a run whose Kopia ended well: verdict, reason code, sentence.

    A manifest that is incomplete or has entries that could not be read is ``failed``; one in which
    an expected source is missing is ``partial``. Members that do not run, or are not healthy again,
    fail the run although its data is stored.
    """
    if snapshot.incomplete:
        return (
            "failed",
            "incomplete",
            f"Kopia stored an incomplete snapshot ({snapshot.incomplete})",
        )
    bad = [source for source in sources if source.reason]
    if bad:
        what = ", ".join(f"{source.path} is {source.reason}" for source in bad)
        verdict: Verdict = "failed" if any(s.failed for s in bad) else "partial"
        return verdict, f"source-{bad[0].reason}", f"the stored tree falls short: {what}"
    down = [member for member in members if member.state == "failed"]
    if down:
        what = ", ".join(f"{member.name} ({member.detail})" for member in down)
        return "failed", "start", f"not brought back: {what}"
    gone = [member for member in members if member.state == "gone"]
    if gone:
        what = ", ".join(member.name for member in gone)
        return "partial", "member-gone", f"somebody removed {what} while it was down"
    sick = [member for member in members if member.healthy is False]
    if sick:
        what = ", ".join(f"{member.name} ({member.detail})" for member in sick)
        return "failed", "health", f"runs again, but is not healthy: {what}"
    summary = snapshot.root_entry.summ if snapshot.root_entry else None
    if summary is None or summary.num_failed:
        return "failed", "unreadable", "entries of the tree could not be read"
    return "success", "", ""
