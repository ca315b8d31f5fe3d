"""The list of a source's attributes: JSON lines, written whole or not at all.

``docs/attributes.md`` tells of the format, :mod:`kopiwatch.attributes` reads it. The same source
gives the same bytes, and an equal list leaves the old file alone: Kopia need not read it again.
"""

from __future__ import annotations

import base64
import json
import os
import zlib

from kopiwatch.worker.speech import Refused

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Iterable

FORMAT = 1
BLOCK_BYTES = 1 << 20
SHARED_SETS = 1000
SHARED_BYTES = 1024


def text(raw: bytes) -> object:
    """A name or path: a string where it is UTF-8, else ``{"base64": …}``."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(raw).decode()}


def stored(raw: bytes) -> str:
    """What Kopia makes of a name: each byte that is no UTF-8 becomes U+FFFD (measured, 0.23.1)."""
    shown = raw.decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if "\udc80" <= char <= "\udcff" else char for char in shown)


class Listing:
    """One list in the making. :meth:`finish` puts it in place; :meth:`drop` leaves nothing.

    Raises Refused when it cannot be written.
    """

    def __init__(self, path: str, temporary: str, source: str) -> None:
        self._path = path
        self._temporary = temporary
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._check = 0
        self._lines = 0
        self._sets: dict[str, int] = {}
        self._file = os.open(
            temporary, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        self.line({"is": "attributes", "format": FORMAT, "source": source})

    def line(self, fields: dict[str, object]) -> None:
        """Add a line."""
        line = json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"
        self._pending.append(line)
        self._pending_bytes += len(line)
        self._lines += 1
        if self._pending_bytes > BLOCK_BYTES:
            self._write()

    def xattrs(self, path: bytes, found: Iterable[tuple[bytes, bytes]]) -> None:
        """An entry's extended attributes; a set that many entries share is written once."""
        pairs = [[text(name), base64.b64encode(value).decode()] for name, value in found]
        key = json.dumps(pairs)
        known = self._sets.get(key)
        if known is not None:
            self.line({"is": "xattrs", "path": text(path), "like": known})
            return
        if len(self._sets) < SHARED_SETS and len(key) <= SHARED_BYTES:
            self._sets[key] = self._lines
        self.line({"is": "xattrs", "path": text(path), "of": pairs})

    def finish(self) -> None:
        """End the list and put it where the old one was, unless that is the same."""
        self._write()
        self.line({"is": "end", "lines": self._lines, "crc": f"{self._check:08x}"})
        self._write()
        size = os.lseek(self._file, 0, os.SEEK_CUR)
        if self._unchanged(size):
            self.drop()
            return
        os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
        os.replace(self._temporary, self._path)
        os.close(self._file)

    def drop(self) -> None:
        """Remove what was written."""
        os.close(self._file)
        os.unlink(self._temporary)

    def _write(self) -> None:
        block = b"".join(self._pending)
        self._pending.clear()
        self._pending_bytes = 0
        self._check = zlib.crc32(block, self._check)
        view = memoryview(block)
        try:
            while view:
                view = view[os.write(self._file, view) :]
        except OSError as error:
            raise cannot_write(error) from error

    def _unchanged(self, size: int) -> bool:
        try:
            old = os.open(self._path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            if os.fstat(old).st_size != size:
                return False
            return all(
                os.pread(old, BLOCK_BYTES, place) == os.pread(self._file, BLOCK_BYTES, place)
                for place in range(0, size, BLOCK_BYTES)
            )
        finally:
            os.close(old)


def remove_others(folder: str, keep: Iterable[str]) -> None:
    """Remove every list below ``folder`` that is not named: of sources that are no more."""
    wanted = {os.path.join(folder, name) for name in keep}
    for place, folders, files in os.walk(folder, topdown=False):
        for name in files:
            path = os.path.join(place, name)
            if path not in wanted:
                os.unlink(path)
        for name in folders:
            path = os.path.join(place, name)
            if os.path.islink(path):
                os.unlink(path)
            elif not os.listdir(path):
                os.rmdir(path)


def cannot_write(error: OSError) -> Refused:
    """What to say when the list finds no room."""
    return Refused("attributes", f"cannot write the list of attributes: {error.strerror}")
