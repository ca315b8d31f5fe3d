"""Files of Docker's host for the recipe, read by the run's own worker before the window."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import msgspec

from kopiwatch.backup.access import Beside, Places
from kopiwatch.backup.kept import HostFile
from kopiwatch.errors import RunError

BESIDE = "/mnt/.host"
FILE_BYTES = 1 << 20
ALL_BYTES = 16 << 20
_NOT_READ = ("worker-stuck", "worker-system", "worker-protocol")
"""What becomes a line in the recipe instead of the end of the run."""


class FileReader(Protocol):
    """The part of a worker that reads files."""

    async def files(self, **order: object) -> bytes:
        """What it found, as JSON. Raises RunError."""


def besides_of(hosts: Iterable[str]) -> tuple[Beside, ...]:
    """Where a worker has these folders and files of the host, beside the tree."""
    unique = dict.fromkeys(hosts)
    return tuple(Beside(host, f"{BESIDE}/{number}") for number, host in enumerate(unique))


class HostLook:
    """Reads through a worker that has ``besides`` mounted; nothing of ``places`` is ours to read.

    One file has at most 1 MiB, all of them together 16 MiB.
    """

    def __init__(self, reader: FileReader, besides: tuple[Beside, ...], places: Places) -> None:
        self._reader = reader
        self._points = {beside.host: beside.target for beside in besides}
        self._own = (places.locks, places.cache, places.repository, places.base)
        self._locks = places.locks
        self._room = ALL_BYTES
        self._trouble = ""

    async def read(
        self, hosts: tuple[str, ...], paths: tuple[str, ...], folders: tuple[str, ...] = ()
    ) -> tuple[HostFile, ...]:
        """Each of these paths, and each file in these folders, with its content or why not.

        What lies outside ``hosts`` is not read. After a disk that hangs nothing is tried again.
        """
        found: tuple[HostFile, ...] = ()
        if not self._trouble:
            found = await self._ask(hosts, paths, folders)
            self._room -= sum(len(each.content) for each in found)
        known = {each.path for each in found}
        lost = [path for path in (*paths, *folders) if path not in known]
        if not self._trouble:
            lost = [path for path in lost if path in paths]
        text = self._trouble or "the worker does not tell of it"
        return (*found, *(HostFile(path, reason="unread", text=text) for path in lost))

    async def _ask(
        self, hosts: tuple[str, ...], paths: tuple[str, ...], folders: tuple[str, ...]
    ) -> tuple[HostFile, ...]:
        try:
            told = await self._reader.files(
                roots=[(host, self._points[host]) for host in hosts if host in self._points],
                own=self._own,
                locks=self._locks,
                paths=paths,
                folders=folders,
                limits=(FILE_BYTES, max(0, self._room)),
            )
            return msgspec.json.decode(told, type=tuple[HostFile, ...])
        except RunError as error:
            if error.reason not in _NOT_READ:
                raise
            self._trouble = error.message.partition(": ")[2] or error.message
        except msgspec.MsgspecError as error:
            self._trouble = f"the worker's words are not understood: {error}"
        return ()
