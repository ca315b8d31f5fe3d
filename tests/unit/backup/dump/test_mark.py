"""End marks: what is whole passes, and what is cut off anywhere does not."""

from __future__ import annotations

import sqlite3
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kopiwatch.backup.dump import mark

POSTGRES = b"--\n-- x\nCREATE TABLE t;\n\n--\n-- PostgreSQL database%s dump complete\n--\n\n"
UNRESTRICT = b"\\unrestrict FwSpDhUXdiYl7iKMCgMm25K2\n\n"
MYSQL = b"-- MariaDB dump 10.19\nCREATE TABLE t;\n-- Dump completed on 2026-01-02 12:00:00\n"
MONGO = struct.pack("<I", 0x8199E26D) + b"header\xff\xff\xff\xffbody" + b"\xff" * 4
REDIS = b"REDIS0011\xfa\x09redis-ver\x057.0.15\xfe\x00data\xff" + bytes(range(8))
WHOLE = [
    (mark.postgres, POSTGRES % b""),
    (mark.postgres, POSTGRES % b" cluster"),
    (mark.postgres, (POSTGRES % b"") + UNRESTRICT),
    (mark.mysql, MYSQL),
    (mark.mysql, MYSQL.replace(b" on 2026-01-02 12:00:00", b"")),
    (mark.mongodb, MONGO),
    (mark.redis, REDIS),
]


def look(check: mark.Check, content: bytes) -> mark.Whole:
    window = mark.WINDOW_BYTES
    return check(content[:window], content[-window:], len(content))


@pytest.mark.parametrize(("check", "content"), WHOLE)
def test_whole_dump_passes_as_it_is(check, content):
    assert look(check, content) == mark.Whole()


@pytest.mark.parametrize(("check", "content"), WHOLE)
def test_no_prefix_of_a_dump_passes(check, content):
    """Every byte is tried, but for what may follow a last comment.

    A block of mongodump ends like the whole: there only our own mark behind the dump tells.
    """
    whole = content.removesuffix(UNRESTRICT).rstrip(b"\n")
    whole = content if check not in (mark.postgres, mark.mysql) else whole
    for size in range(len(whole)):
        if not (check is mark.mongodb and whole[:size].endswith(b"\xff" * 4)):
            assert look(check, whole[:size]).fault, size


@given(st.binary(max_size=200), st.sampled_from(WHOLE))
def test_a_mark_that_stands_in_the_middle_is_none(more, pair):
    """Data may hold the very words."""
    check, content = pair
    if check in (mark.postgres, mark.mysql) and more.strip():
        assert look(check, content + b"INSERT" + more + b"x").fault


def test_redis_behind_a_server_without_a_disk_loses_forty_digits():
    """They mark the end of the transfer and are no part of the file."""
    assert look(mark.redis, REDIS + b"0123456789abcdef" * 2 + b"01234567") == mark.Whole(surplus=40)


@pytest.mark.parametrize("journal", ["delete", "wal"])
def test_copy_of_a_database_is_whole_only_with_all_its_pages(tmp_path: Path, journal):
    """SQLite itself makes it, as its own backup does."""
    with sqlite3.connect(tmp_path / "live") as live:
        live.execute(f"PRAGMA journal_mode={journal}")
        live.execute("CREATE TABLE t (x)")
        live.executemany("INSERT INTO t VALUES (?)", [("x" * 300,)] * 100)
        live.commit()
        copy = sqlite3.connect(tmp_path / "copy")
        live.backup(copy)
        copy.close()
    live.close()
    content = (tmp_path / "copy").read_bytes()
    assert look(mark.sqlite, content) == mark.Whole()
    for size in (0, 50, 100, 4096, len(content) - 4096, len(content) - 1):
        assert look(mark.sqlite, content[:size]).fault
    assert look(mark.sqlite, content + b"x").fault


def test_empty_and_foreign_content_is_no_dump():
    for check, _ in [*WHOLE, (mark.sqlite, b"")]:
        assert look(check, b"").fault
        assert look(check, b"error: role does not exist\n").fault
