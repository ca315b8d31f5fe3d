"""LMDB with a writable map: the database that is written through nothing but mmap."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType

from support import docker
from support.apps.application import FOLDER, SAID, Application, execute, feed, whole_numbers

ROWS = 4000
PROGRAM = f"""
import hashlib, os, random, signal, time
import lmdb
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
env = lmdb.open("{FOLDER}", map_size=1 << 26, max_dbs=3, writemap=True, sync=False)
one, two, page = (env.open_db(name) for name in (b"one", b"two", b"page"))
key = lambda number: b"%010d" % number
def body():
    text = os.urandom(2000)
    return hashlib.sha256(text).digest() + text
with env.begin(write=True) as change:
    if not change.stat(page)["entries"]:
        for row in range({ROWS}):
            change.put(key(row), body(), db=page)
# What was used once is taken first: from here on it neither grows nor touches a page that is new to
# the mapping, which would change the time of the file.
with env.begin(write=True) as change:
    change.put(b"room", bytes(1 << 24), db=page)
with env.begin(write=True) as change:
    change.delete(b"room", db=page)
    cursor = change.cursor(one)
    number = int(cursor.key()) if cursor.last() else 0
said = open("{SAID}/acknowledged", "a", buffering=1) if os.path.isdir("{SAID}") else None
while said:
    number += 1
    with env.begin(write=True) as change:
        change.put(key(number), b"", db=one)
        for row in random.sample(range({ROWS}), 3):
            change.put(key(row), body(), db=page)
        change.put(key(number), b"", db=two)
    said.write(f"{{number}} {{time.time():.9f}}\\n")
    time.sleep(0.01)
signal.pause()
"""
CHECK = f"""
import hashlib, lmdb
env = lmdb.open("{FOLDER}", max_dbs=3, readonly=True)
with env.begin(db=env.open_db(b"page")) as reader:
    rows = list(reader.cursor())
    assert len(rows) == {ROWS}, len(rows)
    assert all(hashlib.sha256(text[32:]).digest() == text[:32] for _, text in rows)
"""
LIST = f"""
import lmdb, sys
env = lmdb.open("{FOLDER}", max_dbs=3, readonly=True)
with env.begin(db=env.open_db(sys.argv[1].encode())) as reader:
    for key, _ in reader.cursor():
        print(int(key))
"""


class Lmdb(Application):
    """Two databases in lock step, and one whose values carry their own hash."""

    name = "lmdb"
    server = f"exec python3 -c '{PROGRAM}'"
    ready = f"mdb_stat {FOLDER}"

    dump = MappingProxyType(
        {"kopi.dump": "command", "kopi.dump.command": f'["mdb_dump", "-a", "{FOLDER}"]'}
    )

    def start_from_dump(self, scope: docker.Scope, name: str, dump: Path, folder: Path) -> str:
        loader = scope.run(f"{name}-loader", volumes=[f"{folder}:{FOLDER}"])
        feed(loader, f"mdb_load {FOLDER}", dump)
        docker.call("rm", "--force", loader)
        return self.start(scope, name, data=str(folder))

    def prove(self, container: str) -> None:
        # A copy with compaction follows every page that is in use.
        execute(
            container,
            f"mdb_stat -a -f {FOLDER} && rm -rf /tmp/copy && mkdir /tmp/copy && "
            f"mdb_copy -c {FOLDER} /tmp/copy && python3 -c '{CHECK}'",
        )

    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        one, two = (
            whole_numbers(execute(container, f"python3 -c '{LIST}' {name}"))
            for name in ("one", "two")
        )
        return one, two
