"""Trees of all kinds of entries, changed at random, and how a tree looks."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from pathlib import Path

from hypothesis import strategies as st

NAMES = ("a", "b", "c", os.fsdecode(b"not-utf8-\xff"), "n" * 255)
FOLDERS = ("", "", "", "a", "a/b")
SIZES = (0, 1, 4096, 70_001, 3 * 1024 * 1024 + 5)

OFTEN = ("write", "write", "mkdir", "mkdir", "write-in-place", "keep-times", "truncate", "append")
KINDS = (*OFTEN, "hole", "remove", "link", "hard-link", "rename", "mode", "owner", "times", "fifo")

Change = tuple[str, str, str, int, int]


def changes(most: int = 25) -> st.SearchStrategy[list[Change]]:
    """Changes as :func:`apply` takes them: what, folder, name, and two numbers."""
    return st.lists(
        st.tuples(
            st.sampled_from(KINDS),
            st.sampled_from(FOLDERS),
            st.sampled_from(NAMES),
            st.integers(0, 4),
            st.integers(0, 4),
        ),
        min_size=3,
        max_size=most,
    )


def apply(root: Path, changed: list[Change]) -> None:
    """Change a tree; what the tree does not allow is not done."""
    for what, folder, name, one, other in changed:
        parent = root / folder
        if parent.is_symlink() or not parent.is_dir():
            continue
        with contextlib.suppress(FileNotFoundError, FileExistsError, NotADirectoryError, OSError):
            _change(what, parent / name, root / FOLDERS[one] / NAMES[other], one, other)


def _change(what: str, path: Path, other_path: Path, one: int, other: int) -> None:
    is_file = path.is_file() and not path.is_symlink()
    if what == "mkdir":
        path.mkdir()
    elif what == "remove":
        _remove(path)
    elif what == "link":
        path.symlink_to(NAMES[other])
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "rename":
        path.rename(other_path)
    elif what == "mode" and not path.is_symlink():
        path.chmod((0o600, 0o000, 0o4755, 0o2770, 0o1777)[one])
    elif what == "owner":
        os.chown(path, one * 1000, other * 1000, follow_symlinks=False)
    elif what == "times":
        os.utime(path, ns=(one, 1_600_000_000_123_456_789 + other), follow_symlinks=False)
    elif what == "write" and not path.is_symlink() and not path.is_fifo():
        path.write_bytes(bytes([one + 1]) * SIZES[other])
    elif is_file:
        _change_file(what, path, other_path, one, other)


def _change_file(what: str, path: Path, other_path: Path, one: int, other: int) -> None:
    found = path.stat()
    if what == "hard-link":
        os.link(path, other_path)
        return
    with path.open("r+b", buffering=0) as file:
        if what == "truncate":
            file.truncate(SIZES[other])
        elif what == "append":
            file.seek(0, os.SEEK_END)
            file.write(b"more" * SIZES[one])
        elif what == "hole":
            file.seek(found.st_size + 2 * 1024 * 1024)
            file.write(b"beyond a hole")
        else:
            file.seek(found.st_size // 2)
            file.write(bytes([40 + one * 5 + other]) * min(found.st_size // 2, 5000))
    if what == "keep-times":
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def look(root: Path) -> dict[str, object]:
    """All that Kopia would see of a tree: kind, mode, owner, time and content of each entry."""
    found: dict[str, object] = {}
    for place, folders, files in os.walk(root):
        for name in [".", *folders, *files]:
            path = Path(place, name)
            status = path.lstat()
            kind = stat.S_IFMT(status.st_mode)
            if kind not in (stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK):
                continue
            content: object = None
            if kind == stat.S_IFREG:
                content = path.read_bytes()
            elif kind == stat.S_IFLNK:
                content = path.readlink()
            shape = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns)
            found[str(path.relative_to(root))] = (*shape, content)
    return found


COARSE_CLOCK = 5
"""CLOCK_REALTIME_COARSE of <linux/time.h>: where files get their times from."""


def next_tick() -> None:
    """Wait (up to 10 ms) until whatever changes gets another time than what has changed before."""
    now = time.time_ns()
    while time.clock_gettime_ns(COARSE_CLOCK) <= now:
        pass


def long_ago() -> int:
    """The time in a stage's eyes, when nothing is too young for it."""
    return time.time_ns() + 10_000_000_000
