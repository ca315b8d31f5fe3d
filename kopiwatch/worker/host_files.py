"""Small files of Docker's host, read for the recipe: by their paths there, never out of bounds.

Each folder or file that may be read is mounted somewhere (a *root*). A path is walked part by part
with descriptors that follow no symbolic link; each link is read and followed by hand, within the
roots. Nobody can swap a part for a link meanwhile and lead us to a place of this worker's own.
"""

from __future__ import annotations

import base64
import errno
import os
import stat

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import Any

LINKS = 40
FOLDER_FILES = 100


class Unread(Exception):
    """Why a file is not read: a stable word, and words for people."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


class Found:
    """An open descriptor (``O_PATH``) of what a path leads to."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self.status = os.fstat(handle)


class Reader:
    """Reads files below ``roots`` (pairs of host path and mount point).

    ``own`` are folders of kopiwatch itself as this worker sees them, and ``locks`` the one among
    them whose parent is the state folder: nothing in them is read, by whatever path.
    """

    def __init__(self, roots: list[list[str]], own: list[str], locks: str) -> None:
        present = [(host, point) for host, point in roots if os.path.lexists(point)]
        self.roots = sorted(present, key=lambda root: -len(root[0]))
        self.absent = [host for host, point in roots if not os.path.lexists(point)]
        self.own = {identity for path in own if (identity := _identity(path))}
        self.locks = _identity(locks)

    def find(self, path: str) -> Found:
        """Where a host path leads to. The caller closes the handle. Raises Unread or OSError."""
        done: list[str] = []
        pending = _parts(path)[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                done = done[:-1]
                continue
            done.append(part)
            # Above and at a root there is nothing to be seen: Docker resolved that for us.
            if self._root(done[:-1]) is None:
                continue
            handle = self._open(done)
            if not stat.S_ISLNK(os.fstat(handle).st_mode):
                os.close(handle)
                continue
            try:
                target = os.readlink("", dir_fd=handle)
            finally:
                os.close(handle)
            links += 1
            if links > LINKS:
                raise Unread("loop", "its symbolic links lead in a circle")
            done = [] if target.startswith("/") else done[:-1]
            pending += _parts(target)[::-1]
        return Found(self._open(done))

    def _root(self, parts: list[str]) -> tuple[str, str] | None:
        """The innermost root that is or holds this path."""
        path = "/" + "/".join(parts)
        for host, point in self.roots:
            if path == host or path.startswith(host + "/"):
                return host, point
        return None

    def _open(self, parts: list[str]) -> int:
        """Walk from the root to this path, in which no part but the last may be a link."""
        root = self._root(parts)
        path = "/" + "/".join(parts)
        if root is None:
            gone = [host for host in self.absent if path == host or path.startswith(host + "/")]
            if gone:
                raise Unread("missing", f"{gone[0]} is not there")
            raise Unread("outside", f"it leads to {path}, which lies outside what may be read")
        host, point = root
        flags = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
        handle = os.open(point, flags)
        for part in _parts(path[len(host) :]):
            self._refuse_own(handle)
            before = handle
            try:
                handle = os.open(part, flags, dir_fd=before)
            finally:
                os.close(before)
        try:
            self._refuse_own(handle)
        except Unread:
            os.close(handle)
            raise
        return handle

    def _refuse_own(self, handle: int) -> None:
        status = os.fstat(handle)
        mine = (status.st_dev, status.st_ino) in self.own
        if not mine and self.locks and stat.S_ISDIR(status.st_mode):
            mine = _identity("locks", handle) == self.locks
        if mine:
            raise Unread("own", "it is kopiwatch's own")

    def read(self, path: str, limit: int) -> dict[str, Any]:
        """A regular file: ``content`` (base64), ``mode``, ``uid``, ``gid``, ``mtime`` (ns).

        Raises Unread or OSError; ``limit`` is in bytes.
        """
        found = self.find(path)
        try:
            status = found.status
            if not stat.S_ISREG(status.st_mode):
                raise Unread("kind", f"it is {kind_of(status.st_mode)}, not a file")
            if status.st_size > limit:
                raise Unread("large", f"it is too large ({status.st_size} bytes)")
            # The very file that was looked at, whatever its path leads to by now.
            handle = os.open(f"/proc/self/fd/{found.handle}", os.O_RDONLY | os.O_CLOEXEC)
            with os.fdopen(handle, "rb") as file:
                content = file.read(limit + 1)
        finally:
            os.close(found.handle)
        if len(content) > limit:
            raise Unread("large", "it is too large, and growing")
        return {
            "content": base64.b64encode(content).decode(),
            "mode": stat.S_IMODE(status.st_mode),
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime": status.st_mtime_ns,
        }

    def names(self, path: str) -> list[str]:
        """The entries of a folder, sorted. Raises Unread or OSError."""
        found = self.find(path)
        try:
            if not stat.S_ISDIR(found.status.st_mode):
                return []
            return sorted(os.listdir(f"/proc/self/fd/{found.handle}"))[:FOLDER_FILES]
        finally:
            os.close(found.handle)


def read_files(
    *,
    roots: list[list[str]],
    own: list[str],
    locks: str,
    paths: list[str],
    folders: list[str],
    limits: list[int],
) -> list[dict[str, Any]]:
    """Read ``paths`` and the files directly in ``folders``, all of them on Docker's host.

    ``limits`` are the bytes of one file and of all. An object for each file, with its ``path`` and
    either what :meth:`Reader.read` returns, or ``reason`` and ``text`` of what stands in the way.
    """
    reader = Reader(roots, own, locks)
    one, room = limits
    told = []
    for folder in folders:
        try:
            paths = paths + [f"{folder}/{name}" for name in reader.names(folder)]
        except (Unread, OSError) as error:
            told.append({"path": folder, **problem(error)})
    for path in paths:
        try:
            answer = reader.read(path, min(one, room))
            room -= len(answer["content"]) * 3 // 4
        except (Unread, OSError, ValueError) as error:
            answer = problem(error)
        told.append({"path": path, **answer})
    return told


def problem(error: Exception) -> dict[str, str]:
    """What stands in the way, as ``reason`` and ``text``."""
    if isinstance(error, Unread):
        return {"reason": error.reason, "text": error.text}
    if not isinstance(error, OSError):
        return {"reason": "name", "text": "that is not a path"}
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return {"reason": "missing", "text": "it is not there"}
    return {"reason": "unreadable", "text": error.strerror or type(error).__name__}


def kind_of(mode: int) -> str:
    """What it is instead of a file."""
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a FIFO"
    return "a socket" if stat.S_ISSOCK(mode) else "a device"


def _parts(path: str) -> list[str]:
    return [part for part in path.split("/") if part not in ("", ".")]


def _identity(path: str, folder: int | None = None) -> tuple[int, int] | None:
    try:
        status = os.stat(path, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
