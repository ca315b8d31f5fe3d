"""A small disk of a test's own, which can be filled to the last byte."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

BLOCK_BYTES = 64 * 1024


class Disk:
    """A mounted file system of a few MiB. Its ballast is a file of nothing but use of space."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / ".ballast"

    @property
    def free(self) -> int:
        """Bytes that can still be written."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def fill(self, *, leave: int = 0) -> None:
        """Use up all but ``leave`` bytes of what is free."""
        with self._ballast.open("ab", buffering=0) as file, suppress(OSError):
            while (more := self.free - leave) > 0:
                file.write(bytes(min(BLOCK_BYTES, more)))

    def empty(self) -> None:
        """Take the ballast away; everything else stays."""
        self._ballast.unlink(missing_ok=True)


@contextmanager
def small_disk(path: Path, mebibytes: int) -> Iterator[Disk]:
    """A file system of this size, mounted at ``path``; gone at the end, with all that is in it."""
    path.mkdir(parents=True)
    options = f"size={mebibytes}m,mode=0700"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], check=True)
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True)
