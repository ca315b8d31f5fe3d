"""What a stage was made from: the look of each entry before its data was taken."""

from __future__ import annotations

import operator
import os
import time

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Callable

    Key = tuple[int, ...]

key_of: Callable[[os.stat_result], Key] = operator.attrgetter(
    "st_mode", "st_ctime_ns", "st_mtime_ns", "st_size", "st_ino", "st_dev", "st_uid", "st_gid"
)
"""All that changes when a file does. The change time moves with each change of content, owner or
mode, but a tick of the kernel's clock (up to 10 ms) shows the same one twice: see :func:`settled`.
"""

YOUNG_NS = 2_000_000_000


def mode_of(key: Key) -> int:
    """Kind and permissions of an entry."""
    return key[0]


def unsettled(key: Key) -> Key:
    """The same kind of entry, but equal to none that will be seen."""
    return (key[0], -1, *key[2:])


def settled(key: Key, begun_ns: int) -> Key:
    """The key, if a later change is sure to alter it.

    What changed less than 2 s before the pass began could change again within the same tick, or
    within the seconds that a file system rounds its times to. Only the change time is looked at:
    the modification time is anybody's to set.
    """
    return key if key[1] < begun_ns - YOUNG_NS else unsettled(key)


class Folder:
    """One folder of the index: its own key, the keys of what it holds, and its folders."""

    __slots__ = ("entries", "folders", "key")

    def __init__(self) -> None:
        self.key: Key = ()
        self.entries: dict[str, Key] = {}
        self.folders: dict[str, Folder] = {}


class Figures:
    """What one order did, and how much there is."""

    def __init__(self) -> None:
        self.files = 0
        self.folders = 0
        self.links = 0
        self.bytes = 0
        self.fresh = 0
        self.fresh_bytes = 0
        self.deleted = 0
        self.vanished = 0
        self._begun = time.monotonic()

    def told(self) -> dict[str, float]:
        """All of them, with the seconds since the beginning."""
        figures = {name: value for name, value in vars(self).items() if name[0] != "_"}
        return {**figures, "seconds": round(time.monotonic() - self._begun, 6)}


def survey(source: int) -> Folder:
    """The keys of all below an open folder, as they are now; what vanishes is left out."""
    found = Folder()
    found.key = key_of(os.fstat(source))
    with os.scandir(source) as listing:
        for item in listing:
            try:
                if not item.is_dir(follow_symlinks=False):
                    found.entries[item.name] = key_of(item.stat(follow_symlinks=False))
                    continue
                handle = os.open(item.name, FOLDER_FLAGS, dir_fd=source)
            except OSError:
                continue
            try:
                found.folders[item.name] = survey(handle)
            finally:
                os.close(handle)
    return found


FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
