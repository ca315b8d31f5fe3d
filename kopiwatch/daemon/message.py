"""What travels over the control socket."""

from __future__ import annotations

import msgspec


class BackupOrder(msgspec.Struct, frozen=True):
    """Back up these units; none means all of them.

    ``repository`` and ``instance`` are those of whoever asks: a daemon with others refuses.
    """

    units: tuple[str, ...] = ()
    repository: str = ""
    instance: str = ""


class Refusal(msgspec.Struct, frozen=True):
    """An error on its way to whoever asked."""

    error: str
    message: str
    hint: str = ""
    exit_code: int = 1
