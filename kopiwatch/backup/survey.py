"""What one walk of the sources tells before the window: figures, and what Kopia does not keep."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

from kopiwatch.errors import RunError
from kopiwatch.kopia.outline import SUFFIX


class SurveySource(msgspec.Struct, frozen=True):
    """A source to be walked: ``path`` for the worker, ``name`` in the tree (``volumes/db``)."""

    path: str
    name: str


class SurveyOrder(msgspec.Struct, frozen=True):
    """What to walk, since when things count as changed (seconds since the epoch, 0 for always).

    The lists of attributes are written below ``into``.
    """

    sources: tuple[SurveySource, ...]
    since: float
    into: str


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
    one, ``placeholders`` are paths in the source (``.`` is the source itself) that Kopia would take
    for stand-ins of something else; both are the first few.
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
    placeholders: tuple[str, ...] = ()


class Survey(msgspec.Struct, frozen=True):
    """The walk of one run. ``since`` is seconds since the epoch, 0 when everything is new.

    ``seconds`` is how long the walk took, in the worker.
    """

    since: float = 0.0
    seconds: float = 0.0
    sources: tuple[SourceFigures, ...] = ()

    @property
    def remarks(self) -> tuple[str, ...]:
        """What of the sources no restore will be able to bring back, in words for people."""
        return tuple(
            f"{source.path}: what Kopia does not keep could not be read of "
            f"{source.unread} {'entry' if source.unread == 1 else 'entries'}, so no restore brings "
            f"it back (the first: {source.unread_example})"
            for source in self.sources
            if source.unread
        )

    @property
    def changed_files(self) -> int:
        """Files of all sources that changed."""
        return sum(source.changed_files for source in self.sources)

    @property
    def changed_bytes(self) -> int:
        """Bytes of all files that changed."""
        return sum(source.changed_bytes for source in self.sources)


def order(root: str, sources: Iterable[str], *, since: float, into: str) -> SurveyOrder:
    """The walk of these sources (paths in the tree), which the worker has below ``root``."""
    return SurveyOrder(
        tuple(SurveySource(f"{root}/{source}", source) for source in sources), since, into
    )


def refuse_names(unit: str, survey: Survey) -> None:
    """Raise RunError for names that Kopia would misread: what bears them would not come back."""
    _refuse_collisions(unit, survey)
    _refuse_placeholders(unit, survey)


def _refuse_placeholders(unit: str, survey: Survey) -> None:
    """Kopia would store what such an entry says it stands for, or nothing at all."""
    if unit.endswith(SUFFIX):  # the folder that its tree is mounted at
        raise RunError(
            f"unit {unit}: Kopia takes a name that ends in {SUFFIX} for a stand-in of something "
            "else, and would not read the unit's tree",
            phase="ready",
            reason="names-reserved",
            hint="give the unit another name with kopi.unit",
        )
    for source in survey.sources:
        if source.placeholders:
            raise RunError(
                f"unit {unit}: {', '.join(source.placeholders)} in {source.path}: "
                f"Kopia takes a name that ends in {SUFFIX} for a stand-in of something else, "
                "and would not store what is there",
                phase="ready",
                reason="names-reserved",
                hint="rename it, or leave that source out with kopi.exclude",
            )


def _refuse_collisions(unit: str, survey: Survey) -> None:
    """Of two entries that Kopia takes for one, only one would come back."""
    found = [(each.path, *pair) for each in survey.sources for pair in each.collisions]
    if not found:
        return
    source, one, other = found[0]
    more = f", and others, in {', '.join(sorted({s for s, *_ in found}))}" if found[1:] else ""
    raise RunError(
        f"unit {unit}: Kopia would store two names as one, for they are not UTF-8: "
        f'"{one}" and "{other}" in {source}{more}',
        phase="ready",
        reason="names-collide",
        hint="rename them, or leave that source out with kopi.exclude",
    )


def kept_aside(survey: Survey) -> str:
    """What a restore will put back although Kopia does not store it: a line, empty for nothing."""
    total = Counter[str]()
    for source in survey.sources:
        total.update(source.kept_aside)
    words = [f"{total[kind]} {_WORDS[kind][total[kind] > 1]}" for kind in _WORDS if total[kind]]
    return f"kept aside for a restore: {', '.join(words)}" if words else ""


_WORDS = {
    "hard-link": ("file with several names", "files with several names"),
    "xattrs": ("entry with extended attributes", "entries with extended attributes"),
    "fifo": ("FIFO", "FIFOs"),
    "socket": ("socket", "sockets"),
    "character": ("character device", "character devices"),
    "block": ("block device", "block devices"),
    "name": ("name that is not UTF-8", "names that are not UTF-8"),
}
