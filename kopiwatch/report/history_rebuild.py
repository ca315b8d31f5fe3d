"""Merging what the repository's restore points tell into a history."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from itertools import groupby

from kopiwatch.report.history_file import to_number
from kopiwatch.report.history_record import RebuildResult, RebuiltRun
from kopiwatch.report.history_write import accept


def by_unit(points: Iterable[RebuiltRun]) -> list[list[RebuiltRun]]:
    """The points of each unit, oldest first."""
    ordered = sorted(points, key=lambda p: (p.unit, p.at, p.run))
    return [list(group) for _, group in groupby(ordered, key=lambda p: p.unit)]


def summed(parts: Iterable[RebuildResult]) -> RebuildResult:
    """The results of several units as one."""
    everything = list(parts)
    return RebuildResult(
        added=sum(part.added for part in everything),
        completed=sum(part.completed for part in everything),
        known=sum(part.known for part in everything),
        units=tuple(unit for part in everything for unit in part.units),
        differing=tuple(run for part in everything for run in part.differing),
    )


def merge(db: sqlite3.Connection, points: Sequence[RebuiltRun]) -> RebuildResult:
    """The points of one unit, oldest first; what the history saw itself stands.

    A run that it saw begin and not end is completed from its point. A run that is open is left
    alone: it may be alive.
    """
    unit, first = points[0].unit, to_number(points[0].at)
    row = db.execute("SELECT life, first_seen FROM units WHERE unit = ?", (unit,)).fetchone()
    if row is None:
        db.execute("INSERT INTO units (unit, first_seen) VALUES (?, ?)", (unit, first))
        life, since = 0, first
    else:
        life, since = row["life"], row["first_seen"]
        if life == 0:
            since = min(since, first)
            db.execute("UPDATE units SET first_seen = ? WHERE unit = ?", (since, unit))
    added = completed = known = 0
    differing = []
    for point in points:
        own = db.execute(
            "SELECT r.id, r.verdict, r.rebuilt, d.id AS result FROM runs r"
            " LEFT JOIN documents d ON d.id = r.id WHERE run = ?",
            (point.run,),
        ).fetchone()
        if own is None:
            # What is older than this life of a unit that was forgotten belongs to the one before.
            _add(db, point, life if life == 0 or to_number(point.at) >= since else life - 1)
            added += 1
            _accept(db, point)
        elif own["result"] is None and own["verdict"] != "running" and not own["rebuilt"]:
            _complete(db, own["id"], point)
            completed += 1
            _accept(db, point)
        else:
            known += 1
            if own["rebuilt"]:
                _complete(db, own["id"], point)  # the repository's word, as it is today
            _accept(db, point)
            if own["result"] and (own["verdict"] == "success") != (point.verdict == "success"):
                differing.append(point.run)
    if added:
        for one in {life, max(0, life - 1)}:
            put_in_order(db, unit, one)
    return RebuildResult(added, completed, known, (unit,) if row is None else (), tuple(differing))


def mark(db: sqlite3.Connection) -> None:
    """The repository was read: whatever it knew is known here."""
    db.execute("DELETE FROM seeded")
    db.execute("INSERT INTO seeded VALUES (1)")


def _add(db: sqlite3.Connection, point: RebuiltRun, life: int) -> None:
    at = to_number(point.at)
    db.execute(
        "INSERT INTO runs (run, unit, life, seq, verdict, began, ended, data_at, reason, snapshot,"
        " size, files, mode, instance, rebuilt)"
        " VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1)",
        (
            point.run,
            point.unit,
            life,
            point.verdict,
            at,
            at,
            at if point.good else None,
            point.reason,
            point.snapshot,
            point.size,
            point.files,
            point.mode,
            point.instance,
        ),
    )


def _complete(db: sqlite3.Connection, identity: int, point: RebuiltRun) -> None:
    db.execute(
        "UPDATE runs SET verdict = ?, reason = ?, message = '', data_at = ?, snapshot = ?,"
        " size = ?, files = ?, mode = ?, instance = ?, rebuilt = 1 WHERE id = ?",
        (
            point.verdict,
            point.reason,
            to_number(point.at) if point.good else None,
            point.snapshot,
            point.size,
            point.files,
            point.mode,
            point.instance,
            identity,
        ),
    )


def _accept(db: sqlite3.Connection, point: RebuiltRun) -> None:
    """The repository says that it was accepted; by whom and when it does not know."""
    if point.accepted:
        accept(db, run=point.run, snapshot=point.snapshot, data_at=point.at)


def put_in_order(db: sqlite3.Connection, unit: str, life: int) -> None:
    """Give the added runs (their place is 0) places by their time among those recorded before.

    The order of those does not change: it is the order of recording, whatever the clock said.
    """
    rows = db.execute(
        "SELECT id, seq, coalesce(data_at, began) AS at FROM runs"
        " WHERE unit = ? AND life = ? AND seq IS NOT NULL",
        (unit, life),
    ).fetchall()
    added = sorted((row for row in rows if row["seq"] == 0), key=lambda row: (row["at"], row["id"]))
    ordered: list[sqlite3.Row] = []
    place = 0
    for row in sorted((row for row in rows if row["seq"]), key=lambda row: int(row["seq"])):
        while place < len(added) and added[place]["at"] < row["at"]:
            ordered.append(added[place])
            place += 1
        ordered.append(row)
    ordered += added[place:]
    db.executemany(
        "UPDATE runs SET seq = ? WHERE id = ?",
        ((seq, row["id"]) for seq, row in enumerate(ordered, 1) if row["seq"] != seq),
    )
