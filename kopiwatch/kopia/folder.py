"""Folders that nobody else may look into."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread

from kopiwatch.errors import RepositoryError

LEFT_SECONDS = 3600.0
"""A scratch folder that is so much older than a new one is nobody's any more."""


def make_private(folder: Path) -> None:
    """Make a folder and every missing one above it with mode 0700; those that exist stay as is.

    ``Path.mkdir(parents=True)`` would give the mode to the last one only. Raises OSError.
    """
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=0o700, exist_ok=True)


def _remove_left(parent: Path, oldest: float) -> None:
    """Remove folders that are older (seconds since the epoch); trouble with it is for the next."""
    for path in parent.iterdir():
        with suppress(OSError):
            if path.stat().st_mtime < oldest:
                shutil.rmtree(path)


@asynccontextmanager
async def scratch(parent: Path, attempt: str) -> AsyncIterator[Path]:
    """A new private folder in ``parent`` for the length of the block. Raises RepositoryError.

    What processes that were killed have left in ``parent`` goes first.
    """

    def make() -> Path:
        make_private(parent)
        made = Path(tempfile.mkdtemp(dir=parent))
        _remove_left(parent, made.stat().st_mtime - LEFT_SECONDS)
        return made

    try:
        folder = await anyio.to_thread.run_sync(make)
    except OSError as error:
        raise RepositoryError(f"{attempt}: {error.filename}: {error.strerror}") from error
    try:
        yield folder
    finally:
        with anyio.CancelScope(shield=True):
            clear = partial(shutil.rmtree, folder, ignore_errors=True)
            await anyio.to_thread.run_sync(clear)
