"""Trees of files: making odd ones, and comparing two of them in every respect that Kopia keeps."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path


def describe(root: Path) -> dict[bytes, tuple[object, ...]]:
    """Everything below ``root`` by its relative path.

    The value holds type, mode, uid, gid, mtime, and the content's SHA-256 or the link's target.
    mtimes are nanoseconds for files, and for symlinks microseconds, rounded up: that is what
    Kopia's restore sets. Those of directories are left out: Kopia stores them, but its restore
    (0.23.1) sets the newest mtime of anything inside instead.
    """
    found: dict[bytes, tuple[object, ...]] = {}
    base = os.fsencode(root)
    for folder, folders, files in os.walk(base):
        for name in folders + files:
            path = os.path.join(folder, name)
            found[os.path.relpath(path, base)] = _entry(path)
    return found


def _entry(path: bytes) -> tuple[object, ...]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    owner = (kind, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    if kind == stat.S_IFLNK:
        return (*owner, -(-status.st_mtime_ns // 1000), os.readlink(path))
    if kind == stat.S_IFREG:
        with open(path, "rb") as file:
            return (*owner, status.st_mtime_ns, hashlib.file_digest(file, "sha256").hexdigest())
    return (*owner, 0, "")


def differences(left: Path, right: Path) -> list[str]:
    """What differs between two trees, a line each; empty when they are equal."""
    one, two = describe(left), describe(right)
    lines = [f"only in {left}: {name!r}" for name in sorted(one.keys() - two.keys())]
    lines += [f"only in {right}: {name!r}" for name in sorted(two.keys() - one.keys())]
    lines += [
        f"{name!r}: {one[name]} is not {two[name]}"
        for name in sorted(one.keys() & two.keys())
        if one[name] != two[name]
    ]
    return lines


def make_odd(root: Path) -> None:
    """Files that a careless backup gets wrong: modes, owners, times, links, names, sizes."""
    (root / "plain").write_bytes(b"plain\n")
    (root / "empty").touch()
    (root / "big").write_bytes(os.urandom(9 * 1024 * 1024))
    (root / "secret").write_bytes(b"secret\n")
    (root / "secret").chmod(0o600)
    os.chown(root / "secret", 999, 998)
    (root / "tool").write_bytes(b"#!/bin/sh\n")
    (root / "tool").chmod(0o4755)
    (root / "folder" / "deeper").mkdir(parents=True)
    (root / "folder").chmod(0o1777)
    os.chown(root / "folder" / "deeper", 70, 70)
    (root / "bare").mkdir(mode=0o700)
    (root / "folder" / "new\nline").write_bytes(b"1")
    (root / "folder" / "umläut 🙂 and 'quotes'").write_bytes(b"2")
    (root / "folder" / "-dash").write_bytes(b"3")
    (root / ".hidden").write_bytes(b"4")
    (root / ".kopiaignore").write_bytes(b"*\n")
    (root / "CACHEDIR.TAG").write_bytes(b"Signature: 8a477f597d28d172789f06886806bc55\n")
    (root / "link").symlink_to("plain")
    (root / "dangling").symlink_to("/absent")
    (root / "folder" / "up").symlink_to("../plain")
    os.utime(root / "plain", ns=(1, 1_234_567_890_123_456_789))
