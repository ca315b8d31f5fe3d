"""Namespace access: builds the tree in a private mount namespace, then becomes the worker.

Started as ``unshare --mount --pid --fork --kill-child python3 -I -S namespace.py``. The first line
of standard input is the mount plan; all that follows is for the worker program, which this process
turns into. The plan::

    {"stage": "/an/empty/folder", "mounts": [{"source": …, "target": …, "writable": false}, …]}

A mount that is ``optional`` may fail.

The tree is built on a tmpfs at ``stage`` and moved over ``/mnt`` in the end, so that a source, a
repository or a cache that itself lives below ``/mnt`` is found before it is hidden. Targets are
absolute and lie below ``/mnt``. What goes wrong is said as the worker would say it.
"""

from __future__ import annotations

import ctypes
import json
import os
import stat
import sys

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import Any

ROOT = "/mnt"

# <sys/mount.h>
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_REMOUNT = 32
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384


class MountFailed(Exception):
    """A mount that could not be made; says which."""


def mount(source: str, target: str, kind: str, flags: int, data: bytes | None) -> None:
    """Mount something; the meaning of each argument is that of the system call."""
    libc = ctypes.CDLL(None, use_errno=True)
    code = libc.mount(
        os.fsencode(source), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), data
    )
    if code != 0:
        number = ctypes.get_errno()
        raise MountFailed(f"cannot mount {source} on {target}: {os.strerror(number)}")


def bind(source: str, target: str, writable: bool) -> None:
    """Bind a folder or a single file, with what is mounted below it."""
    try:
        is_folder = stat.S_ISDIR(os.stat(source).st_mode)
    except OSError as error:
        raise MountFailed(f"{source} is not there: {error.strerror}") from error
    if is_folder:
        os.makedirs(target, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "wb"):
            pass
    mount(source, target, "", MS_BIND | MS_REC, None)
    if not writable:
        mount("", target, "", MS_BIND | MS_REMOUNT | MS_RDONLY, None)


def read_line() -> bytes:
    """Read one line and not a byte more: the rest is for the worker."""
    line = bytearray()
    while not line.endswith(b"\n"):
        byte = os.read(0, 1)
        if not byte:
            raise SystemExit(0)
        line += byte
    return bytes(line)


def build(plan: dict[str, Any]) -> None:
    """Make the tree of the plan and put it over /mnt."""
    stage = plan["stage"]
    mount("kopiwatch", stage, "tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755,size=64m")
    for item in plan["mounts"]:
        target = os.path.normpath(item["target"])
        if not target.startswith(ROOT + "/"):
            raise MountFailed(f"{target} does not lie below {ROOT}")
        try:
            bind(item["source"], stage + target.removeprefix(ROOT), item["writable"])
        except (MountFailed, OSError):
            if not item.get("optional"):
                raise
    mount(stage, ROOT, "", MS_MOVE, None)


def main() -> None:
    """Build the tree, then become the worker program in this folder."""
    try:
        build(json.loads(read_line()))
    except (MountFailed, OSError, KeyError, ValueError) as error:
        os.write(1, json.dumps({"say": "error", "reason": "mount", "text": str(error)}).encode())
        os.write(1, b"\n")
        raise SystemExit(1) from error
    worker = os.path.dirname(os.path.abspath(__file__))
    os.execv(sys.executable, [sys.executable, "-I", "-S", worker])  # noqa: S606 - no shell wanted


if __name__ == "__main__":
    main()
