"""A tree two levels deep, as the placeholders of a shallow restore tell it (Kopia 0.23.1).

``snapshot restore --shallow=1`` makes the folders of the root and writes, for each thing in them,
its directory entry as a small JSON file: ``<name>.kopia-entry`` for a file,
``<name>.kopia-entry/.kopia-entry`` for a directory, whose summary is part of it. So one launch
tells what several ``show`` tell, and it goes through the manifest. What that way cannot hold (a
file in the root, a link, a name of more than 243 bytes) is restored as it is, without a
placeholder: then, or if the entries do not add up to the root's summary, it tells nothing.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.answer import decode
from kopiwatch.kopia.folder import scratch
from kopiwatch.kopia.record import Entry, Snapshot, Summary
from kopiwatch.kopia.shelf import Shelf
from kopiwatch.kopia.tree import FOLDERS

SUFFIX = ".kopia-entry"


class Outline:
    """One outline in the making: Kopia restores into ``target``, which tells the ``parts``."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.parts: dict[str, Entry] = {}


class Outlines:
    """The outlines that were made, kept in the folder ``cache`` by the id of the root object."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "outline"
        self._shelf = Shelf(cache / "outlines")

    @asynccontextmanager
    async def made(self, snapshot: Snapshot, attempt: str) -> AsyncIterator[Outline]:
        """Have Kopia restore in the block; then it is read, and kept. Raises RepositoryError."""
        async with scratch(self._folder, attempt) as folder:
            outline = Outline(folder / "tree")
            yield outline
            outline.parts = await anyio.to_thread.run_sync(read, outline.target, attempt)
        require_whole(outline.parts, snapshot, attempt)
        if snapshot.root_entry:
            text = msgspec.json.encode(outline.parts)
            await anyio.to_thread.run_sync(self._shelf.put, snapshot.root_entry.obj, text)

    async def known(self, root: str) -> dict[str, Entry] | None:
        """What was made of a root object, None if nothing; its id tells its content."""
        if text := await anyio.to_thread.run_sync(self._shelf.get, root):
            with suppress(RepositoryError):  # torn by a power failure
                return decode(text, dict[str, Entry], f"reading the tree {root}")
        return None


def read(folder: Path, attempt: str) -> dict[str, Entry]:
    """What was restored into ``folder``, by path as :func:`kopiwatch.kopia.tree.parts` has it.

    Of a folder that counts as one part, such as the recipe, there is the summary only. Raises
    RepositoryError if something is not a placeholder or cannot be read.
    """
    try:
        found: dict[str, Entry] = {}
        for top in folder.iterdir():
            inner = [_entry(child, attempt) for child in top.iterdir()]
            if top.name in FOLDERS:
                found |= {f"{top.name}/{entry.name}": entry for entry in inner}
            else:
                found[top.name] = Entry(top.name, "d", summ=total(inner))
    except OSError as error:
        raise RepositoryError(f"{attempt}: {error.filename}: {error.strerror}") from error
    return found


def _entry(placeholder: Path, attempt: str) -> Entry:
    if not placeholder.name.endswith(SUFFIX) or placeholder.is_symlink():
        raise RepositoryError(f"{attempt}: {placeholder.name} is not a placeholder")
    file = placeholder / SUFFIX if placeholder.is_dir() else placeholder
    return decode(file.read_bytes(), Entry, attempt)


def require_whole(tree: Mapping[str, Entry], snapshot: Snapshot, attempt: str) -> None:
    """Raise RepositoryError unless the parts add up to what the manifest's root counts."""
    root = snapshot.root_entry.summ if snapshot.root_entry else None
    if root is None or _figures(total(tree.values())) != _figures(root):
        raise RepositoryError(f"{attempt}: its parts do not add up to the whole")


def total(entries: Iterable[Entry]) -> Summary:
    """What a folder counts that holds these entries and nothing else.

    An error of the folder itself, such as an entry that could not be read at all, is not in it.
    """
    size = files = failed = ignored = 0
    for entry in entries:
        summary = entry.summ or Summary(size=entry.size, files=1 if entry.type == "f" else 0)
        size += summary.size
        files += summary.files
        failed += summary.num_failed
        ignored += summary.num_ignored_errors
    return Summary(size=size, files=files, num_failed=failed, num_ignored_errors=ignored)


def _figures(summary: Summary) -> tuple[int, int, int, int]:
    return (summary.size, summary.files, summary.num_failed, summary.num_ignored_errors)
