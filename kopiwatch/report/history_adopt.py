"""Carrying the record of one unit over to another name."""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from datetime import datetime

from kopiwatch.report.history_file import to_number
from kopiwatch.report.history_rebuild import put_in_order


def adopt(
    db: sqlite3.Connection, old: str, new: str, *, snapshots: Mapping[str, str], now: datetime
) -> int:
    """Give everything that is on record of ``old`` to ``new``; returns how many runs that were.

    The runs of the life that ``old`` leads stand among those of ``new``'s own life by their time;
    those of former lives stay apart. ``new`` was first seen when ``old`` was, and ``old`` is
    forgotten. ``snapshots`` has the ids that the manifests have now, by run. Again: nothing.
    """
    for run, snapshot in snapshots.items():
        db.execute("UPDATE runs SET snapshot = ? WHERE run = ?", (snapshot, run))
    mine = db.execute("SELECT * FROM units WHERE unit = ?", (old,)).fetchone()
    if mine is None:
        return 0
    life = _receive(db, mine, new)
    # Before the first life of ``new``: apart from each other and from whatever it did itself.
    db.execute(
        "UPDATE runs SET unit = ?1, life = life - ?2 - 1 WHERE unit = ?3 AND life < ?2",
        (new, mine["life"], old),
    )
    moved = db.execute(
        "UPDATE runs SET unit = ?, life = ?, seq = CASE WHEN seq IS NULL THEN NULL ELSE 0 END"
        " WHERE unit = ?",
        (new, life, old),
    ).rowcount
    put_in_order(db, new, life)
    db.execute("UPDATE OR REPLACE skips SET unit = ? WHERE unit = ?", (new, old))
    db.execute("UPDATE units SET forgotten = ? WHERE unit = ?", (to_number(now), old))
    return moved


def _receive(db: sqlite3.Connection, mine: sqlite3.Row, new: str) -> int:
    """The unit that receives, alive, with the older one's age and served times; its life."""
    theirs = db.execute("SELECT * FROM units WHERE unit = ?", (new,)).fetchone()
    if theirs is None:
        columns = "first_seen, gone_since, served, kind, schedule, timezone, mode, max_age"
        db.execute(
            f"INSERT INTO units (unit, {columns}) SELECT ?, {columns} FROM units WHERE unit = ?",  # noqa: S608 - our own names
            (new, mine["unit"]),
        )
        return 0
    life = int(theirs["life"]) + (theirs["forgotten"] is not None)
    served = [each["served"] for each in (mine, theirs) if each["served"] is not None]
    db.execute(
        "UPDATE units SET life = ?, forgotten = NULL, first_seen = ?, served = ? WHERE unit = ?",
        (
            life,
            min(mine["first_seen"], theirs["first_seen"]),
            max(served, default=None),
            new,
        ),
    )
    return life
