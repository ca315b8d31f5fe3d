"""What one walk of the sources tells before the window: figures, and what Kopia does not keep."""

from __future__ import annotations

import msgspec


class Disk(msgspec.Struct, frozen=True):
    """The file system that a source lies on.

    ``type`` is the kernel's word (``ext4``, ``xfs``, ``btrfs``, ``tmpfs``); ``device`` its number
    in mountinfo (``259:1``), equal for two sources on one file system. ``free`` (for users without
    privilege) and ``total`` are bytes. ``in_memory`` says that the source lies on, or holds, a
    tmpfs or ramfs.
    """

    type: str = ""
    device: str = ""
    free: int = 0
    total: int = 0
    in_memory: bool = False


class SourceFigures(msgspec.Struct, frozen=True):
    """What was found below one source, by its path in the tree (``volumes/db``).

    ``files`` and ``bytes`` count regular files by the size they show, each name of a hard link
    again: that is what Kopia reads. Changed is what has an mtime or ctime since
    :attr:`Survey.since` (mtimes ahead of the clock do not count); ``largest_changed`` is the
    largest of those files, in bytes. A whole file counts, however little of it was written.

    ``kept_aside`` counts by kind what is in the list of attributes and a restore will put back:
    ``hard-link`` (groups), ``xattrs`` (entries), ``fifo``, ``socket``, ``character``, ``block``,
    ``name`` (names that are not UTF-8). ``outside_links`` are files of which other names lie
    outside the source. ``unread`` counts what could not be looked at, ``unread_example`` tells of
    the first. ``collisions`` are pairs of names (as Python shows bytes) that Kopia would store as
    one, the first few.
    """

    path: str
    files: int = 0
    bytes: int = 0
    folders: int = 0
    changed_files: int = 0
    changed_bytes: int = 0
    largest_changed: int = 0
    disk: Disk = Disk()
    kept_aside: dict[str, int] = msgspec.field(default_factory=dict)
    outside_links: int = 0
    unread: int = 0
    unread_example: str = ""
    collisions: tuple[tuple[str, str], ...] = ()


class Survey(msgspec.Struct, frozen=True):
    """The walk of one run. ``since`` is seconds since the epoch, 0 when everything is new.

    ``seconds`` is how long the walk took, in the worker.
    """

    since: float = 0.0
    seconds: float = 0.0
    sources: tuple[SourceFigures, ...] = ()

    @property
    def changed_files(self) -> int:
        """Files of all sources that changed."""
        return sum(source.changed_files for source in self.sources)

    @property
    def changed_bytes(self) -> int:
        """Bytes of all files that changed."""
        return sum(source.changed_bytes for source in self.sources)
