"""The scripts, run by this machine's own shell with clients that tell how they were called."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from pathlib import Path

import pytest

from kopiwatch.backup.dump import mark
from kopiwatch.backup.dump.client import CLIENTS, dump_argv, kill_argv
from kopiwatch.units.dump import EXTENSIONS, DumpSettings

CLIENT = """#!/bin/sh
echo "program=${0##*/}"
for word in "$@"; do echo "arg=$word"; done
echo "PGPASSWORD=$PGPASSWORD"; echo "MYSQL_PWD=$MYSQL_PWD"; echo "REDISCLI_AUTH=$REDISCLI_AUTH"
[ "${0##*/}" != mongodump ] || cat
exit ${CLIENT_EXIT:-0}
"""
END = "\nkopiwatch-end 0123\n"


@pytest.fixture
def run(tmp_path: Path):
    """Run a dump with these clients and variables; what it printed, or what it said in vain."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("sh", "cat", "mktemp", "rm"):
        (folder / name).symlink_to(shutil.which(name) or "")
    # Nobody is root and there is no user postgres: whose shell it is, is for real images to show.
    (folder / "id").write_text("#!/bin/sh\necho 1000\n")
    (folder / "id").chmod(0o755)

    def call(dump: DumpSettings, *clients: str, given: str = "", **variables: str) -> str:
        for name in clients:
            (folder / name).write_text(CLIENT)
            (folder / name).chmod(0o755)
        done = subprocess.run(
            dump_argv(dump, END, with_password=bool(given)),
            input=f"{given}\n",
            env={"PATH": str(folder), **variables},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.stderr.startswith("kopiwatch-pid ")
        if done.returncode:
            assert not done.stdout.endswith(END)
            words = done.stderr.partition("\n")[2]
            return f"exit {done.returncode}: {words}"
        assert done.stdout.endswith(END)
        return done.stdout.removesuffix(END)

    return call


def test_every_engine_has_a_client():
    assert CLIENTS.keys() == EXTENSIONS.keys()


def test_postgres_dumps_all_databases_as_the_image_says(run, tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("from the file\n")
    said = run(
        *(DumpSettings("postgres"), "pg_dumpall"),
        POSTGRES_USER="shop",
        POSTGRES_PASSWORD_FILE=str(secret),
    )
    assert said.splitlines()[:5] == [
        "program=pg_dumpall",
        "arg=--clean",
        "arg=--if-exists",
        "arg=--no-password",
        "arg=--username=shop",
    ]
    assert "PGPASSWORD=from the file\n" in said
    assert "arg=--username=postgres\n" in run(DumpSettings("postgres"), "pg_dumpall")


def test_postgres_dumps_one_database_with_the_labels_words_untouched(run):
    """What a label says is never part of a script."""
    dump = DumpSettings("postgres", user="a b", database="$(touch /x) '\"")
    said = run(dump, "pg_dumpall", "pg_dump", POSTGRES_USER="other", given='pa"ss$word')
    assert "program=pg_dump\narg=--dbname=$(touch /x) '\"\n" in said
    assert "arg=--username=a b\n" in said
    assert 'PGPASSWORD=pa"ss$word\n' in said


@pytest.mark.parametrize(
    ("variables", "given", "user", "password", "database"),
    [
        ({"MYSQL_ROOT_PASSWORD": "r"}, "", "root", "r", "--all-databases"),
        ({"MARIADB_ROOT_PASSWORD": "m", "MYSQL_USER": "u"}, "", "root", "m", "--all-databases"),
        ({"MYSQL_USER": "u", "MYSQL_PASSWORD": "p"}, "g", "root", "g", "--all-databases"),
        (
            {"MYSQL_USER": "u", "MYSQL_PASSWORD": "p", "MYSQL_DATABASE": "d"},
            *("", "u", "p", "--databases\narg=d"),
        ),
        ({}, "", "root", "", "--all-databases"),
    ],
)
def test_mysql_logs_in_as_who_it_knows_the_password_of(  # noqa: PLR0917 - a table
    run, variables, given, user, password, database
):
    for engine in ("mysql", "mariadb"):
        said = run(DumpSettings(engine), "mysqldump", given=given, **variables)
        assert f"arg=--user={user}\n" in said
        assert f"MYSQL_PWD={password}\n" in said
        assert f"arg={database}\n" in said
        for option in ("--single-transaction", "--routines", "--events", "--triggers"):
            assert f"arg={option}\n" in said


def test_own_client_goes_before_the_others(run):
    both = ("mysqldump", "mariadb-dump")
    assert "program=mariadb-dump\n" in run(DumpSettings("mariadb"), *both)
    assert "program=mysqldump\n" in run(DumpSettings("mysql"), *both)


def test_mongodb_reads_its_password_from_standard_input(run):
    said = run(
        *(DumpSettings("mongodb"), "mongodump"),
        MONGO_INITDB_ROOT_USERNAME="root",
        MONGO_INITDB_ROOT_PASSWORD="p w",
    )
    assert "arg=--username=root\n" in said
    assert said.endswith("\np w\n")
    assert "arg=p w" not in said
    assert "username" not in run(DumpSettings("mongodb"), "mongodump")


def test_redis_prints_its_database(run):
    said = run(DumpSettings("redis", user="backup"), "redis-cli", REDIS_PASSWORD="r")
    assert "arg=--user\narg=backup\narg=--rdb\narg=-\n" in said
    assert "REDISCLI_AUTH=r\n" in said
    assert "arg=--rdb\n" in run(DumpSettings("redis"), "valkey-cli")


def test_client_that_fails_or_is_not_there_fails_the_dump(run):
    assert run(DumpSettings("mongodb")).startswith("exit 1: none of these programs")
    for engine, client in (
        ("postgres", "pg_dumpall"),
        ("mysql", "mysqldump"),
        ("mongodb", "mongodump"),
        ("redis", "redis-cli"),
    ):
        said = run(DumpSettings(engine), client, CLIENT_EXIT="9", MONGO_INITDB_ROOT_USERNAME="u")
        assert said.startswith("exit 9"), engine


def test_secret_file_that_cannot_be_read_fails_the_dump(run):
    """Rather than logging in without a password."""
    said = run(DumpSettings("postgres"), "pg_dumpall", POSTGRES_PASSWORD_FILE="/no/such/file")
    assert said.startswith("exit 1")
    assert "/no/such/file" in said


def test_command_gets_its_words_and_the_password(run):
    dump = DumpSettings(
        "command", command=("sh", "-c", 'printf "%s" "$KOPI_DUMP_PASSWORD $1"', "-", "a b")
    )
    assert run(dump, given="g") == "g a b"


def test_sqlite_copies_one_moment_of_a_database_that_is_written_to(tmp_path, monkeypatch):
    """With the real program, in WAL mode, beside an open writer; nothing is left behind."""
    if shutil.which("sqlite3") is None:
        pytest.fail("apt-get install sqlite3")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    live = sqlite3.connect(tmp_path / "it's live.db", isolation_level=None)
    live.execute("PRAGMA journal_mode=wal")
    live.execute("PRAGMA user_version=42")
    live.execute("CREATE TABLE t (x)")
    live.executemany("INSERT INTO t VALUES (?)", [("x" * 300,)] * 1000)
    live.execute("BEGIN")
    live.execute("INSERT INTO t VALUES ('not committed')")
    dump = DumpSettings("sqlite", path=str(tmp_path / "it's live.db"))
    argv = dump_argv(dump, END, with_password=False)
    done = subprocess.run(argv, capture_output=True, check=True)
    live.execute("ROLLBACK")
    live.close()
    content = done.stdout.removesuffix(END.encode())
    assert mark.sqlite(content[:4096], b"", len(content)) == mark.Whole()
    (tmp_path / "copy").write_bytes(content)
    copy = sqlite3.connect(tmp_path / "copy")
    assert copy.execute("SELECT count(*) FROM t").fetchone() == (1000,)
    assert copy.execute("PRAGMA user_version").fetchone() == (42,)
    assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    copy.close()
    assert list((tmp_path / "tmp").iterdir()) == []


def test_sqlite_is_copied_inside_of_a_read_transaction(run, tmp_path):
    """Else SQLite begins its backup anew at each write of another process, and may never end."""
    (tmp_path / "app.db").write_bytes(b"x")
    run(DumpSettings("sqlite", path=str(tmp_path / "app.db")), "sqlite3")  # makes the folder's link
    program = tmp_path / "bin" / "sqlite3"
    program.write_text(f'#!/bin/sh\nfor w; do echo "$w" >>{tmp_path}/said; done\n')
    run(DumpSettings("sqlite", path=str(tmp_path / "app.db")))
    words = (tmp_path / "said").read_text().splitlines()
    begun, read = words.index("BEGIN"), words.index("SELECT count(*) FROM sqlite_master")
    assert begun < read < next(at for at, word in enumerate(words) if word.startswith(".backup"))


@pytest.mark.parametrize(
    ("path", "words"), [("/no/such.db", "there is no file"), ("", "there is no file")]
)
def test_sqlite_never_makes_a_database(run, path, words):
    said = run(DumpSettings("sqlite", path=path), "sqlite3")
    assert words in said


def test_sqlite_refuses_what_is_no_database(tmp_path):
    (tmp_path / "text").write_text("not a database, though long enough to look like one" * 100)
    argv = dump_argv(DumpSettings("sqlite", path=str(tmp_path / "text")), END, with_password=False)
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "not a database" in done.stderr


def test_kill_ends_the_whole_group_of_a_dump():
    """The shell and what it started; a dump that is gone already is no trouble."""
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & sleep 60"], start_new_session=True)
    subprocess.run(kill_argv(child.pid), check=False)
    child.wait(10)
    with pytest.raises(ProcessLookupError):
        os.killpg(child.pid, 0)
