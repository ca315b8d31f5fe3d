"""Recorded answers of Kopia 0.23.1 as records."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia import answer
from kopiwatch.kopia.record import RepositoryStatus, Snapshot

DATA = Path(__file__).parents[2] / "contract" / "data" / "kopia"


def recorded(name):
    return (DATA / name).read_bytes()


def test_recorded_status():
    """Identity, storage and free space."""
    status = answer.decode(recorded("status.json"), RepositoryStatus, "x")
    assert len(status.unique_id) == 64
    assert (status.client.username, status.client.hostname) == ("kopiwatch", "harbour")
    assert status.storage.type == "filesystem"
    assert status.storage.config["path"] == "/mnt/disk/kopia"
    assert status.volume is not None
    assert status.volume.capacity > status.volume.available > 0


def test_recorded_list_has_a_good_a_bad_and_an_incomplete_snapshot():
    """Each says what it is."""
    good, bad, cut = answer.decode(recorded("snapshot-list.json"), tuple[Snapshot, ...], "x")
    assert str(good.source) == "kopiwatch@harbour:/mnt/shop"
    assert good.tag("run") == "20261124T010000Z-1"
    assert (good.tag("mode"), good.tag("other")) == ("stop", "")
    assert good.start_time < good.end_time
    assert good.start_time.tzinfo is not None
    assert good.start_time.astimezone(UTC) > datetime(2026, 1, 1, tzinfo=UTC)
    assert good.root_entry.summ.files == 3
    assert (good.incomplete, good.quarantine, good.root_entry.summ.num_failed) == ("", "", 0)
    assert bad.quarantine == "unreadable"
    assert bad.root_entry.summ.num_failed == 1
    assert bad.root_entry.summ.errors[0].path == "volumes/db/secret"
    assert cut.incomplete == "canceled"


@pytest.mark.parametrize("name", ["snapshot-create.json", "snapshot-create-unreadable.json"])
def test_recorded_create_is_one_snapshot_on_one_line(name):
    """Standard output holds one JSON line per source."""
    (line,) = recorded(name).splitlines()
    snapshot = answer.decode(line, Snapshot, "x")
    assert len(snapshot.id) == 32


def test_recorded_directories():
    """Summaries per sub-directory, owners per file, and an empty directory is no error."""
    root = answer.directory(recorded("show-root.json"), "x")
    assert {entry.name: entry.type for entry in root.entries} == {"recipe": "d", "volumes": "d"}
    volumes = answer.directory(recorded("show-volumes.json"), "x")
    assert [entry.name for entry in volumes.entries] == ["db", "empty"]
    assert volumes.entries[0].summ.files == 2
    db = {e.name: e for e in answer.directory(recorded("show-db.json"), "x").entries}
    assert (db["a"].uid, db["a"].gid, db["a"].size, db["a"].type) == (999, 998, 5, "f")
    assert db["link"].type == "s"
    empty = answer.directory(recorded("show-empty.json"), "x")
    assert (empty.entries, empty.summary.files) == ((), 0)


def test_recorded_empty_list_is_empty_and_no_output_is_an_error():
    """A failed read is not an empty read."""
    assert answer.decode(recorded("snapshot-list-empty.json"), tuple[Snapshot, ...], "x") == ()
    for output in (b"", b"null", b"{}", b"[{}]", b"Enter password:", b"\xff"):
        with pytest.raises(RepositoryError, match="listing: Kopia's answer"):
            answer.decode(output, tuple[Snapshot, ...], "listing")


def test_recorded_restore():
    """Kopia's last line, with its rounded size."""
    result = answer.restored(recorded("restore.txt").decode(), "x")
    assert (result.files, result.directories, result.symlinks) == (3, 5, 1)
    assert result.size == 30_000


@pytest.mark.parametrize(
    ("text", "size"), [("0 B", 0), ("999 B", 999), ("104.9 MB", 104_900_000), ("2 GB", 2 * 10**9)]
)
def test_restored_size_in_every_unit(text, size):
    """Units are powers of 1000."""
    line = f"Restored 5 files, 3 directories and 2 symbolic links ({text}).\n"
    assert answer.restored("noise\n" + line, "x").size == size


def test_restore_that_ignored_errors_or_says_nothing_is_a_failure():
    """Exit code 0 alone proves nothing."""
    line = "Restored 5 files, 3 directories and 2 symbolic links (1 B), ignored 4 errors."
    with pytest.raises(RepositoryError, match="4 entries"):
        answer.restored(line, "x")
    with pytest.raises(RepositoryError, match="does not say"):
        answer.restored("Restoring to local filesystem", "x")


@pytest.mark.parametrize("value", ["", "k" + "0" * 32, "-x", "--all", "0" * 31, "0" * 33, "G" * 32])
def test_only_ids_of_snapshots_are_deleted(value):
    """An object's id would delete every snapshot of that content; an option is worse."""
    answer.require_snapshots(["0" * 32], "x")
    with pytest.raises(RepositoryError, match="not the id"):
        answer.require_snapshots(["0" * 32, value], "deleting")


@pytest.mark.parametrize("path", ["", "-x", "/etc", "latest", "../x"])
def test_only_ids_are_restored(path):
    """Kopia would take other words for a path."""
    for good in ("0" * 32, "k" + "0" * 32, "0" * 32 + "/volumes/a b\nc"):
        answer.require_path(good, "x")
    with pytest.raises(RepositoryError, match="does not begin"):
        answer.require_path(path, "restoring")


def test_directory_of_a_file_is_an_error():
    """Content of a file is never taken for a directory."""
    with pytest.raises(RepositoryError):
        answer.directory(b'{"stream":"kopia:indirect"}', "x")
