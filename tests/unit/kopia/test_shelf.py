"""Directories read once: kept by the id that tells their content, and never in the way."""

from __future__ import annotations

import os

import pytest

from kopiwatch.kopia import shelf
from kopiwatch.kopia.shelf import Shelf

OBJECT = "k" + "1" * 32


def test_what_was_put_is_got(tmp_path):
    """By the same id, and by no other."""
    kept = Shelf(tmp_path / "new" / "folder")
    assert kept.get(OBJECT) is None
    kept.put(OBJECT, b"{}")
    assert kept.get(OBJECT) == b"{}"
    assert kept.get("k" + "2" * 32) is None


@pytest.mark.parametrize("name", [f"{OBJECT}/volumes", "../../state.json", "", ".."])
def test_path_is_never_kept_nor_read(tmp_path, name):
    """What stands behind a path is told by the object before it only."""
    (tmp_path / "state.json").write_bytes(b"secret")
    kept = Shelf(tmp_path / "a" / "b")
    kept.put(name, b"{}")
    assert kept.get(name) is None
    assert not (tmp_path / "a").exists()


def test_large_directory_is_not_kept(tmp_path):
    """It is not worth the place."""
    kept = Shelf(tmp_path)
    kept.put(OBJECT, b" " * (shelf.MOST_BYTES + 1))
    assert kept.get(OBJECT) is None


def test_writers_with_one_process_number_do_not_mix(tmp_path):
    """Containers that share a cache are PID 1, each of them; an object's id tells its content."""
    other = (tmp_path / f".{os.getpid()}").open("wb")
    kept = Shelf(tmp_path)
    kept.put(OBJECT, b"{}")
    with other:
        other.write(b'{"stream":"of another object"}')
    assert kept.get(OBJECT) == b"{}"


def test_oldest_go_first(tmp_path, monkeypatch):
    """The folder stays small, and the newest is in it."""
    monkeypatch.setattr(shelf, "MOST_FILES", 10)
    kept = Shelf(tmp_path)
    for number in range(25):
        kept.put(f"{number:032d}", b"{}")
    assert len(list(tmp_path.iterdir())) <= 10
    assert kept.get(f"{24:032d}") == b"{}"
    assert kept.get(f"{0:032d}") is None


def test_folder_that_cannot_be_used_is_no_trouble(tmp_path):
    """It is for speed alone."""
    (tmp_path / "file").write_bytes(b"")
    kept = Shelf(tmp_path / "file" / "folder")
    kept.put(OBJECT, b"{}")
    assert kept.get(OBJECT) is None
