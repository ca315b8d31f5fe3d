"""What Kopia does not keep: reads the lists that stand below ``recipe/attributes`` in a point.

The worker writes them (:mod:`kopiwatch.worker.listing`); ``docs/attributes.md`` tells of the format
and of what a reader must mind. Names and paths are bytes here, as in the file system.
"""

from __future__ import annotations

import zlib
from typing import Literal

import msgspec

from kopiwatch.errors import AttributesDamaged

FORMAT = 1

NodeKind = Literal["fifo", "socket", "character", "block"]


class Time(msgspec.Struct, frozen=True):
    """The modification time of a folder or symbolic link, in nanoseconds since the epoch."""

    path: bytes
    mtime: int


class Node(msgspec.Struct, frozen=True):
    """A FIFO, socket or device. ``mode`` holds the permission bits, ``mtime`` is nanoseconds."""

    path: bytes
    kind: NodeKind
    mode: int
    uid: int
    gid: int
    mtime: int
    major: int = 0
    minor: int = 0


class HardLinks(msgspec.Struct, frozen=True):
    """Names of one file. ``outside`` is how many more it had outside the source."""

    paths: tuple[bytes, ...]
    outside: int = 0


class Xattrs(msgspec.Struct, frozen=True):
    """All extended attributes of an entry that could be seen: names and values."""

    path: bytes
    of: tuple[tuple[bytes, bytes], ...]


class Unread(msgspec.Struct, frozen=True):
    """What could not be looked at: the ``entry`` itself, a ``folder``, or an entry's ``xattrs``."""

    path: bytes
    part: Literal["entry", "folder", "xattrs"]
    why: str


class Attributes(msgspec.Struct, frozen=True):
    """A whole list. Paths are relative to the source, and empty for the source itself.

    ``source`` is its path in the tree. ``names`` are the paths whose last part is not UTF-8; in the
    tree they, and all that lies below them, go by :func:`stored`.
    """

    source: str
    folders: tuple[Time, ...] = ()
    symlinks: tuple[Time, ...] = ()
    names: tuple[bytes, ...] = ()
    nodes: tuple[Node, ...] = ()
    links: tuple[HardLinks, ...] = ()
    xattrs: tuple[Xattrs, ...] = ()
    unread: tuple[Unread, ...] = ()


def stored(path: bytes) -> str:
    """What a path is called in the tree: Kopia makes each byte that is no UTF-8 a U+FFFD."""
    shown = path.decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in shown)


def read(content: bytes) -> Attributes:
    """The list that a file holds. Raises AttributesDamaged unless it is whole."""
    *lines, rest = content.split(b"\n")
    try:
        if not lines or rest:
            raise AttributesDamaged("the list of attributes is cut off")
        header = msgspec.json.decode(lines[0], type=_Header)
        if header.format != FORMAT:
            raise AttributesDamaged(
                f"the list of attributes has format {header.format}; this version reads {FORMAT}",
                hint="use the version of kopiwatch that made the restore point, or a newer one",
            )
        _check_whole(lines, content)
        return _gathered(header.source, [_DECODER.decode(line) for line in lines[1:-1]])
    except (msgspec.MsgspecError, UnicodeError, KeyError) as error:
        raise AttributesDamaged(f"the list of attributes is damaged: {error}") from error


def _check_whole(lines: list[bytes], content: bytes) -> None:
    """The last line tells how many were before it, and their checksum."""
    end = msgspec.json.decode(lines[-1], type=_End)
    before = content[: -len(lines[-1]) - 1]
    if end.lines != len(lines) - 1 or int(end.crc, 16) != zlib.crc32(before):
        raise AttributesDamaged("the list of attributes is damaged: its checksum is another")


def _gathered(source: str, told: list[_Line]) -> Attributes:
    """Sort the lines by kind; sets that entries share are put where they belong."""
    sets = {
        number: tuple((_raw(name), value) for name, value in line.of)
        for number, line in enumerate(told, 1)
        if isinstance(line, _Xattrs) and line.of
    }
    return Attributes(
        source,
        folders=tuple(Time(_raw(x.path), x.mtime) for x in told if isinstance(x, _Folder)),
        symlinks=tuple(Time(_raw(x.path), x.mtime) for x in told if isinstance(x, _Symlink)),
        names=tuple(_raw(x.path) for x in told if isinstance(x, _Name)),
        nodes=tuple(_node(x) for x in told if isinstance(x, _Node)),
        links=tuple(
            HardLinks(tuple(_raw(path) for path in x.paths), x.outside)
            for x in told
            if isinstance(x, _HardLink)
        ),
        xattrs=tuple(
            Xattrs(_raw(x.path), sets[number if x.like is None else x.like])
            for number, x in enumerate(told, 1)
            if isinstance(x, _Xattrs)
        ),
        unread=tuple(Unread(_raw(x.path), x.part, x.why) for x in told if isinstance(x, _Unread)),
    )


# -- the lines, as they stand in the file ------------------------------------------------------


class _Base64(msgspec.Struct, frozen=True):
    base64: bytes


_Text = str | _Base64


def _raw(text: _Text) -> bytes:
    return text.encode() if isinstance(text, str) else text.base64


def _node(line: _Node) -> Node:
    return Node(
        *(_raw(line.path), line.kind, line.mode, line.uid, line.gid),
        mtime=line.mtime,
        major=line.major,
        minor=line.minor,
    )


class _Header(msgspec.Struct, tag_field="is", tag="attributes"):
    format: int
    source: str


class _End(msgspec.Struct, tag_field="is", tag="end"):
    lines: int
    crc: str


class _Folder(msgspec.Struct, tag_field="is", tag="folder"):
    path: _Text
    mtime: int


class _Symlink(msgspec.Struct, tag_field="is", tag="symlink"):
    path: _Text
    mtime: int


class _Name(msgspec.Struct, tag_field="is", tag="name"):
    path: _Text


class _Node(msgspec.Struct, tag_field="is", tag="node"):
    path: _Text
    kind: NodeKind
    mode: int
    uid: int
    gid: int
    mtime: int
    major: int = 0
    minor: int = 0


class _HardLink(msgspec.Struct, tag_field="is", tag="hard-link"):
    paths: tuple[_Text, ...]
    outside: int = 0


class _Xattrs(msgspec.Struct, tag_field="is", tag="xattrs"):
    path: _Text
    of: tuple[tuple[_Text, bytes], ...] = ()
    like: int | None = None


class _Unread(msgspec.Struct, tag_field="is", tag="unread"):
    path: _Text
    part: Literal["entry", "folder", "xattrs"]
    why: str


_Line = _Folder | _Symlink | _Name | _Node | _HardLink | _Xattrs | _Unread
_DECODER = msgspec.json.Decoder(_Line)
