"""What the state folder remembers."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.backend import StorageIdentity
from kopiwatch.kopia.state import Known, RepositoryState

KNOWN = Known(
    unique_id="ab" * 32,
    storage=StorageIdentity("filesystem", "/r/kopia"),
    host="h",
    connected=datetime(2026, 1, 2, tzinfo=UTC),
)


def test_new_state_knows_nothing(tmp_path):
    """No record, no password, and nothing is made by looking."""
    state = RepositoryState(tmp_path / "state")
    assert (state.known(), state.password()) == (None, None)
    assert not (tmp_path / "state").exists()


def test_record_comes_back_as_it_was(tmp_path):
    """Private, and times are aware."""
    state = RepositoryState(tmp_path / "state")
    state.remember(KNOWN)
    assert state.known() == KNOWN
    assert stat.S_IMODE(state.record_file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


@pytest.mark.parametrize("text", ["", "{}", "null", '{"unique_id": 1}'])
def test_damaged_record_is_not_no_record(tmp_path, text):
    """Otherwise a second repository could be made."""
    state = RepositoryState(tmp_path)
    state.record_file.write_text(text)
    with pytest.raises(RepositoryError, match="damaged"):
        state.known()


def test_generated_password_is_long_private_and_stays(tmp_path):
    """192 random bits in a file of mode 0600."""
    state = RepositoryState(tmp_path)
    made = state.generate_password()
    assert len(made.reveal()) == 32
    assert state.password() == made
    assert stat.S_IMODE(state.password_file.stat().st_mode) == 0o600
    assert state.generate_password() != made
