"""The files that a recipe keeps beside its definitions, and those that it had to leave out."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from kopiwatch.durable import write_durably
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.outline import SUFFIX

FOLDERS = ("compose", "docker")
"""The folders of a recipe that hold copies, and nothing else."""
REPLACED = b"removed-by-kopiwatch"
RESERVED = f"Kopia takes a name that ends in {SUFFIX} for a stand-in of something else"
SHORTEST_PASSWORD = 8
"""Bytes; a shorter one may stand in any text by chance."""


class HostFile(msgspec.Struct, frozen=True):
    """What a worker says of one file of Docker's host, by its path there.

    ``reason`` and ``text`` say why there is no content; ``mtime`` is in nanoseconds.
    """

    path: str
    content: bytes = b""
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime: int = 0
    reason: str = ""
    text: str = ""


class KeptFile(msgspec.Struct, frozen=True):
    """A copy in the recipe.

    ``path`` is where it was on Docker's host, ``stored`` where it lies below ``recipe/``;
    ``sha256`` and ``size`` are those of the copy; ``mode``, ``uid``, ``gid`` and ``mtime``
    (nanoseconds since 1970, UTC) those of the original. A ``redacted`` copy differs from it.
    """

    kind: str
    path: str
    stored: str
    sha256: str
    size: int
    mode: int
    uid: int
    gid: int
    mtime: int
    redacted: bool = False


class LeftOut(msgspec.Struct, frozen=True):
    """A file that should stand in the recipe, or could, and does not.

    ``path`` is as somebody named it, ``by`` who did. ``reason`` is a stable word (``missing``,
    ``outside``, ``large``, ``kind``, ``own``, …), ``text`` says it to people. One that is not
    ``required`` is not missed.
    """

    kind: str
    path: str
    by: str
    reason: str
    text: str
    required: bool = True


def keep(kind: str, found: HostFile, stored: str, content: bytes) -> KeptFile:
    """The manifest's line of a copy with this content."""
    return KeptFile(
        kind=kind,
        path=found.path,
        stored=stored,
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        mode=found.mode,
        uid=found.uid,
        gid=found.gid,
        mtime=found.mtime,
        redacted=content != found.content,
    )


def reserved(path: str) -> bool:
    """Whether Kopia would store something else in the place of a copy with this path."""
    return any(part.endswith(SUFFIX) for part in path.split("/"))


def holds_only(content: bytes, password: bytes) -> bool:
    """Whether a file is the repository's password: that is never stored in the repository."""
    return bool(password) and content.strip() == password


def without(content: bytes, password: bytes) -> bytes:
    """The content without the repository's password."""
    return content if len(password) < SHORTEST_PASSWORD else content.replace(password, REPLACED)


def store(folder: Path, copies: Mapping[str, bytes]) -> None:
    """Let the recipe's folder hold exactly these copies, by their paths in it. Raises OSError.

    A copy that is there already is left alone, its times too: Kopia then stores nothing.
    """
    wanted = {folder / path for path in copies}
    parents = {parent for path in wanted for parent in path.parents}
    for name in FOLDERS:
        _clear(folder / name, wanted, parents)
    for path, content in sorted(copies.items()):
        place = folder / path
        if not (place.is_file() and place.read_bytes() == content):
            for parent in reversed(place.relative_to(folder).parents[:-1]):
                make_private(folder / parent)
            write_durably(place, content)


def _clear(folder: Path, wanted: set[Path], parents: set[Path]) -> None:
    """Remove all that is not wanted, and what stands in the way as the wrong kind of thing."""
    if not os.path.lexists(folder):
        return
    for path in [folder, *folder.iterdir()] if folder.is_dir() else [folder]:
        is_folder = path.is_dir() and not path.is_symlink()
        if path in wanted and not is_folder:
            continue
        if path in parents and is_folder:
            if path != folder:
                _clear(path, wanted, parents)
        elif is_folder:
            shutil.rmtree(path)
        else:
            path.unlink()
        if not folder.exists():
            return


def complaints(project: str, left_out: Iterable[LeftOut], limit: int = 5) -> list[str]:
    """What to tell the user of the files that are missed, a sentence each."""
    missed = [each for each in left_out if each.required]
    told = [
        f"the recipe lacks {each.path} ({each.by}{of(project)}): {each.text}" + _way_out(each)
        for each in missed[:limit]
    ]
    more = len(missed) - limit
    return told + ([f"and {more} more files{of(project)}: recipe/unit.json"] if more > 0 else [])


def of(project: str) -> str:
    """Which project's, for people; nothing for files of Docker itself."""
    return f" of Compose project {project}" if project else ""


def _way_out(each: LeftOut) -> str:
    if each.reason == "outside":
        return "; if it belongs to the project, name its folder in KOPIWATCH_RECIPE_PATHS"
    return ""
