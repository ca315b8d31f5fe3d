"""The journal on the disk, and the state folder around it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from kopiwatch.backup.journal import Journal, JournalStore
from kopiwatch.backup.state import StateFolder, mount_of
from kopiwatch.durable import remove_durably, write_durably
from kopiwatch.errors import ConfigError

JOURNAL = Journal("shop", "r1", datetime(2026, 1, 1, tzinfo=UTC), "kopiwatch@h:/mnt/shop", ())


@pytest.mark.anyio
async def test_journal_comes_back_as_it_was_written(tmp_path):
    """And only its owner can read it."""
    store = JournalStore(tmp_path / "journal")
    await store.write(JOURNAL)
    assert (await store.read("shop")) == JOURNAL
    assert (await store.units()) == ("shop",)
    assert (tmp_path / "journal" / "shop.json").stat().st_mode & 0o777 == 0o600


@pytest.mark.anyio
async def test_settled_journal_is_gone(tmp_path):
    """Nothing owed, nothing kept."""
    store = JournalStore(tmp_path / "journal")
    await store.write(JOURNAL)
    await store.write(Journal("shop", "r1", JOURNAL.since, JOURNAL.source, (), judged=True))
    assert (await store.read("shop")) is None
    assert (await store.units()) == ()
    assert list((tmp_path / "journal").iterdir()) == []


def test_write_that_fails_keeps_the_old_content(tmp_path, monkeypatch):
    """A full disk loses nothing and leaves no temporary file."""
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_remove_of_what_is_not_there_is_good(tmp_path):
    """Gone already is gone."""
    remove_durably(tmp_path / "absent")


def test_state_folder_keeps_its_uuid_and_is_private(tmp_path):
    """The uuid marks our workers, so it must outlive us."""
    state = StateFolder(tmp_path / "deep" / "state")
    uuid = state.open()
    assert state.open() == uuid
    assert state.path.stat().st_mode & 0o777 == 0o700
    assert state.locks.stat().st_mode & 0o777 == 0o700


def test_damaged_identity_is_an_error_and_not_a_new_one(tmp_path):
    """A new uuid would lose sight of workers that live."""
    state = StateFolder(tmp_path)
    state.open()
    (tmp_path / "state.json").write_text("{")
    with pytest.raises(ConfigError, match="damaged"):
        state.open()
    assert (tmp_path / "state.json").read_text() == "{"


def test_state_folder_that_is_a_file_is_an_error(tmp_path):
    """One sentence with what to do."""
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be used") as caught:
        StateFolder(tmp_path / "file").open()
    assert "KOPIWATCH_STATE_DIR" in caught.value.hint


MOUNTINFO = """\
22 1 254:0 / / rw,relatime - ext4 /dev/vda rw
30 22 0:26 / /proc rw - proc proc rw
40 22 0:40 / /srv/with\\040space rw shared:1 - nfs4 nas:/x rw
41 22 0:41 / /srv rw - xfs /dev/b rw
"""


@pytest.mark.parametrize(
    ("path", "point", "kind"),
    [
        ("/etc", "/", "ext4"),
        ("/srv/a", "/srv", "xfs"),
        ("/srv/with space/state", "/srv/with space", "nfs4"),
        ("/srvother", "/", "ext4"),
    ],
)
def test_mount_of_is_the_longest_mount_point_above(path, point, kind):
    """Names with escapes count as they are."""
    assert mount_of(Path(path), MOUNTINFO) == (Path(point), kind)
