"""When a repository is too full for a run."""

from __future__ import annotations

import pytest

from kopiwatch.errors import RepositoryFull
from kopiwatch.kopia.record import Capacity, ClientOptions, RepositoryStatus, Storage
from kopiwatch.kopia.space import LEAST_FREE, require_space


def status(volume):
    return RepositoryStatus("ab" * 32, ClientOptions("h", "u"), Storage("filesystem"), volume)


def test_full_storage_is_refused_with_figures():
    with pytest.raises(RepositoryFull, match="5 MiB are free, and a run needs at least 64"):
        require_space(status(Capacity(capacity=10**9, available=5 * 1024**2 + 7)))


@pytest.mark.parametrize("volume", [None, Capacity(), Capacity(10**9, LEAST_FREE)])
def test_room_or_a_storage_that_cannot_tell_is_taken(volume):
    """Object stores report no size."""
    require_space(status(volume))
