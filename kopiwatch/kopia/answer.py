"""What Kopia answers, read strictly: no answer is not an empty answer. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TypeVar

import msgspec

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.policy import DefinedPolicy, decode_policies
from kopiwatch.kopia.port import RestoreResult
from kopiwatch.kopia.record import Directory, Entry, Summary

T = TypeVar("T")

_SNAPSHOT = re.compile(r"[0-9a-f]{32}")
_PATH = re.compile(r"[0-9a-zA-Z][0-9a-f]{16,}(/.*)?", re.DOTALL)
_RESTORED = re.compile(
    r"Restored (\d+) files, (\d+) directories and (\d+) symbolic links "
    r"\(([\d.]+) ([KMGTPE]?)B\)(.*)"
)
_IGNORED = re.compile(r"ignored (\d+) errors")
_UNITS = {unit: 1000**power for power, unit in enumerate(["", "K", "M", "G", "T", "P", "E"])}


def decode(output: bytes, kind: type[T], attempt: str) -> T:
    """Kopia's JSON as a value of ``kind``. Raises RepositoryError, for empty output as well."""
    try:
        return msgspec.json.decode(output, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise RepositoryError(
            f"{attempt}: Kopia's answer cannot be understood: {error}",
            hint="kopiwatch is made for Kopia 0.23; look at `kopia --version`.",
        ) from error


def policies(output: bytes, attempt: str) -> tuple[DefinedPolicy, ...]:
    """The rows of ``policy list --json``. Raises RepositoryError."""
    return decode_policies(decode(output, list[dict[str, object]], attempt))


class _Directory(msgspec.Struct):
    stream: str
    entries: tuple[Entry, ...] | None = None
    summary: Summary | None = None


def directory(output: bytes, attempt: str) -> Directory:
    """What ``show`` prints of a directory; an empty one has ``"entries": null``."""
    raw = decode(output, _Directory, attempt)
    if raw.stream != "kopia:directory":
        raise RepositoryError(f"{attempt}: that is a {raw.stream}, not a directory")
    return Directory(raw.stream, raw.entries or (), raw.summary)


def restored(stderr: str, attempt: str, tail: str = "") -> RestoreResult:
    """Kopia's last line of a restore, the only thing it says about it (0.23.1 has no JSON here).

    ``tail`` is what may be shown of it. Raises RepositoryError if there is no such line, or if it
    counts ignored errors.
    """
    found = [match for match in map(_RESTORED.search, stderr.splitlines()) if match]
    if not found:
        raise RepositoryError(f"{attempt}: Kopia does not say what it restored", tail=tail)
    files, directories, symlinks, size, unit, rest = found[-1].groups()
    if ignored := _IGNORED.search(rest):
        raise RepositoryError(f"{attempt}: {ignored[1]} entries could not be restored", tail=tail)
    return RestoreResult(
        files=int(files),
        directories=int(directories),
        symlinks=int(symlinks),
        size=round(float(size) * _UNITS[unit]),
    )


def require_snapshots(ids: Sequence[str], attempt: str) -> None:
    """Raise RepositoryError unless all are ids of snapshots.

    Kopia also takes the id of an object, and then means every snapshot with that content.
    """
    for value in ids:
        if not _SNAPSHOT.fullmatch(value):
            raise RepositoryError(f"{attempt}: {value!r} is not the id of a snapshot")


def require_path(path: str, attempt: str) -> None:
    """Raise RepositoryError unless it is ``<id of a snapshot or an object>[/sub/path]``."""
    if not _PATH.fullmatch(path):
        raise RepositoryError(f"{attempt}: {path!r} does not begin with the id of a snapshot")
