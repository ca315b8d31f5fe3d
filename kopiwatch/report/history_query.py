"""What is read from the history. Every function reads only, on an open connection."""

from __future__ import annotations

import sqlite3
from datetime import datetime

import msgspec

from kopiwatch.backup.result import RunResult
from kopiwatch.errors import HistoryError
from kopiwatch.report.board import LastRun, Totals
from kopiwatch.report.history_file import to_number, to_time
from kopiwatch.report.history_record import (
    PhaseRow,
    RunDetail,
    RunRow,
    UnitRecord,
    UnitStats,
    phase_lengths,
)

# `seq` counts 1, 2, 3 ... per unit and life, so how many runs came after the newest success is a
# subtraction, and the sums read nothing but an index. What has a data time is good: a success, or
# a run that was accepted.
_UNITS = """
WITH sums AS (
    SELECT r.unit AS unit, count(*) AS runs, sum(r.verdict <> 'success') AS failures,
        total(r."window") AS downtime, max(r.seq) AS last,
        max(CASE WHEN r.data_at IS NOT NULL THEN r.seq END) AS good
    FROM units u JOIN runs r ON r.unit = u.unit AND r.life = u.life
    WHERE u.forgotten IS NULL AND r.seq IS NOT NULL
    GROUP BY r.unit
)
SELECT u.unit, u.first_seen, u.last_seen, u.gone_since, u.kind, u.schedule, u.timezone, u.mode,
    u.max_age, u.served,
    t.runs, t.failures, t.downtime, t.last - coalesce(t.good, 0) AS bad_since,
    s.data_at AS last_success,
    r.id, r.run, r.verdict, r.began, r.ended, r.reason, r.message, r."trigger", r."window",
    r.size, r.files, r.fatal, r.ignored, r.expected, r.stored, r.rebuilt,
    EXISTS (SELECT 1 FROM accepted a WHERE a.id = r.id) AS accepted
FROM units u
LEFT JOIN sums t ON t.unit = u.unit
LEFT JOIN runs r ON r.unit = u.unit AND r.life = u.life AND r.seq = t.last
LEFT JOIN runs s ON s.unit = u.unit AND s.life = u.life AND s.seq = t.good
WHERE u.forgotten IS NULL
"""

_RUNS = """
SELECT id, run, unit, verdict, began, ended, "trigger", due, data_at, phase, reason, message,
    snapshot, "window", size, files, rebuilt,
    EXISTS (SELECT 1 FROM accepted a WHERE a.id = runs.id) AS accepted,
    (SELECT at FROM accepted a WHERE a.id = runs.id) AS accepted_at,
    (SELECT who FROM accepted a WHERE a.id = runs.id) AS accepted_by
FROM runs
"""
_SKIPS = """
SELECT 0 AS id, '' AS run, unit, 'skipped' AS verdict, at AS began, at AS ended,
    'schedule' AS "trigger", due, NULL AS data_at, '' AS phase, reason, '' AS message,
    '' AS snapshot, 0 AS "window", 0 AS size, 0 AS files, 0 AS rebuilt,
    0 AS accepted, NULL AS accepted_at, '' AS accepted_by
FROM skips
"""
_STATS = """
SELECT unit, count(*) AS runs, sum(verdict <> 'success') AS failures,
    avg(CASE WHEN "window" > 0 THEN "window" END) AS window_mean,
    max(CASE WHEN "window" > 0 THEN "window" END) AS window_max,
    avg(CASE WHEN d.id IS NOT NULL THEN ended - began END) / 1e6 AS seconds_mean,
    max(CASE WHEN d.id IS NOT NULL THEN ended - began END) / 1e6 AS seconds_max
FROM runs r LEFT JOIN documents d ON d.id = r.id
WHERE seq IS NOT NULL AND (:unit = '' OR unit = :unit) AND began >= :since
GROUP BY unit ORDER BY unit
"""
_SIZES = """
SELECT unit, size FROM runs
WHERE data_at IS NOT NULL AND (:unit = '' OR unit = :unit) AND began >= :since ORDER BY life, seq
"""
_EVER = -(2**62)
"""Before every time."""


def units(db: sqlite3.Connection) -> dict[str, UnitRecord]:
    """All units that are not forgotten, by name."""
    open_runs = "SELECT unit, run, began, phase FROM runs WHERE verdict = 'running' ORDER BY id"
    running = {row["unit"]: row for row in db.execute(open_runs)}
    found = {}
    for row in db.execute(_UNITS).fetchall():
        unit = row["unit"]
        now = running.get(unit)
        found[unit] = UnitRecord(
            unit=unit,
            first_seen=to_time(row["first_seen"]),
            last_seen=_time(row["last_seen"]),
            gone_since=_time(row["gone_since"]),
            kind=row["kind"],
            schedule=row["schedule"],
            timezone=row["timezone"],
            mode=row["mode"],
            max_age=row["max_age"],
            served=_time(row["served"]),
            last_success=_time(row["last_success"]),
            last_run=_last_run(db, row) if row["id"] else None,
            consecutive_failures=row["bad_since"] or 0,
            totals=Totals(row["runs"] or 0, row["failures"] or 0, row["downtime"] or 0.0),
            running=now["run"] if now else "",
            running_since=to_time(now["began"]) if now else None,
            running_phase=now["phase"] if now else "",
        )
    return found


def _last_run(db: sqlite3.Connection, row: sqlite3.Row) -> LastRun:
    phases = db.execute("SELECT phase, seconds FROM phases WHERE id = ?", (row["id"],)).fetchall()
    return LastRun(
        run=row["run"],
        verdict=row["verdict"],
        began=to_time(row["began"]),
        ended=to_time(row["ended"]),
        reason=row["reason"],
        message=row["message"],
        trigger=row["trigger"] or "command",
        window=row["window"],
        phases=phase_lengths(phases),
        size=row["size"],
        files=row["files"],
        fatal=row["fatal"],
        ignored=row["ignored"],
        expected=row["expected"],
        stored=row["stored"],
        accepted=bool(row["accepted"]),
        rebuilt=bool(row["rebuilt"]),
    )


def names(db: sqlite3.Connection) -> tuple[str, ...]:
    """Every unit that the history knows anything of, forgotten ones, too."""
    tables = "SELECT unit FROM units UNION SELECT unit FROM runs UNION SELECT unit FROM skips"
    return tuple(sorted(row["unit"] for row in db.execute(tables)))


def runs(
    db: sqlite3.Connection,
    *,
    unit: str = "",
    failed: bool = False,
    since: datetime | None = None,
    last: int | None = None,
) -> tuple[RunRow, ...]:
    """Runs, and due times that were decided away, oldest first; of these the ``last`` ones.

    With ``failed`` only the runs that fell short.
    """
    limit = -1 if last is None else last
    given = {"unit": unit, "since": _EVER if since is None else to_number(since), "last": limit}
    # Each part is cut before they are put together: a long history is not sorted for 20 lines.
    of_unit = " AND unit = :unit" if unit else ""
    cut = " ORDER BY began DESC, id DESC LIMIT :last"
    bad = " AND verdict IN ('partial', 'failed')" if failed else ""
    text = f"SELECT * FROM ({_RUNS} WHERE began >= :since{of_unit}{bad}{cut})"  # noqa: S608 - ours
    if not failed:
        skips = f"SELECT * FROM ({_SKIPS} WHERE at >= :since{of_unit}{cut})"  # noqa: S608 - ours
        text += f" UNION ALL {skips} {cut}"
    return tuple(_row(row) for row in reversed(db.execute(text, given).fetchall()))


def run(db: sqlite3.Connection, name: str) -> RunDetail | None:
    """Everything about one run; None if there is no such run."""
    row = db.execute(f"{_RUNS} WHERE run = ?", (name,)).fetchone()
    if row is None:
        return None
    identity = (row["id"],)
    phases = db.execute(
        "SELECT phase, began, seconds FROM phases WHERE id = ? ORDER BY place", identity
    )
    document = db.execute("SELECT document FROM documents WHERE id = ?", identity).fetchone()
    return RunDetail(
        row=_row(row),
        phases=tuple(PhaseRow(p["phase"], to_time(p["began"]), p["seconds"]) for p in phases),
        result=_result(name, document["document"]) if document else None,
    )


def _result(name: str, document: str) -> RunResult:
    try:
        return msgspec.json.decode(document, type=RunResult)
    except msgspec.MsgspecError as error:
        raise HistoryError(
            f"the record of run {name} is not one that this version understands: {error}",
            hint="its line in `kopiwatch history` still tells how it ended",
        ) from error


def stats(
    db: sqlite3.Connection, *, unit: str = "", since: datetime | None = None
) -> tuple[UnitStats, ...]:
    """What the runs of each unit come to, over all its lives; by name."""
    given = {"unit": unit, "since": _EVER if since is None else to_number(since)}
    sizes = {row["unit"]: row["size"] for row in db.execute(_SIZES, given)}
    return tuple(
        UnitStats(
            unit=row["unit"],
            runs=row["runs"],
            failures=row["failures"],
            success_rate=1 - row["failures"] / row["runs"],
            window_mean=row["window_mean"],
            window_max=row["window_max"],
            seconds_mean=row["seconds_mean"],
            seconds_max=row["seconds_max"],
            size=sizes.get(row["unit"], 0),
        )
        for row in db.execute(_STATS, given)
    )


def _row(row: sqlite3.Row) -> RunRow:
    return RunRow(
        run=row["run"],
        unit=row["unit"],
        verdict=row["verdict"],
        began=to_time(row["began"]),
        ended=_time(row["ended"]),
        trigger=row["trigger"],
        due=_time(row["due"]),
        data_at=_time(row["data_at"]),
        phase=row["phase"],
        reason=row["reason"],
        message=row["message"],
        snapshot=row["snapshot"],
        window=row["window"],
        size=row["size"],
        files=row["files"],
        rebuilt=bool(row["rebuilt"]),
        accepted=bool(row["accepted"]),
        accepted_at=_time(row["accepted_at"]),
        accepted_by=row["accepted_by"] or "",
    )


def _time(number: int | None) -> datetime | None:
    return None if number is None else to_time(number)
