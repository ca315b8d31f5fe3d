"""How much room a repository must have left."""

from __future__ import annotations

from kopiwatch.errors import RepositoryFull
from kopiwatch.kopia.record import RepositoryStatus

LEAST_FREE = 64 * 1024 * 1024
"""Kopia writes packs of about 20 MiB, several at a time; with less than this a run cannot end."""


def require_space(status: RepositoryStatus) -> None:
    """Raise RepositoryFull where less than ``LEAST_FREE`` is left; storage may not say how much.

    Found before the window, it costs nobody any downtime.
    """
    volume = status.volume
    if volume is None or not volume.capacity or volume.available >= LEAST_FREE:
        return
    raise RepositoryFull(
        f"the repository's storage is full: {volume.available // 1024**2} MiB are free, "
        f"and a run needs at least {LEAST_FREE // 1024**2}",
        hint="Make room there. Nothing that is in the repository is lost.",
    )
