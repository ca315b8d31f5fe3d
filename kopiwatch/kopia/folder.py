"""Folders that nobody else may look into."""

from __future__ import annotations

from pathlib import Path


def make_private(folder: Path) -> None:
    """Make a folder and every missing one above it with mode 0700; those that exist stay as is.

    ``Path.mkdir(parents=True)`` would give the mode to the last one only. Raises OSError.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)
