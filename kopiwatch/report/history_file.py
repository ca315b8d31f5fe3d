"""The file of the history: making it, opening it, and setting a damaged one aside.

Several processes have it open at once. SQLite's own locks guard its content; ``history.lock``
guards its name: whoever writes holds it shared, whoever puts another file in its place exclusively.
Otherwise the journal of a transaction in the old file would be played into the new one.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from kopiwatch.durable import sync_folder
from kopiwatch.errors import HistoryDamaged, HistoryError

NAME = "history.db"
LOCK_NAME = "history.lock"
BUSY_SECONDS = 10.0
"""How long we wait for another process: its transactions take milliseconds."""
APPLICATION = 0x6B6F7069
"""``kopi``: the application id in the header of our files."""
VERSION = 2
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

SCHEMA = """
CREATE TABLE units (
    unit TEXT PRIMARY KEY,
    life INTEGER NOT NULL DEFAULT 0,    -- goes up when a forgotten unit is seen again
    first_seen INTEGER NOT NULL,        -- times: microseconds since 1970, UTC
    last_seen INTEGER,
    gone_since INTEGER,
    forgotten INTEGER,
    served INTEGER,
    kind TEXT NOT NULL DEFAULT '',
    schedule TEXT NOT NULL DEFAULT '',
    timezone TEXT NOT NULL DEFAULT 'UTC',
    mode TEXT NOT NULL DEFAULT 'stop',
    max_age TEXT NOT NULL DEFAULT ''
);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    run TEXT NOT NULL UNIQUE,
    unit TEXT NOT NULL,
    life INTEGER NOT NULL,
    seq INTEGER,                        -- 1, 2, 3 ... per unit and life; only runs that count
    verdict TEXT NOT NULL,
    "trigger" TEXT NOT NULL DEFAULT '',
    due INTEGER,
    began INTEGER NOT NULL,
    ended INTEGER,
    data_at INTEGER,                    -- only of a success, or of one that was accepted
    phase TEXT NOT NULL DEFAULT '',
    phase_began INTEGER,
    reason TEXT NOT NULL DEFAULT '',
    message TEXT NOT NULL DEFAULT '',
    snapshot TEXT NOT NULL DEFAULT '',
    "window" REAL NOT NULL DEFAULT 0,
    size INTEGER NOT NULL DEFAULT 0,
    files INTEGER NOT NULL DEFAULT 0,
    fatal INTEGER NOT NULL DEFAULT 0,
    ignored INTEGER NOT NULL DEFAULT 0,
    expected INTEGER NOT NULL DEFAULT 0,
    stored INTEGER NOT NULL DEFAULT 0,
    mode TEXT NOT NULL DEFAULT '',
    instance TEXT NOT NULL DEFAULT '',
    rebuilt INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX runs_in_order ON runs (unit, life, seq, verdict, "window", data_at);
CREATE INDEX runs_by_time ON runs (began);
CREATE INDEX runs_of_unit_by_time ON runs (unit, began);
CREATE INDEX runs_open ON runs (run) WHERE verdict = 'running';
CREATE TABLE phases (
    id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    phase TEXT NOT NULL,
    began INTEGER NOT NULL,
    seconds REAL,
    PRIMARY KEY (id, place)
) WITHOUT ROWID;
CREATE TABLE sources (
    id INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE,
    place INTEGER NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    files INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    ignored INTEGER NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (id, place)
) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    document TEXT NOT NULL              -- the whole RunResult as JSON
);
CREATE TABLE accepted (                 -- a run that was refused, and taken on record as good
    id INTEGER PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
    at INTEGER,                         -- null where only the repository tells of it
    who TEXT NOT NULL DEFAULT ''
);
CREATE TABLE skips (
    unit TEXT NOT NULL,
    due INTEGER NOT NULL,
    reason TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (unit, due)
) WITHOUT ROWID;
CREATE TABLE seeded (                   -- a row: the repository was read into this file
    seeded INTEGER NOT NULL
);
"""

UPGRADES: dict[int, tuple[str, ...]] = {
    1: (
        """CREATE TABLE accepted (id INTEGER PRIMARY KEY REFERENCES runs (id) ON DELETE CASCADE,
            at INTEGER, who TEXT NOT NULL DEFAULT '')""",
        "DROP INDEX IF EXISTS runs_in_order",
        'CREATE INDEX runs_in_order ON runs (unit, life, seq, verdict, "window", data_at)',
    ),
}
"""What brings a file of that version to the next one."""

REBUILD_HINT = "`kopiwatch history --rebuild` sets it aside and makes a new one from the repository"


def to_number(moment: datetime) -> int:
    """A time with a zone as it stands in the file."""
    return (moment - EPOCH) // MICROSECOND


def to_time(number: int) -> datetime:
    """The reverse of :func:`to_number`."""
    return EPOCH + number * MICROSECOND


@contextmanager
def translated(path: Path, what: str) -> Iterator[None]:
    """Errors of SQLite and of the disk as ours; ``what`` completes "cannot …"."""
    try:
        yield
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", "")
        text = f"cannot {what}, {path}: {error}"
        if name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB")):
            raise HistoryDamaged(text, hint=REBUILD_HINT) from error
        if name == "SQLITE_READONLY_DBMOVED":
            raise HistoryDamaged(
                f"cannot {what}: {path} was removed or replaced while in use",
                hint="it is opened again; do not move it while kopiwatch runs",
            ) from error
        raise HistoryError(text, hint=_HINTS.get(name.removeprefix("SQLITE_"), _HINT)) from error
    except OSError as error:
        raise HistoryError(f"cannot {what}, {path}: {error.strerror}", hint=_HINT) from error


_HINT = "the state folder must be writable, have space left, and be on a local disk"
_HINTS = {
    "FULL": "make room on the disk of the state folder",
    "BUSY": "another process keeps it locked; see who has the file open",
    "LOCKED": "another process keeps it locked; see who has the file open",
}


def connect(path: Path) -> sqlite3.Connection:
    """Open an existing file for reading and writing, or for reading if the disk allows no more.

    Not for reading only, even where only reading is wanted: what a process left half-way that was
    killed has to be rolled back first.
    """
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,  # one thread at a time: see History
    )
    connection.row_factory = sqlite3.Row
    try:
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def naming(folder: Path, *, change: bool) -> Iterator[None]:
    """Hold ``history.lock``: shared while writing into the file, alone to ``change`` its name."""
    handle = os.open(folder / LOCK_NAME, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        late = time.monotonic() + BUSY_SECONDS
        while True:
            try:
                fcntl.flock(handle, (fcntl.LOCK_EX if change else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                break
            except BlockingIOError as error:
                if time.monotonic() > late:
                    raise HistoryError(
                        f"another process keeps {folder / LOCK_NAME} locked",
                        hint=_HINTS["BUSY"],
                    ) from error
                time.sleep(0.005)
        yield
    finally:
        os.close(handle)


def open_or_create(folder: Path, now: datetime) -> tuple[sqlite3.Connection, bool, Path | None]:
    """The connection, whether it still has to be seeded, and where a damaged file was set aside.

    Raises HistoryError, also for a file of a newer version, which is never touched.
    """
    path = folder / NAME
    with translated(path, "open the history"):
        with naming(folder, change=False):
            if (found := _usable(path)) is not None:
                return found, not _seeded(found), None
        with naming(folder, change=True):
            if (found := _usable(path)) is not None:  # somebody was quicker
                return found, not _seeded(found), None
            aside = _set_aside(path, now)
            _create(path)
            return connect(path), True, aside


def open_existing(folder: Path) -> sqlite3.Connection | None:
    """The connection for somebody who only reads; None if there is no file.

    Raises HistoryDamaged, and HistoryError for a file of a newer version.
    """
    path = folder / NAME
    with translated(path, "read the history"):
        if not path.exists():
            return None
        connection = connect(path)
        try:
            upgrade(connection, folder)
            check(connection, path, thorough=False)
            connection.execute("PRAGMA query_only = ON")
        except BaseException:
            connection.close()
            raise
        return connection


def _usable(path: Path) -> sqlite3.Connection | None:
    """A connection to a sound file; None if there is none or it is damaged."""
    if not path.exists():
        return None
    connection = None
    try:
        with translated(path, "open the history"):
            connection = connect(path)
            upgrade(connection)
            check(connection, path, thorough=True)
            connection.execute("PRAGMA journal_mode = DELETE")
    except HistoryDamaged:
        if connection is not None:
            connection.close()
        return None
    except BaseException:
        if connection is not None:
            connection.close()
        raise
    return connection


def upgrade(connection: sqlite3.Connection, folder: Path | None = None) -> None:
    """Bring a file of an older version of ours to this one, whole or not at all.

    ``folder`` is given where ``history.lock`` is not held yet. What is no sound file is left as it
    is, for :func:`check`.
    """
    if not _older(connection):
        return
    with naming(folder, change=False) if folder else nullcontext():
        connection.execute("BEGIN IMMEDIATE")
        try:
            while (version := _older(connection)) and _shape(connection) == _shape_of(version):
                for statement in UPGRADES[version]:
                    connection.execute(statement)
                connection.execute(f"PRAGMA user_version = {version + 1}")
            connection.execute("COMMIT")
        except BaseException:
            connection.execute("ROLLBACK")
            raise


def _older(connection: sqlite3.Connection) -> int:
    """The version of the file if it is ours and older than this one; else 0."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    return int(version) if application == APPLICATION and version in UPGRADES else 0


def _shape_of(version: int) -> dict[str, list[str]]:
    """Tables and columns of an older version: what came later taken away."""
    later = {"accepted": 2}
    return {
        table: columns for table, columns in _expected().items() if later.get(table, 1) <= version
    }


def check(connection: sqlite3.Connection, path: Path, *, thorough: bool) -> None:
    """Raise HistoryDamaged unless this is a sound file of ours, HistoryError if it is too new."""
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application == APPLICATION and version > VERSION:
        raise HistoryError(
            f"{path} was written by a newer version of kopiwatch (its schema is {version}, "
            f"this version knows {VERSION})",
            hint="run that version, or move the file away and `kopiwatch history --rebuild`",
        )
    if application != APPLICATION or version != VERSION or _shape(connection) != _expected():
        raise HistoryDamaged(f"{path} is not a history of kopiwatch", hint=REBUILD_HINT)
    if thorough:
        (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise HistoryDamaged(f"{path} is damaged: {verdict}", hint=REBUILD_HINT)


def _seeded(connection: sqlite3.Connection) -> bool:
    return connection.execute("SELECT 1 FROM seeded LIMIT 1").fetchone() is not None


def _shape(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Tables by name with their columns in order."""
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    columns = "SELECT name FROM pragma_table_info(?)"
    return {name: [c for (c,) in connection.execute(columns, (name,))] for (name,) in tables}


def _expected() -> dict[str, list[str]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.executescript(SCHEMA)
        return _shape(connection)


def _set_aside(path: Path, now: datetime) -> Path | None:
    """Move a file, and the journal that belongs to it, out of the way; None if there is none."""
    aside = path.with_name(f"{path.name}.corrupt-{now.astimezone(UTC):%Y%m%dT%H%M%SZ}")
    while aside.exists():
        aside = aside.with_name(f"{aside.name}-{secrets.token_hex(2)}")
    moved = path.exists()
    if moved:
        path.rename(aside)
    for ending in ("-journal", "-wal", "-shm"):
        # Left behind, it would be played into the new file.
        with suppress(FileNotFoundError):
            path.with_name(path.name + ending).rename(aside.with_name(aside.name + ending))
    sync_folder(path.parent)
    return aside if moved else None


def _create(path: Path) -> None:
    """Make an empty history, whole or not at all, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        with closing(connect(temporary)) as connection:
            connection.executescript(
                f"BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION};"
                f" PRAGMA user_version = {VERSION}; COMMIT;"
            )
        temporary.rename(path)
    except BaseException:
        for ending in ("", "-journal"):
            temporary.with_name(temporary.name + ending).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)
