"""A file system of a test's own, of any kind: on a loop device, or in memory."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MIB = 1 << 20
MAKE = {"ext4": ["-q"], "xfs": ["-q"], "btrfs": ["-q"]}


@contextmanager
def mounted(kind: str, folder: Path, mebibytes: int = 1024) -> Iterator[Path]:
    """A file system of this kind and size, mounted; gone at the end. The disk is sparse."""
    place = folder / "mounted"
    place.mkdir(parents=True)
    if kind == "tmpfs":
        options = ["-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs"]
        subprocess.run(["mount", *options, place], check=True, timeout=30)
    else:
        disk = folder / "disk"
        disk.touch()
        os.truncate(disk, mebibytes * MIB)
        subprocess.run([f"mkfs.{kind}", *MAKE[kind], disk], check=True, timeout=60)
        subprocess.run(["mount", "-o", "loop", disk, place], check=True, timeout=30)
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=30)
