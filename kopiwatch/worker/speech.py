"""How the worker answers: one JSON object per line on its standard output."""

from __future__ import annotations

import json
import os
import time

READ_BYTES = 64 * 1024


class Refused(Exception):
    """An order that cannot be carried out; the worker stays and says so."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


def shown(path: str) -> str:
    """A path as it can be said: what is not UTF-8 in it stands as its code."""
    return path.encode("utf-8", "backslashreplace").decode()


def say(what: str, **fields: object) -> None:
    """Write one line to standard output, whole, at once."""
    line = json.dumps({"say": what, "at": time.time(), **fields}).encode() + b"\n"
    view = memoryview(line)
    while view:
        view = view[os.write(1, view) :]
