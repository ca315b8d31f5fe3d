"""Programs that kopiwatch runs as itself: nobody else may be able to change them."""

from __future__ import annotations

import os
import stat
from pathlib import Path

_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


def fault_of_own_program(path: Path, uid: int | None = None) -> str:
    """What is wrong with a program that we are to run; empty if nothing is. Reads the file system.

    It must be an executable file of root's or of ours (``uid``) that nobody else may write, and so
    must be the folders above it, where a link stands and where it leads; but a folder such as
    ``/tmp``, in which others cannot rename what is not theirs, may stand further up.
    """
    if not path.is_absolute():
        return "is not an absolute path"
    ours = (0, os.geteuid() if uid is None else uid)
    try:
        real = path.resolve(strict=True)
        found = real.stat()
        folders = [(place, Path(place).stat()) for place in _above(path.parent.resolve(), real)]
    except FileNotFoundError:
        return f"names {path}, which does not exist"
    except (OSError, RuntimeError) as error:
        return f"names {path}, which cannot be looked at: {getattr(error, 'strerror', error)}"
    if not stat.S_ISREG(found.st_mode):
        return f"names {path}, which is not a file"
    for place, each in [(str(real), found), *folders]:
        if each.st_uid not in ours:
            return f"names {path}, but {place} belongs to uid {each.st_uid}, neither root nor us"
        shared = each.st_mode & stat.S_ISVTX and place not in (str(path.parent), str(real.parent))
        if each.st_mode & _OTHERS_WRITE and not shared:
            return f"names {path}, but others may write {place} (chmod go-w)"
    return "" if os.access(real, os.X_OK) else f"names {path}, which is not executable (chmod +x)"


def _above(folder: Path, real: Path) -> list[str]:
    """The folder that names the program and the one that holds it, and all above them."""
    both = [folder, *folder.parents, *real.parents]
    return list(dict.fromkeys(str(each) for each in both))
