"""The journal on the disk, and the state folder around it."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest

from kopiwatch.backup.journal import RESERVE_BYTES, Held, Journal, JournalStore, OwedHook
from kopiwatch.backup.state import StateFolder, mount_of
from kopiwatch.durable import remove_durably, write_durably
from kopiwatch.errors import ConfigError, RunError

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


def test_what_is_owed_in_somebody_s_containers_is_told_in_words():
    """A verdict is not: it takes nobody's container."""
    held = Held("id", "db", "", "", "", "stop", 0, (), True, 60.0, 10.0)
    hook = OwedHook("id", "web", "", "", "", ("true",))
    assert JOURNAL.owed == ""
    assert msgspec.structs.replace(JOURNAL, hooks=(hook,)).owed == "the post hook of web"
    both = msgspec.structs.replace(JOURNAL, members=(held,), hooks=(hook,))
    assert both.owed == "a start of db and the post hook of web"


SETTLED = msgspec.structs.replace(JOURNAL, judged=True)
DAMAGE = {"empty": b"", "truncated": b'{"unit":"shop","run":"r', "garbage": b"\0" * 4096}


@pytest.mark.anyio
@pytest.mark.parametrize("content", [*DAMAGE.values(), None], ids=[*DAMAGE, "lost"])
async def test_damaged_journal_is_read_from_its_copy(tmp_path, content):
    """What a crash of the disk leaves in one file is not the end of what is owed."""
    store = JournalStore(tmp_path)
    await store.write(JOURNAL)
    damage(tmp_path / "shop.json", content)
    assert await store.units() == ("shop",)
    assert await store.read("shop") == JOURNAL
    await store.write(JOURNAL)
    damage(tmp_path / "shop.copy", content)
    assert await store.read("shop") == JOURNAL
    await store.write(SETTLED)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.anyio
@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE)
async def test_journal_damaged_twice_is_an_error_and_never_nothing(tmp_path, content):
    """Nobody knows who is down: a person must look, and is told where."""
    store = JournalStore(tmp_path)
    await store.write(JOURNAL)
    damage(tmp_path / "shop.json", content)
    damage(tmp_path / "shop.copy", content)
    assert await store.units() == ("shop",)
    with pytest.raises(RunError, match=r"shop\.json cannot be read") as caught:
        await store.read("shop")
    assert "shop.copy" in caught.value.hint


def damage(path: Path, content: bytes | None) -> None:
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)


@pytest.fixture
def full(tmp_path, monkeypatch):
    """A disk that takes something only while nothing keeps space on it."""
    fsync = os.fsync

    def no_room(handle: int) -> None:
        if (tmp_path / "reserve").exists():
            raise OSError(28, "No space left on device")
        fsync(handle)

    def begin() -> None:
        monkeypatch.setattr(os, "fsync", no_room)

    return begin


@pytest.mark.anyio
async def test_kept_space_is_given_up_for_who_is_owed(tmp_path, full):
    """A disk that runs full in the window still takes the journal."""
    store = JournalStore(tmp_path)
    await store.reserve()
    assert (tmp_path / "reserve").stat().st_blocks * 512 >= RESERVE_BYTES
    full()
    await store.write(JOURNAL)
    assert await store.read("shop") == JOURNAL
    assert sorted(path.name for path in tmp_path.iterdir()) == ["shop.copy", "shop.json"]


@pytest.mark.anyio
async def test_kept_space_is_not_for_a_run_that_has_stopped_nobody(tmp_path, full):
    """There is nothing to be saved yet; the run is refused instead."""
    store = JournalStore(tmp_path)
    await store.reserve()
    full()
    with pytest.raises(RunError, match="No space left"):
        await store.write(JOURNAL, early=True)
    assert [path.name for path in tmp_path.iterdir()] == ["reserve"]


@pytest.mark.anyio
async def test_space_is_kept_again_and_refused_where_there_is_none(tmp_path, monkeypatch):
    """Once it was given up, the next run needs it anew."""
    store = JournalStore(tmp_path / "journal")
    await store.reserve()
    (tmp_path / "journal" / "reserve").unlink()
    await store.reserve()
    assert (tmp_path / "journal" / "reserve").stat().st_size == RESERVE_BYTES
    assert await store.units() == ()
    (tmp_path / "journal" / "reserve").unlink()

    def no_room(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(RunError, match="No space left") as caught:
        await store.reserve()
    assert (caught.value.phase, caught.value.reason) == ("check", "journal")
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
