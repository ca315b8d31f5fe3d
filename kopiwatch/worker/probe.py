"""Which source can be cloned into which stage: found out by doing it."""

from __future__ import annotations

import errno
import os
import stat

from kopiwatch.worker.clone import clone, why_not
from kopiwatch.worker.sources import with_nested
from kopiwatch.worker.space import free_bytes, total_bytes
from kopiwatch.worker.speech import Refused, shown
from kopiwatch.worker.sweep import claim

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import Any

LOOK_AT = 20_000
"""Entries that are looked at for a file with content; a source may be nothing but folders."""


def probe_stages(stages: list[str], sources: list[str]) -> dict[str, Any]:
    """The answer to ``probe-stage``, see :mod:`kopiwatch.worker.staging`."""
    return {"stages": [probe_stage(stage, sources) for stage in stages]}


def probe_stage(stage: str, sources: list[str]) -> dict[str, Any]:
    """Whether this folder can be a stage, and of which sources."""
    found: dict[str, Any] = {"stage": stage, "writable": False, "free": 0, "total": 0}
    try:
        claim(stage)
        found["free"], found["total"] = free_bytes(stage), total_bytes(stage)
        os.close(nameless(stage))
    except Refused as refusal:
        why = refusal.text
    except OSError as error:
        why = f"the stage {shown(stage)} cannot be written: {error.strerror}"
    else:
        tries = [{"path": path, "why": why_not_cloned(stage, path)} for path in sources]
        answers = [{**each, "clonable": not each["why"]} for each in tries]
        return {**found, "writable": True, "why": "", "sources": answers}
    answers = [{"path": path, "clonable": False, "why": why} for path in sources]
    return {**found, "why": why, "sources": answers}


def nameless(stage: str) -> int:
    """A new file in the stage without a name: nothing is left behind. Raises OSError."""
    try:
        return os.open(stage, os.O_WRONLY | os.O_TMPFILE | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR):
            raise
    path = f"{stage}/.kopiwatch-probe"
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    os.unlink(path)
    return handle


def why_not_cloned(stage: str, source: str) -> str:
    """Why a source cannot be cloned into a stage; "" if it can.

    A file of the source, and one of whatever is mounted below it, is really cloned.
    """
    for path in with_nested([source]):
        try:
            source_file = a_file(path)
        except OSError as error:
            return f"{shown(path)} cannot be read: {error.strerror}"
        if source_file is None:
            continue
        try:
            handle = os.open(source_file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                target = nameless(stage)
                try:
                    clone(handle, target)
                finally:
                    os.close(target)
            finally:
                os.close(handle)
        except OSError as error:
            return f"{shown(source_file)} cannot be cloned: {why_not(error)}"
    return ""


def a_file(path: str) -> str | None:
    """The first file with content at or below a path; None if there is none. Raises OSError."""
    status = os.lstat(path)
    if not stat.S_ISDIR(status.st_mode):
        return path if status.st_size else None
    folders, looked_at = [path], 0
    while folders and looked_at < LOOK_AT:
        with os.scandir(folders.pop()) as listing:
            for item in listing:
                looked_at += 1
                try:
                    if item.is_dir(follow_symlinks=False):
                        if not os.path.ismount(item.path):
                            folders.append(item.path)
                    elif item.is_file(follow_symlinks=False) and item.stat().st_size:
                        return item.path
                except FileNotFoundError:
                    continue
    return None
