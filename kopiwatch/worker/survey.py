"""One walk of the sources: what changed, and what Kopia does not keep.

It costs a ``scandir``, and an ``lstat`` and a ``listxattr`` for each entry. Nothing is opened but
folders, so nothing of what is looked at can block, trigger or change. It runs beside the
containers, just before they stop: what vanishes meanwhile is passed over, and a folder that they
swap for a symbolic link leads nowhere.
"""

from __future__ import annotations

import errno
import os
import stat
import time

from kopiwatch.worker.child import show_life
from kopiwatch.worker.index import FOLDER_FLAGS
from kopiwatch.worker.listing import Listing, cannot_write, remove_others, stored, text
from kopiwatch.worker.sources import disk_of

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import Any

EXAMPLES = 3
PLACEHOLDER = b".kopia-entry"
"""How a name ends that Kopia takes for a stand-in of something stored before (measured, 0.23.1)."""
NO_XATTRS = (errno.ENOTSUP, errno.ENOSYS)
GONE = (errno.ENOENT, errno.ENOTDIR)
NODES = {
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
}
FORMAT_BITS = 0o170000


def survey(sources: list[dict[str, str]], since: float, into: str) -> dict[str, Any]:
    """Walk each source (``path``, and its ``name`` in the tree); lists go below ``into``.

    ``since`` is seconds since the epoch. Returns a ``Survey`` of :mod:`kopiwatch.backup.survey`.
    """
    began = time.monotonic()
    found = [Walk(source["path"], source["name"], since, into).run() for source in sources]
    try:
        remove_others(into, [source["name"] for source in sources])
    except OSError as error:
        raise cannot_write(error) from error
    return {"since": since, "seconds": time.monotonic() - began, "sources": found}


class Walk:
    """The walk of one source; ``path`` may be a single file."""

    def __init__(self, path: str, name: str, since: float, into: str) -> None:
        self._path = path
        self._root = os.fsencode(path.rstrip("/"))
        self._cut = len(self._root) + 1
        self._place = b""
        self._name = name
        self._since = int(since * 1e9)
        self._now = time.time_ns()
        self._into = into
        self._links: dict[tuple[int, int], list[bytes]] = {}
        self._names: dict[tuple[int, int], int] = {}
        self._aside: dict[str, int] = {}
        self._collisions: list[tuple[str, str]] = []
        self._placeholders: list[str] = []
        self._files = self._bytes = self._folders = 0
        self._changed_files = self._changed_bytes = self._largest_changed = 0
        self._unread = 0
        self._unread_example = ""

    def run(self) -> dict[str, Any]:
        """Walk, write the list, and tell the figures."""
        disk = disk_of(self._path)
        try:
            list_path = os.path.join(self._into, self._name)
            self._listing = Listing(list_path, os.path.join(self._into, ".new"), self._name)
            try:
                self._walk()
                outside = self._end_links()
                self._listing.finish()
            except BaseException:
                self._listing.drop()
                raise
        except OSError as error:
            raise cannot_write(error) from error
        return {
            "path": self._name,
            "files": self._files,
            "bytes": self._bytes,
            "folders": self._folders,
            "changed_files": self._changed_files,
            "changed_bytes": self._changed_bytes,
            "largest_changed": self._largest_changed,
            "disk": disk,
            "kept_aside": self._aside,
            "outside_links": outside,
            "unread": self._unread,
            "unread_example": self._unread_example,
            "collisions": self._collisions,
            "placeholders": self._placeholders,
        }

    def _walk(self) -> None:
        try:
            status = os.lstat(self._root)
        except OSError as error:
            self._cannot("entry", b"", error)
            return
        folders = [self._root] if self._entry(self._root, status, self._root) else []
        if os.fsencode(self._name).endswith(PLACEHOLDER):
            self._placeholders.append(".")
        home = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            while folders:
                show_life()
                folder = folders.pop()
                try:
                    self._enter(folder)
                    self._folder(folder, folders)
                except OSError as error:
                    self._cannot("folder", folder, error)
        finally:
            os.fchdir(home)
            os.close(home)

    def _enter(self, folder: bytes) -> None:
        """Make a folder the current one, so that names in it are looked up nowhere else.

        Raises OSError: ENOENT if what the path leads to by now lies somewhere else.
        """
        handle = os.open(folder, FOLDER_FLAGS)
        try:
            place = os.readlink(b"/proc/self/fd/%d" % handle)
            self._place = self._place or place
            if place != self._place + folder[len(self._root) :]:
                raise OSError(errno.ENOENT, "it was moved")
            os.fchdir(handle)
        finally:
            os.close(handle)

    def _folder(self, folder: bytes, folders: list[bytes]) -> None:
        """Look at all entries of the current folder; folders are added to ``folders``."""
        odd: dict[str, bytes] = {}
        above = folder + b"/"
        with os.scandir(b".") as entries:
            for count, entry in enumerate(entries):
                if not count & 0xFFF:
                    show_life()
                path = above + entry.name
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError as error:
                    self._cannot("entry", path, error)
                    continue
                if self._entry(path, status, entry.name):
                    folders.append(path)
                if entry.name.endswith(PLACEHOLDER):
                    self._placeholder(path, status.st_mode)
                if not entry.name.isascii():
                    self._look_at_name(entry.name, path, status.st_mode, odd)

    def _entry(self, path: bytes, status: os.stat_result, here: bytes) -> bool:
        """Take one entry in; True for a folder. ``here`` is how it is found just now."""
        form = status.st_mode & FORMAT_BITS
        is_folder = form == stat.S_IFDIR
        if form == stat.S_IFREG:
            self._count(status)
        elif is_folder:
            self._folders += 1
            self._list("folder", path, mtime=status.st_mtime_ns)
        elif form == stat.S_IFLNK:
            self._list("symlink", path, mtime=status.st_mtime_ns)
        else:
            self._node(NODES[form], path, status)
        if status.st_nlink > 1 and not is_folder:
            key = (status.st_dev, status.st_ino)
            self._links.setdefault(key, []).append(path[self._cut :])
            self._names[key] = status.st_nlink
        self._xattrs(path, here)
        return is_folder

    def _count(self, status: os.stat_result) -> None:
        size = status.st_size
        self._files += 1
        self._bytes += size
        # A ctime is the kernel's; an mtime is whatever somebody set, so one of tomorrow tells
        # nothing.
        if status.st_ctime_ns >= self._since or self._since <= status.st_mtime_ns <= self._now:
            self._changed_files += 1
            self._changed_bytes += size
            self._largest_changed = max(self._largest_changed, size)

    def _node(self, kind: str, path: bytes, status: os.stat_result) -> None:
        """Something that Kopia leaves out without a word."""
        self._note(kind)
        device = {}
        if kind in ("character", "block"):
            device = {"major": os.major(status.st_rdev), "minor": os.minor(status.st_rdev)}
        self._list(
            "node",
            path,
            kind=kind,
            mode=stat.S_IMODE(status.st_mode),
            uid=status.st_uid,
            gid=status.st_gid,
            mtime=status.st_mtime_ns,
            **device,
        )

    def _xattrs(self, path: bytes, here: bytes) -> None:
        try:
            names = os.listxattr(here, follow_symlinks=False)
            if not names:
                return
            found = self._values(here, names)
        except OSError as error:
            if error.errno not in NO_XATTRS:
                self._cannot("xattrs", path, error)
            return
        if found:
            self._note("xattrs")
            self._listing.xattrs(path[self._cut :], found)

    @staticmethod
    def _values(here: bytes, names: list[str]) -> list[tuple[bytes, bytes]]:
        found = []
        for name in sorted(names):
            try:
                value = os.getxattr(here, name, follow_symlinks=False)
            except OSError as error:
                if error.errno != errno.ENODATA:
                    raise
                continue
            found.append((os.fsencode(name), value))
        return found

    def _placeholder(self, path: bytes, mode: int) -> None:
        """Something whose name has Kopia store what is written in it in its place, or nothing."""
        if mode & FORMAT_BITS not in NODES and len(self._placeholders) < EXAMPLES:
            self._placeholders.append(_shown(path[self._cut :]))

    def _look_at_name(self, name: bytes, path: bytes, mode: int, odd: dict[str, bytes]) -> None:
        """See whether a name is UTF-8, and whether Kopia can tell it from the others."""
        kept = stored(name)
        if "\ufffd" not in kept:
            return
        if kept.encode() != name:
            self._note("name")
            self._list("name", path)
        if mode & FORMAT_BITS in NODES:
            return  # Kopia does not store these, by whatever name.
        if kept in odd and len(self._collisions) < EXAMPLES:
            folder = path[self._cut :].removesuffix(name)
            self._collisions.append((_shown(folder + odd[kept]), _shown(folder + name)))
        odd[kept] = name

    def _end_links(self) -> int:
        """List the groups; returns how many files have names outside the source."""
        outside = 0
        for key, paths in self._links.items():
            others = max(0, self._names[key] - len(paths))
            outside += others > 0
            if len(paths) > 1:
                self._note("hard-link")
                self._listing.line(
                    {"is": "hard-link", "paths": [text(p) for p in paths], "outside": others}
                )
        return outside

    def _list(self, what: str, path: bytes, **fields: object) -> None:
        self._listing.line({"is": what, "path": text(path[self._cut :]), **fields})

    def _note(self, kind: str) -> None:
        self._aside[kind] = self._aside.get(kind, 0) + 1

    def _cannot(self, part: str, path: bytes, error: OSError) -> None:
        """Something that cannot be looked at, unless it has merely gone meanwhile."""
        if error.errno in GONE and path != self._root:
            return
        self._unread += 1
        why = error.strerror or str(error)
        self._unread_example = self._unread_example or f"{stored(path[self._cut :]) or '.'}: {why}"
        self._list("unread", path, part=part, why=why)


def _shown(name: bytes) -> str:
    """A name for people, with a backslash and two digits for each byte that is no UTF-8."""
    return name.decode("utf-8", "backslashreplace")
