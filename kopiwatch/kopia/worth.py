"""What a manifest is worth: whether it is a restore point to rely on. Pure."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

from kopiwatch.kopia.record import Snapshot

State = Literal["complete", "incomplete", "bad", "unfinished", "foreign"]
"""``complete`` for a success, ``bad`` for a run that was none, ``incomplete`` when Kopia itself
calls the manifest so, ``unfinished`` while the verdict of its run is not known, and ``foreign`` for
a manifest that no kopiwatch run made."""


def worth(snapshot: Snapshot, unfinished: Collection[str] = ()) -> tuple[State, str]:
    """The state of a manifest, and why it is not ``complete`` (empty if it is).

    ``unfinished`` are runs whose verdict is not durable yet.
    """
    if snapshot.incomplete:
        return "incomplete", snapshot.incomplete
    if snapshot.quarantine:
        return "bad", snapshot.quarantine
    if not snapshot.tag("run"):
        return "foreign", "not made by a run of kopiwatch"
    if snapshot.tag("run") in unfinished:
        return "unfinished", "its run has no verdict yet"
    return ("complete", "") if snapshot.complete else ("bad", "unreadable")
