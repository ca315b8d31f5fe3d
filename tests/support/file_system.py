"""File systems of a test's own, on loop devices: what a tmpfs cannot do."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAKE = {
    "xfs": ("mkfs.xfs", "-q", "-f", "-m", "reflink=1"),
    "btrfs": ("mkfs.btrfs", "-q", "-f"),
    "ext4": ("mkfs.ext4", "-q", "-F"),
}


@contextmanager
def file_system(kind: str, path: Path, mebibytes: int = 320) -> Iterator[Path]:
    """An empty file system of this kind (a tmpfs, too) at ``path``; gone at the end."""
    path.mkdir(parents=True)
    image = path.with_name(f"{path.name}.img")
    if kind == "tmpfs":
        run("mount", "-t", "tmpfs", "-o", f"size={mebibytes}m", "tmpfs", path)
    else:
        with image.open("wb") as file:
            file.truncate(mebibytes * 1024 * 1024)
        run(*MAKE[kind], image)
        run("mount", "-o", "loop", image, path)
    try:
        yield path
    finally:
        run("umount", path)
        image.unlink(missing_ok=True)


@contextmanager
def bound(source: Path, target: Path, *options: str) -> Iterator[None]:
    """The folder or file ``source``, mounted on ``target`` as well."""
    run("mount", "--bind", source, target)
    try:
        for option in options:
            run("mount", "-o", f"remount,bind,{option}", target)
        yield
    finally:
        run("umount", target)


def run(*argv: str | Path) -> None:
    """Run a command; what it printed stands in the error."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
