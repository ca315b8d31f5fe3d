"""What is written into the history: one function, one transaction (the caller's) each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime, timedelta

import msgspec

from kopiwatch.backup.result import Phase, RunResult
from kopiwatch.report.board import Trigger
from kopiwatch.report.history_file import to_number, to_time
from kopiwatch.report.history_record import INTERRUPTED, UnitSeen

SEEN_EVERY = timedelta(minutes=5)
"""How often ``last_seen`` of a unit moves on that did not change."""


def storable(text: str) -> str:
    """The text without what UTF-8 cannot say: file names may hold any bytes."""
    return text.encode("utf-8", "backslashreplace").decode()


def to_document(result: RunResult) -> str:
    """A result as JSON."""
    try:
        return msgspec.json.encode(result).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(_storable(msgspec.to_builtins(result))).decode()


def _storable(value: object) -> object:
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, dict):
        return {key: _storable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(item) for item in value]
    return value


# -- runs --------------------------------------------------------------------------------------


def begin(
    db: sqlite3.Connection,
    *,
    run: str,
    unit: str,
    trigger: Trigger,
    due: datetime | None,
    began: datetime,
) -> None:
    """A run without a verdict yet; its due time is served. One that is on record stays as it is."""
    if not db.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone():
        life = _alive(db, unit, began)
        _start(db, run=run, unit=unit, life=life, trigger=trigger, due=due, began=began)
    if due is not None:
        served(db, unit, due)


def phase(db: sqlite3.Connection, *, run: str, phase: Phase, began: datetime) -> bool:
    """A phase that begins; the one before it ends. False if no such run is on record as open."""
    number = to_number(began)
    done = db.execute(
        "UPDATE runs SET phase = ?, phase_began = ? WHERE run = ? AND verdict = 'running'",
        (phase, number, run),
    )
    if not done.rowcount:
        return False
    db.execute(
        "UPDATE phases SET seconds = max(0, ? - began) / 1e6 WHERE seconds IS NULL"
        " AND id = (SELECT id FROM runs WHERE run = ?)",
        (number, run),
    )
    db.execute(
        "INSERT INTO phases (id, place, phase, began) SELECT id,"
        " (SELECT count(*) FROM phases WHERE phases.id = runs.id), ?, ? FROM runs WHERE run = ?",
        (phase, number, run),
    )
    return True


def finish(
    db: sqlite3.Connection,
    result: RunResult,
    *,
    trigger: Trigger,
    due: datetime | None,
    data_at: datetime | None,
) -> None:
    """A run with its verdict, whatever was known of it before."""
    counts = result.verdict != "skipped"
    row = db.execute("SELECT id FROM runs WHERE run = ?", (result.run,)).fetchone()
    if row is None:
        unit, began = result.unit, result.began
        # Who was skipped may be a unit that is gone: that is no sign of life.
        life = _alive(db, unit, began) if counts else _life(db, unit)
        _start(db, run=result.run, unit=unit, life=life, trigger=trigger, due=due, began=began)
        row = db.execute("SELECT id FROM runs WHERE run = ?", (result.run,)).fetchone()
    identity = int(row["id"])
    if counts and due is not None:
        served(db, result.unit, due)
    if result.verdict != "success":
        data_at = None
    elif data_at is None:
        data_at = result.began  # no data in it is older
    db.execute(
        'UPDATE runs SET verdict = ?, "trigger" = ?, due = ?, began = ?, ended = ?,'
        # What was accepted before this is written (again) keeps its data.
        " data_at = coalesce(?, (SELECT data_at FROM accepted a WHERE a.id = runs.id)),"
        ' phase = ?, phase_began = NULL, reason = ?, message = ?, snapshot = ?, "window" = ?,'
        " size = ?, files = ?, fatal = ?, ignored = ?, expected = ?, stored = ?, rebuilt = 0"
        " WHERE id = ?",
        (
            result.verdict,
            trigger,
            _maybe(due),
            to_number(result.began),
            to_number(result.ended),
            _maybe(data_at),
            result.failed_in or "",
            result.reason,
            storable(result.message),
            result.snapshot,
            result.window,
            result.size,
            result.files,
            sum(source.failed for source in result.sources),
            sum(source.ignored for source in result.sources),
            len(result.sources),
            sum(not source.reason for source in result.sources),
            identity,
        ),
    )
    _count(db, identity, counts=counts)
    _parts(db, identity, result)


def _parts(db: sqlite3.Connection, identity: int, result: RunResult) -> None:
    for table in ("phases", "sources", "documents"):
        db.execute(f"DELETE FROM {table} WHERE id = ?", (identity,))  # noqa: S608 - our own names
    db.executemany(
        "INSERT INTO phases VALUES (?, ?, ?, ?, ?)",
        (
            (identity, place, time.phase, to_number(time.began), time.seconds)
            for place, time in enumerate(result.phases)
        ),
    )
    db.executemany(
        "INSERT INTO sources VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (
            (identity, place, storable(s.path), s.size, s.files, s.failed, s.ignored, s.reason)
            for place, s in enumerate(result.sources)
        ),
    )
    db.execute("INSERT INTO documents VALUES (?, ?)", (identity, to_document(result)))


def accept(
    db: sqlite3.Connection,
    *,
    run: str,
    snapshot: str,
    data_at: datetime,
    at: datetime | None = None,
    who: str = "",
) -> bool:
    """A run counts as good from now on, whatever its verdict; False if it is not on record.

    ``snapshot`` is the id that its manifest has now. Who and when is kept as it was told first.
    """
    row = db.execute("SELECT id FROM runs WHERE run = ?", (run,)).fetchone()
    if row is None:
        return False
    db.execute(
        "INSERT INTO accepted (id, at, who) VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET"
        " at = coalesce(at, excluded.at), who = CASE who WHEN '' THEN excluded.who ELSE who END",
        (row["id"], _maybe(at), storable(who)),
    )
    db.execute(
        "UPDATE runs SET data_at = coalesce(data_at, ?), snapshot = ? WHERE id = ?",
        (to_number(data_at), snapshot, row["id"]),
    )
    return True


def interrupted(db: sqlite3.Connection, alive: Collection[str]) -> tuple[str, ...]:
    """Close the runs whose process is gone; their last sign of life is their end."""
    rows = db.execute(
        "SELECT id, run, phase, coalesce(phase_began, began) AS last FROM runs"
        " WHERE verdict = 'running' ORDER BY id"
    ).fetchall()
    ended = [row for row in rows if row["run"] not in alive]
    for row in ended:
        where = f" in phase {row['phase']}" if row["phase"] else ""
        heard = to_time(row["last"]).strftime("%Y-%m-%d %H:%M:%SZ")
        message = f"its process ended{where} without a verdict; it was last heard of at {heard}"
        db.execute(
            "UPDATE runs SET verdict = 'failed', reason = ?, message = ?, ended = ? WHERE id = ?",
            (INTERRUPTED, message, row["last"], row["id"]),
        )
        _count(db, row["id"], counts=True)
    return tuple(row["run"] for row in ended)


def _start(
    db: sqlite3.Connection,
    *,
    run: str,
    unit: str,
    life: int,
    trigger: Trigger,
    due: datetime | None,
    began: datetime,
) -> None:
    db.execute(
        'INSERT INTO runs (run, unit, life, verdict, "trigger", due, began)'
        " VALUES (?, ?, ?, 'running', ?, ?, ?)",
        (run, unit, life, trigger, _maybe(due), to_number(began)),
    )


def _count(db: sqlite3.Connection, identity: int, *, counts: bool) -> None:
    """Give a run its place in the order of recording; one that does not count loses its own."""
    unit, life, place = db.execute(
        "SELECT unit, life, seq FROM runs WHERE id = ?", (identity,)
    ).fetchone()
    if counts and place is None:
        db.execute(
            "UPDATE runs SET seq = (SELECT coalesce(max(seq), 0) + 1 FROM runs"
            " WHERE unit = ? AND life = ?) WHERE id = ?",
            (unit, life, identity),
        )
    elif not counts and place is not None:
        db.execute("UPDATE runs SET seq = NULL WHERE id = ?", (identity,))
        db.execute(
            "UPDATE runs SET seq = seq - 1 WHERE unit = ? AND life = ? AND seq > ?",
            (unit, life, place),
        )


# -- units -------------------------------------------------------------------------------------


def unseen(
    db: sqlite3.Connection, units: Sequence[UnitSeen], now: datetime
) -> tuple[UnitSeen, ...]:
    """Those whose row has to be written: new, back, changed, or not seen for a while. Reads."""
    rows = db.execute(
        "SELECT unit, last_seen, kind, schedule, timezone, mode, max_age FROM units"
        " WHERE forgotten IS NULL AND gone_since IS NULL AND last_seen IS NOT NULL"
    )
    known = {unit: (last, UnitSeen(unit, *texts)) for unit, last, *texts in rows}
    late, number = SEEN_EVERY // timedelta(microseconds=1), to_number(now)
    fresh = {
        unit
        for unit, (last, _) in known.items()
        if abs(number - last) < late  # a clock that was set back is a reason, too
    }
    return tuple(u for u in units if u.unit not in fresh or known[u.unit][1] != u)


def seen(db: sqlite3.Connection, units: Iterable[UnitSeen], now: datetime) -> None:
    """Units whose containers are there; a forgotten one begins a new life."""
    number = to_number(now)
    for unit in units:
        _alive(db, unit.unit, now)
        db.execute(
            "UPDATE units SET last_seen = ?, gone_since = NULL, kind = ?, schedule = ?,"
            " timezone = ?, mode = ?, max_age = ? WHERE unit = ?",
            (
                number,
                unit.kind,
                storable(unit.schedule),
                unit.timezone,
                unit.mode,
                unit.max_age,
                unit.unit,
            ),
        )


def gone(db: sqlite3.Connection, units: Iterable[str], now: datetime) -> None:
    """Units whose containers vanished; since when stays as it was first noticed."""
    db.executemany(
        "UPDATE units SET gone_since = ?"
        " WHERE unit = ? AND gone_since IS NULL AND forgotten IS NULL",
        ((to_number(now), unit) for unit in units),
    )


def served(db: sqlite3.Connection, unit: str, due: datetime) -> None:
    """A due time that nobody has to care for any more; the newest one stays."""
    db.execute(
        "UPDATE units SET served = max(coalesce(served, ?1), ?1) WHERE unit = ?2",
        (to_number(due), unit),
    )


def skip(db: sqlite3.Connection, unit: str, due: datetime, reason: str, now: datetime) -> None:
    """A due time that was decided away."""
    db.execute(
        "INSERT OR REPLACE INTO skips (unit, due, reason, at) VALUES (?, ?, ?, ?)",
        (unit, to_number(due), storable(reason), to_number(now)),
    )
    served(db, unit, due)


def forget(db: sqlite3.Connection, unit: str, now: datetime) -> bool:
    """End a unit's life; False if there is no such unit. Its runs stay on record."""
    done = db.execute(
        "UPDATE units SET forgotten = ? WHERE unit = ? AND forgotten IS NULL",
        (to_number(now), unit),
    )
    return done.rowcount > 0


def _alive(db: sqlite3.Connection, unit: str, at: datetime) -> int:
    """The life that a unit leads, a new one if it is new or was forgotten."""
    row = db.execute("SELECT life, forgotten FROM units WHERE unit = ?", (unit,)).fetchone()
    number = to_number(at)
    if row is None:
        db.execute("INSERT INTO units (unit, first_seen) VALUES (?, ?)", (unit, number))
        return 0
    life, forgotten = row
    if forgotten is None:
        return int(life)
    db.execute(
        "UPDATE units SET life = life + 1, first_seen = ?, forgotten = NULL, gone_since = NULL,"
        " last_seen = NULL, served = NULL WHERE unit = ?",
        (number, unit),
    )
    return int(life) + 1


def _life(db: sqlite3.Connection, unit: str) -> int:
    row = db.execute("SELECT life FROM units WHERE unit = ?", (unit,)).fetchone()
    return int(row[0]) if row else 0


def _maybe(moment: datetime | None) -> int | None:
    return None if moment is None else to_number(moment)
