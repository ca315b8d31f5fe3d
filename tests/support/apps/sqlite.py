"""SQLite in WAL mode, read through a mapping, in a program that writes without rest."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import MappingProxyType

from support import docker
from support.apps.application import FOLDER, SAID, Application, execute, whole_numbers

ROWS = 4000
PROGRAM = f"""
import hashlib, os, random, signal, sqlite3, time
def page():
    body = os.urandom(2000)
    return body, hashlib.sha3_256(body).digest()
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
db = sqlite3.connect("{FOLDER}/app.db", isolation_level=None)
assert db.execute("pragma journal_mode = wal").fetchone() == ("wal",)
assert db.execute("pragma mmap_size = 268435456").fetchone() == (268435456,)
db.execute("pragma synchronous = full")
db.execute("pragma wal_autocheckpoint = 200")
if not db.execute("pragma user_version").fetchone()[0]:
    db.execute("begin")
    for table in ("one", "two"):
        db.execute(f"create table {{table}} (n integer primary key)")
    db.execute("create table page (id integer primary key, body blob, hash blob, version int)")
    db.execute("create table total (writes int)")
    db.execute("insert into total values (0)")
    pages = (page() for _ in range({ROWS}))
    db.executemany("insert into page (body, hash, version) values (?, ?, 0)", pages)
    db.execute("pragma user_version = 1")
    db.execute("commit")
number = db.execute("select coalesce(max(n), 0) from one").fetchone()[0]
said = open("{SAID}/acknowledged", "a", buffering=1) if os.path.isdir("{SAID}") else None
while said:
    number += 1
    db.execute("begin immediate")
    db.execute("insert into one values (?)", (number,))
    for row in random.sample(range(1, {ROWS} + 1), 3):
        change = "update page set body = ?, hash = ?, version = version + 1 where id = ?"
        db.execute(change, (*page(), row))
    db.execute("update total set writes = writes + 3")
    db.execute("insert into two values (?)", (number,))
    db.execute("commit")
    said.write(f"{{number}} {{time.time():.9f}}\\n")
    time.sleep(0.01)
signal.pause()
"""


class Sqlite(Application):
    """Two tables in lock step, and pages with their hash, whose versions add up to a total."""

    name = "sqlite"
    server = f"exec python3 -c '{PROGRAM}'"
    ready = f"[ -s {FOLDER}/app.db ]"

    dump = MappingProxyType({"kopi.dump": f"sqlite:{FOLDER}/app.db"})

    def start_from_dump(self, scope: docker.Scope, name: str, dump: Path, folder: Path) -> str:
        shutil.copyfile(dump, folder / "app.db")
        return self.start(scope, name, data=str(folder))

    def query(self, container: str, text: str) -> str:
        """What the shell of SQLite prints for it."""
        return execute(container, f"sqlite3 {FOLDER}/app.db '{text}'")

    def prove(self, container: str) -> None:
        assert self.query(container, "pragma journal_mode") == "wal"
        assert self.query(container, "pragma integrity_check") == "ok"
        assert self.query(container, "select count(*) from page where sha3(body) <> hash") == "0"
        versions = self.query(container, "select sum(version), count(*) from page")
        assert versions == f"{self.query(container, 'select writes from total')}|{ROWS}"

    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        one, two = (
            whole_numbers(self.query(container, f"select n from {table} order by n"))
            for table in ("one", "two")
        )
        return one, two
