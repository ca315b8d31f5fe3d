"""End marks: how a dump that is whole differs from one that is cut off, by its own format.

Each check gets the beginning and the end of a dump and its size. It returns what is wrong, empty
for nothing, and how many bytes behind the end do not belong to it. Beside these marks every dump is
followed by a random one of ours, which its command prints only after a success.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

import msgspec

WINDOW_BYTES = 4096
"""How much of the beginning and of the end a check gets to see."""


class Whole(msgspec.Struct, frozen=True):
    """What a check found. ``surplus`` is counted in bytes."""

    fault: str = ""
    surplus: int = 0


Check = Callable[[bytes, bytes, int], Whole]
"""Beginning, end, size in bytes."""

_POSTGRES = re.compile(
    rb"\n-- PostgreSQL database (?:cluster )?dump complete\n--\n(?:\s|\\unrestrict \w+\n)*\Z"
)
_MYSQL = re.compile(rb"\n-- Dump completed(?: on [-0-9: ]+)?\n\Z")
_HEX = re.compile(rb"[0-9a-f]{40}\Z")
_MONGO_MAGIC = struct.pack("<I", 0x8199E26D)
_MONGO_END = b"\xff\xff\xff\xff"
_SQLITE_MAGIC = b"SQLite format 3\0"


def postgres(_head: bytes, tail: bytes, _size: int) -> Whole:
    """The last comment of pg_dump and pg_dumpall (PostgreSQL 9 to 18).

    Since 17.6 (and the minor releases of that day) a line ``unrestrict`` may follow it.
    """
    return Whole() if _POSTGRES.search(tail) else Whole("it lacks the comment 'dump complete'")


def mysql(_head: bytes, tail: bytes, _size: int) -> Whole:
    """The last comment of mysqldump and mariadb-dump."""
    return Whole() if _MYSQL.search(tail) else Whole("it lacks the comment 'Dump completed'")


def mongodb(head: bytes, tail: bytes, _size: int) -> Whole:
    """An archive begins with its magic number and ends with a terminator (mongo-tools, archive).

    Each of its blocks ends so, too: cut off right there, only our own mark tells.
    """
    if not head.startswith(_MONGO_MAGIC):
        return Whole("it is no archive of mongodump")
    return Whole() if tail.endswith(_MONGO_END) else Whole("the archive lacks its terminator")


def redis(head: bytes, tail: bytes, _size: int) -> Whole:
    """An RDB file ends with 0xFF and eight bytes of checksum (since version 5 of the format).

    A server that replicates without a disk puts 40 hexadecimal digits behind it, which redis-cli
    cuts off from a file and leaves in what it prints (7.0).
    """
    if not head.startswith((b"REDIS", b"VALKEY")):
        return Whole("it is no RDB file")
    if _HEX.search(tail) and tail[-49:-48] == b"\xff":
        return Whole(surplus=40)
    return Whole() if tail[-9:-8] == b"\xff" else Whole("the RDB file lacks its end")


def sqlite(head: bytes, _tail: bytes, size: int) -> Whole:
    """A database file says in its header how many pages it has (SQLite's file format, 1.3)."""
    if not head.startswith(_SQLITE_MAGIC) or len(head) < 100:
        return Whole("it is no SQLite database")
    page = struct.unpack_from(">H", head, 16)[0]
    expected = (65536 if page == 1 else page) * struct.unpack_from(">I", head, 28)[0]
    return Whole() if size == expected else Whole(f"it has {size} bytes and says {expected}")


def anything(_head: bytes, _tail: bytes, _size: int) -> Whole:
    """A command of the user's own has no mark that we know."""
    return Whole()
