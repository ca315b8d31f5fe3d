"""The file of the history: damage, other processes, sudden death, disks that refuse."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from kopiwatch.backup.result import RunResult
from kopiwatch.clock import Clock
from kopiwatch.errors import HistoryDamaged, HistoryError
from kopiwatch.report import history_file
from kopiwatch.report.history import History

pytestmark = pytest.mark.anyio

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
CLOCK = Clock(now=lambda: NOON)
ASIDE = "history.db.corrupt-20260102T120000Z"


def result(run: str) -> RunResult:
    return RunResult(run, "shop", "success", NOON, NOON)


async def fill(folder: Path, count: int = 1) -> None:
    """A history with so many runs, r0 and on."""
    opened = await History.open(folder, clock=CLOCK)
    async with opened.history as history:
        for number in range(count):
            done = result(f"r{number}")
            await history.finish(done, trigger="command", due=None, data_at=NOON)


async def runs(folder: Path) -> list[str]:
    async with await History.read_only(folder) as history:
        return [row.run for row in await history.runs()]


MOUNTS = os.geteuid() == 0 and shutil.which("unshare") is not None


def start(program: str, *arguments: object, mount: str = "") -> subprocess.Popen[str]:
    """Another process that runs a program with a folder; ``mount`` mounts there what only it sees.

    In the program ``folder`` is the first argument.
    """
    text = f"""
import anyio, os, resource, signal, sys
from datetime import UTC, datetime
from pathlib import Path
from kopiwatch.backup.result import RunResult
from kopiwatch.clock import SYSTEM
from kopiwatch.errors import HistoryDamaged, HistoryError
from kopiwatch.report.history import History
NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
folder = Path(sys.argv[1])
def result(run):
    return RunResult(run, "shop", "success", NOON, NOON, tail="x" * 2000)
async def main():
{program}
anyio.run(main)
"""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    if mount:
        shell = f'set -e; {mount} "$1"; shift; exec "$@"'
        command = ["unshare", "--mount", "sh", "-c", shell, "sh", str(arguments[0]), *command]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


async def test_file_is_its_owners_only(tmp_path):
    """And survives closing and opening; nothing else is left in the folder."""
    await fill(tmp_path, 2)
    opened = await History.open(tmp_path, clock=CLOCK)
    assert opened.set_aside is None
    await opened.history.close()
    assert await runs(tmp_path) == ["r0", "r1"]
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == {"history.db": 0o600, "history.lock": 0o600}


async def test_file_is_kept_the_way_the_design_says(tmp_path):
    """A rollback journal, and every commit on the disk."""
    opened = await History.open(tmp_path, clock=CLOCK)
    connection = opened.history._connection
    assert connection is not None
    for name, value in (("journal_mode", "delete"), ("synchronous", 2), ("foreign_keys", 1)):
        assert connection.execute(f"PRAGMA {name}").fetchone()[0] == value
    await opened.history.close()


def truncated(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def garbage(path: Path) -> None:
    path.write_bytes(os.urandom(20_000))


def damaged_inside(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[4096 * 2 :] = b"\xa5" * (len(content) - 4096 * 2)
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE runs (id INTEGER)")


def lacks_a_column(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("ALTER TABLE units RENAME COLUMN served TO swerved")


def lacks_a_table(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE phases")


DAMAGES = [truncated, garbage, damaged_inside, empty, foreign, lacks_a_column, lacks_a_table]


@pytest.mark.parametrize("damage", DAMAGES)
async def test_damaged_file_is_set_aside_whole_and_a_new_one_begun(tmp_path, damage):
    """Whatever is wrong with it, it is not thrown away."""
    await fill(tmp_path, 30)
    path = tmp_path / "history.db"
    damage(path)
    content = path.read_bytes()
    opened = await History.open(tmp_path, clock=CLOCK)
    assert (opened.fresh, opened.set_aside) == (True, tmp_path / ASIDE)
    assert (tmp_path / ASIDE).read_bytes() == content
    async with opened.history as history:
        assert await history.runs() == ()
        await history.finish(result("new"), trigger="command", due=None, data_at=NOON)
    assert await runs(tmp_path) == ["new"]


@pytest.mark.parametrize("damage", [garbage, empty, foreign, lacks_a_column])
async def test_damaged_file_is_an_error_for_who_only_reads(tmp_path, damage):
    """Never an empty history, and nothing is moved."""
    await fill(tmp_path)
    damage(tmp_path / "history.db")
    with pytest.raises(HistoryDamaged) as caught:
        await History.read_only(tmp_path)
    assert "--rebuild" in caught.value.hint
    assert not (tmp_path / ASIDE).exists()


async def test_damage_that_reading_meets_is_an_error(tmp_path):
    """The quick look at opening cannot find everything."""
    await fill(tmp_path, 100)
    damaged_inside(tmp_path / "history.db")
    with pytest.raises(HistoryDamaged):
        async with await History.read_only(tmp_path) as history:
            await history.runs()


async def test_two_damaged_files_of_one_second_do_not_meet(tmp_path):
    """The first one set aside stays."""
    for content in (b"one", b"two"):
        (tmp_path / "history.db").write_bytes(content)
        opened = await History.open(tmp_path, clock=CLOCK)
        assert opened.set_aside is not None
        assert opened.set_aside.read_bytes() == content
        await opened.history.close()
    assert (tmp_path / ASIDE).read_bytes() == b"one"


async def test_journal_of_a_file_that_is_gone_is_not_played_into_the_new_one(tmp_path):
    """It is another file's past."""
    (tmp_path / "history.db-journal").write_bytes(b"of another file")
    await fill(tmp_path)
    assert await runs(tmp_path) == ["r0"]
    assert (tmp_path / f"{ASIDE}-journal").read_bytes() == b"of another file"


async def test_history_of_a_newer_version_is_refused_and_stays(tmp_path):
    """Who went back to an older image loses nothing."""
    await fill(tmp_path)
    path = tmp_path / "history.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA user_version = 3")
        connection.execute("ALTER TABLE units ADD COLUMN more")
    content = path.read_bytes()
    for way in (History.open(tmp_path, clock=CLOCK), History.read_only(tmp_path)):
        with pytest.raises(HistoryError, match="newer version") as caught:
            await way
        assert not isinstance(caught.value, HistoryDamaged)
        assert "run that version" in caught.value.hint
    assert path.read_bytes() == content


async def test_making_the_file_leaves_nothing_half_made(tmp_path, monkeypatch):
    """Whole or not at all."""
    monkeypatch.setattr(history_file, "SCHEMA", "CREATE TABLE units (unit TEXT); nonsense;")
    with pytest.raises(HistoryError, match="nonsense"):
        await History.open(tmp_path, clock=CLOCK)
    assert [path.name for path in tmp_path.iterdir()] == ["history.lock"]


async def test_file_that_is_removed_while_in_use_is_noticed_by_the_next_write(tmp_path):
    """Nothing is written into a file without a name; opening again helps."""
    opened = await History.open(tmp_path, clock=CLOCK)
    (tmp_path / "history.db").unlink()
    with pytest.raises(HistoryDamaged, match="removed or replaced"):
        await opened.history.finish(result("r1"), trigger="command", due=None, data_at=None)
    await opened.history.close()
    again = await History.open(tmp_path, clock=CLOCK)
    assert again.fresh
    await again.history.close()


async def test_two_processes_write_at_once_and_nothing_is_lost(tmp_path):
    """Each waits for the other; together they have done everything."""
    program = """
    opened = await History.open(folder, clock=SYSTEM)
    sys.stdin.readline()
    async with opened.history as history:
        for number in range(40):
            run = f"{sys.argv[2]}{number}"
            await history.begin(run, "shop", "command", None, NOON)
            await history.phase(run, "check", NOON)
            await history.finish(result(run), trigger="command", due=None, data_at=NOON)
            await history.units()
"""
    workers = [start(program, tmp_path, name) for name in "ab"]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    for worker in workers:
        worker.communicate(timeout=18)
        assert worker.returncode == 0
    assert sorted(await runs(tmp_path)) == sorted(f"{n}{i}" for n in "ab" for i in range(40))
    async with await History.read_only(tmp_path) as history:
        assert (await history.units())["shop"].totals.runs == 80


async def test_processes_that_find_the_same_damage_set_it_aside_once(tmp_path):
    """And share the new file."""
    garbage(tmp_path / "history.db")
    program = """
    sys.stdin.readline()
    opened = await History.open(folder, clock=SYSTEM)
    async with opened.history as history:
        await history.finish(result(sys.argv[2]), trigger="command", due=None, data_at=NOON)
    print(opened.set_aside is not None)
"""
    workers = [start(program, tmp_path, name) for name in "abc"]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    said = [worker.communicate(timeout=18)[0].strip() for worker in workers]
    assert sorted(said) == ["False", "False", "True"]
    assert sorted(await runs(tmp_path)) == ["a", "b", "c"]
    assert len([path for path in tmp_path.iterdir() if "corrupt" in path.name]) == 1


async def test_file_that_somebody_quicker_has_made_is_used(tmp_path, monkeypatch):
    """Who waited to set the damaged one aside looks again."""
    await fill(tmp_path)
    path = tmp_path / "history.db"
    sound = path.read_bytes()
    garbage(path)
    lock = (tmp_path / "history.lock").open()
    fcntl.flock(lock, fcntl.LOCK_SH)

    def be_quicker(_: float) -> None:
        path.write_bytes(sound)
        lock.close()

    monkeypatch.setattr(history_file, "time", SimpleNamespace(monotonic=float, sleep=be_quicker))
    opened = await History.open(tmp_path, clock=CLOCK)
    assert opened.set_aside is None
    async with opened.history as history:
        assert [row.run for row in await history.runs()] == ["r0"]


async def test_killed_process_leaves_a_readable_history_and_a_run_to_close(tmp_path):
    """Kill -9 between begin and finish."""
    program = """
    opened = await History.open(folder, clock=SYSTEM)
    await opened.history.begin("r1", "shop", "schedule", NOON, NOON)
    await opened.history.phase("r1", "read", NOON)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    worker = start(program, tmp_path)
    worker.communicate(timeout=18)
    assert worker.returncode == -signal.SIGKILL
    async with await History.read_only(tmp_path) as history:
        assert (await history.units())["shop"].running == "r1"
    opened = await History.open(tmp_path, clock=CLOCK)
    assert opened.set_aside is None
    async with opened.history as history:
        assert await history.interrupted(()) == ("r1",)
        (row,) = await history.runs()
        assert (row.verdict, row.reason, row.phase) == ("failed", "interrupted", "read")


async def test_process_killed_inside_a_transaction_leaves_nothing_of_it(tmp_path):
    """Even who only reads rolls back what it left."""
    await fill(tmp_path)
    program = """
    opened = await History.open(folder, clock=SYSTEM)
    db = opened.history._connection
    db.execute("PRAGMA cache_size = 1")
    db.execute("PRAGMA foreign_keys = OFF")
    db.execute("BEGIN IMMEDIATE")
    for number in range(300):
        db.execute("INSERT INTO documents VALUES (?, ?)", (1000 + number, "x" * 3000))
        db.execute("UPDATE runs SET message = ?", ("x" * 3000,))
    os.kill(os.getpid(), signal.SIGKILL)
"""
    worker = start(program, tmp_path)
    worker.communicate(timeout=18)
    assert worker.returncode == -signal.SIGKILL
    assert (tmp_path / "history.db-journal").stat().st_size > 0
    async with await History.read_only(tmp_path) as history:
        (row,) = await history.runs()
        assert (row.run, row.message) == ("r0", "")
    opened = await History.open(tmp_path, clock=CLOCK)
    assert opened.set_aside is None
    await opened.history.close()


async def test_write_waits_no_longer_than_it_must_for_a_locked_file(tmp_path, monkeypatch):
    """Then it says so; nothing is written."""
    monkeypatch.setattr(history_file, "BUSY_SECONDS", 0.05)
    opened = await History.open(tmp_path, clock=CLOCK)
    async with opened.history as history:
        with closing(sqlite3.connect(tmp_path / "history.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(HistoryError, match="locked") as caught:
                await history.served("shop", NOON)
            assert "another process" in caught.value.hint
            other.execute("ROLLBACK")
        with (tmp_path / "history.lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with pytest.raises(HistoryError, match="locked"):
                await history.served("shop", NOON)
        await history.served("shop", NOON)


FULL = """
    opened = await History.open(folder, clock=SYSTEM)
    {limit}
    done = []
    async with opened.history as history:
        try:
            for number in range(1000):
                await history.finish(result(f"r{{number}}"), trigger="command", due=None,
                                     data_at=NOON)
                done.append(f"r{{number}}")
        except HistoryDamaged:
            raise
        except HistoryError as error:
            print(len(done), [row.run for row in await history.runs()] == done, error.hint)
"""
LIMIT = "resource.setrlimit(resource.RLIMIT_FSIZE, (256 * 1024, 256 * 1024))"


async def test_disk_that_takes_no_more_is_an_error_and_loses_nothing(tmp_path):
    """What was written before stands, and can still be read."""
    worker = start(FULL.format(limit=LIMIT), tmp_path)
    number, same, *hint = worker.communicate(timeout=18)[0].split()
    assert worker.returncode == 0
    assert (int(number) > 5, same) == (True, "True")
    assert hint
    assert len(await runs(tmp_path)) == int(number)


async def test_full_disk_is_an_error_that_says_so(tmp_path):
    """On a file system that really is full, where we may mount one."""
    if not MOUNTS:
        pytest.skip("mounting needs root; the limit of a file's size is tried above")
    mount = "mount -t tmpfs -o size=400k none"
    worker = start(FULL.format(limit="pass"), tmp_path, mount=mount)
    number, same, *hint = worker.communicate(timeout=18)[0].split()
    assert worker.returncode == 0
    assert (int(number) > 5, same) == (True, "True")
    assert " ".join(hint) == "make room on the disk of the state folder"


async def test_read_only_folder_is_an_error_for_who_writes(tmp_path):
    """At opening and later; reading works on."""
    await fill(tmp_path)
    program = """
    async with await History.read_only(folder) as history:
        print([row.run for row in await history.runs()])
    try:
        await History.open(folder, clock=SYSTEM)
    except HistoryDamaged:
        raise
    except HistoryError as error:
        print(error.message, error.hint)
"""
    if MOUNTS:
        worker = start(program, tmp_path, mount='mount --bind "$1" "$1"; mount -o remount,ro,bind')
    else:
        (tmp_path / "history.db").chmod(0o400)
        (tmp_path / "history.lock").chmod(0o400)
        tmp_path.chmod(0o500)
        worker = start(program, tmp_path)
    read, refused = worker.communicate(timeout=18)[0].splitlines()
    assert worker.returncode == 0
    assert read == "['r0']"
    assert "cannot open the history" in refused
    assert "must be writable" in refused


async def test_folder_that_turns_read_only_is_an_error_of_the_write(tmp_path):
    """And the write works when the folder is writable again."""
    opened = await History.open(tmp_path, clock=CLOCK)
    async with opened.history as history:
        (tmp_path / "history.lock").unlink()
        (tmp_path / "history.lock").mkdir()
        with pytest.raises(HistoryError, match="cannot write the history"):
            await history.served("shop", NOON)
        (tmp_path / "history.lock").rmdir()
        await history.served("shop", NOON)
