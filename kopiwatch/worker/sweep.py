"""Deletes what a stage holds: never what is mounted there, never a folder that is no stage."""

from __future__ import annotations

import errno
import os
import stat
import time

from kopiwatch.worker.index import FOLDER_FLAGS
from kopiwatch.worker.sources import mount_of
from kopiwatch.worker.speech import Refused

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import Any

MARK = "user.kopiwatch.stage"
"""The extended attribute of a folder whose content is ours to delete. Kopia stores none of them."""
MODE = 0o700
"""In a folder of the operator's this keeps the users of the host out, as Docker's own folder does
for volumes: a copy has the owner and mode of its source, and a setuid program its bit."""
KEPT = "lost+found"
BIG_BYTES = 1024 * 1024


def open_stage(stage: str) -> int:
    """Open a stage; its descriptor. Raises Refused if there is no such folder."""
    try:
        return os.open(stage, FOLDER_FLAGS)
    except OSError as error:
        raise Refused("stage", f"the stage {stage} cannot be used: {error.strerror}") from error


def claim(stage: str) -> None:
    """Make a folder a stage. Raises Refused if it holds a file that is not ours.

    Empty folders are accepted: Docker leaves them behind as the places of mounts.
    """
    handle = open_stage(stage)
    try:
        if _is_marked(handle):
            os.fchmod(handle, MODE)
            return
        if (name := _first_file(handle, mount_of(handle))) is not None:
            text = f"the stage {stage} holds {name!r}, which kopiwatch did not make: name another"
            raise Refused("stage", text)
        os.setxattr(handle, MARK, b"1")
        os.fchmod(handle, MODE)
    except OSError as error:
        raise Refused("stage", f"the stage {stage} cannot be used: {error.strerror}") from error
    finally:
        os.close(handle)


def _is_marked(handle: int) -> bool:
    """Whether the folder is a stage."""
    try:
        return os.getxattr(handle, MARK) == b"1"
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.EOPNOTSUPP):
            return False
        raise


def _first_file(folder: int, mount: str) -> str | None:
    """The name of anything below that is no folder, mounts aside; None if there is nothing."""
    with os.scandir(folder) as listing:
        for item in listing:
            if not item.is_dir(follow_symlinks=False):
                if not _is_mount(item.name, folder, mount):
                    return item.name
                continue
            handle = _enter(item.name, folder, mount)
            if handle is None:
                continue
            try:
                if (name := _first_file(handle, mount)) is not None:
                    return f"{item.name}/{name}"
            finally:
                os.close(handle)
    return None


def _is_mount(name: str, folder: int, mount: str) -> bool:
    """Whether something is mounted on this entry."""
    try:
        handle = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        return mount_of(handle) != mount
    finally:
        os.close(handle)


def _enter(name: str, folder: int, mount: str) -> int | None:
    """Open a folder in a folder; None if something is mounted there."""
    handle = os.open(name, FOLDER_FLAGS, dir_fd=folder)
    try:
        if mount_of(handle) == mount:
            return handle
    except BaseException:
        os.close(handle)
        raise
    os.close(handle)
    return None


class Sweeper:
    """Deletes the content of folders of one mount."""

    def __init__(self, mount: str) -> None:
        self.mount = mount
        self.files = 0
        self.bytes = 0

    def shed(self, folder: int) -> None:
        """Empty the big files below: that gives back most of the space, long before the rest."""
        for name, is_folder in _names(folder):
            if is_folder:
                handle = _enter(name, folder, self.mount)
                if handle is None:
                    continue
                try:
                    self.shed(handle)
                finally:
                    os.close(handle)
            elif os.stat(name, dir_fd=folder, follow_symlinks=False).st_size >= BIG_BYTES:
                self._cut(name, folder)

    def _cut(self, name: str, folder: int) -> None:
        handle = os.open(
            name, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder
        )
        try:
            found = os.fstat(handle)
            if stat.S_ISREG(found.st_mode) and mount_of(handle) == self.mount:
                self.bytes += found.st_size
                os.ftruncate(handle, 0)
        finally:
            os.close(handle)

    def empty(self, folder: int, keep: tuple[str, ...] = ()) -> bool:
        """Delete all that an open folder holds; False if mounts keep something in it."""
        bare = True
        for name, is_folder in _names(folder):
            if name in keep:
                continue
            remove = self.remove_folder if is_folder else self.remove_file
            bare &= remove(name, folder)
        return bare

    def remove_folder(self, name: str, folder: int) -> bool:
        """Delete a folder with all it holds; False if something is mounted on or below it."""
        handle = _enter(name, folder, self.mount)
        if handle is None:
            return False
        try:
            bare = self.empty(handle)
        finally:
            os.close(handle)
        if bare:
            try:
                os.rmdir(name, dir_fd=folder)
            except OSError as error:
                # EBUSY: mounted on meanwhile. ENOTEMPTY: what a killed child was still making.
                if error.errno not in (errno.EBUSY, errno.ENOTEMPTY):
                    raise
                return False
        return bare

    def remove_file(self, name: str, folder: int) -> bool:
        """Delete anything but a folder; False if something is mounted on it."""
        length = os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
        try:
            os.unlink(name, dir_fd=folder)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            return False
        self.files += 1
        self.bytes += length
        return True


def _names(folder: int) -> list[tuple[str, bool]]:
    """What a folder holds, and whether each is a folder; listed before anything is deleted."""
    with os.scandir(folder) as listing:
        return [(item.name, item.is_dir(follow_symlinks=False)) for item in listing]


def sweep(stage: str, *, shed: bool = False) -> dict[str, Any]:
    """Delete all that lies in a stage: ``{files, bytes, seconds}``; the folder itself stays.

    What was never a stage, and does not exist, is left alone. ``shed`` empties the big files first.
    Raises Refused if something cannot be deleted.
    """
    begun = time.monotonic()
    try:
        handle = os.open(stage, FOLDER_FLAGS)
    except FileNotFoundError:
        return {"files": 0, "bytes": 0, "seconds": 0.0}
    except OSError as error:
        raise Refused("stage", f"the stage {stage} cannot be used: {error.strerror}") from error
    try:
        sweeper = Sweeper(mount_of(handle))
        if _is_marked(handle):
            if shed:
                sweeper.shed(handle)
            sweeper.empty(handle, keep=(KEPT,))
    except OSError as error:
        text = f"the stage {stage} cannot be emptied: {error.strerror}"
        raise Refused("stage", text) from error
    finally:
        os.close(handle)
    seconds = round(time.monotonic() - begun, 6)
    return {"files": sweeper.files, "bytes": sweeper.bytes, "seconds": seconds}
