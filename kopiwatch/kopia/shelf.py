"""Directories that were read from the repository once, kept beside Kopia's cache.

An object's id is a keyed hash of its content (the key is the repository's own), so what was read of
it stays true for ever. Each launch of Kopia that this saves is about 140 ms.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from pathlib import Path

from kopiwatch.kopia.folder import make_private

MOST_FILES = 1000
"""Two or three for each restore point that a unit is compared with; the oldest go first."""

MOST_BYTES = 64 * 1024
"""The folders of a unit's tree are small; larger ones are not worth the place."""

_OBJECT = re.compile(r"[0-9A-Za-z]{16,200}")


class Shelf:
    """A folder of directories as ``kopia show`` printed them. Losing it costs time only."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get(self, obj: str) -> bytes | None:
        """What was printed of an object; None if that is not known, or ``obj`` is a path."""
        if _OBJECT.fullmatch(obj) is None:
            return None
        try:
            return (self._folder / obj).read_bytes()
        except OSError:
            return None

    def put(self, obj: str, printed: bytes) -> None:
        """Keep what was printed. A disk that does not take it is no trouble."""
        if _OBJECT.fullmatch(obj) is None or len(printed) > MOST_BYTES:
            return
        with contextlib.suppress(OSError):
            make_private(self._folder)
            # Not by the process number: containers that share a cache have the same ones.
            handle, temporary = tempfile.mkstemp(prefix=".", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(printed)
            Path(temporary).replace(self._folder / obj)
            self._thin()

    def _thin(self) -> None:
        kept = list(self._folder.iterdir())
        if len(kept) > MOST_FILES:
            kept.sort(key=lambda path: path.stat().st_mtime)
            for path in kept[: len(kept) - MOST_FILES // 2]:
                path.unlink()
