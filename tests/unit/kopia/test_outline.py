"""A tree by its placeholders: read whole and strictly, or not at all."""

from __future__ import annotations

import json
import os

import anyio
import pytest

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.folder import scratch
from kopiwatch.kopia.outline import read

DIRECTORY = {
    "name": "db",
    "type": "d",
    "obj": "k" + "1" * 32,
    "summ": {"size": 9, "files": 2, "numFailed": 1, "numIgnoredErrors": 3},
}


def put(folder, name, entry):
    """As Kopia 0.23.1 writes it: a directory's placeholder lies in a folder."""
    place = folder / f"{name}.kopia-entry"
    folder.mkdir(parents=True, exist_ok=True)
    if entry["type"] == "d":
        place.mkdir()
        place /= ".kopia-entry"
    place.write_text(json.dumps(entry))


def test_summaries_come_with_their_errors(tmp_path):
    """What could not be read counts, and what was passed over; the recipe is one part."""
    put(tmp_path / "volumes", "db", DIRECTORY)
    put(tmp_path / "recipe", "attributes", {**DIRECTORY, "name": "attributes"})
    put(tmp_path / "recipe", "unit.json", {"name": "unit.json", "type": "f", "size": 4})
    found = read(tmp_path, "reading")
    summary = found["volumes/db"].summ
    assert (summary.files, summary.num_failed, summary.num_ignored_errors) == (2, 1, 3)
    recipe = found["recipe"].summ
    assert (recipe.size, recipe.files, recipe.num_failed, recipe.num_ignored_errors) == (
        13,
        3,
        1,
        3,
    )
    assert set(found) == {"volumes/db", "recipe"}


def test_name_is_that_of_the_entry(tmp_path):
    """A file name may have been changed to be one; what stands in the placeholder counts."""
    put(tmp_path / "volumes", "else", DIRECTORY)
    assert set(read(tmp_path, "reading")) == {"volumes/db"}


@pytest.mark.parametrize("what", ["restored directory", "link", "file in the root", "torn"])
def test_what_is_no_placeholder_is_refused(tmp_path, what):
    """Kopia restores what it has no placeholder for, and a part that is left out would be lost."""
    put(tmp_path / "volumes", "db", DIRECTORY)
    if what == "restored directory":
        (tmp_path / "volumes" / ("x" * 250)).mkdir()
    elif what == "link":
        (tmp_path / "volumes" / "l.kopia-entry").symlink_to("db.kopia-entry")
    elif what == "file in the root":
        (tmp_path / "loose").write_text("")
    else:
        (tmp_path / "volumes" / "t.kopia-entry").write_text("")
    with pytest.raises(RepositoryError):
        read(tmp_path, "reading")


@pytest.mark.anyio
async def test_what_a_process_that_was_killed_left_goes_with_the_next(tmp_path):
    """Else each kill would leave one for good; who is at it just now is left alone."""
    for name in ("old", "new"):
        put(tmp_path / name / "tree" / "volumes", "db", DIRECTORY)
    os.utime(tmp_path / "old", (0, 0))
    async with scratch(tmp_path, "reading") as folder:
        there = {path.name async for path in anyio.Path(tmp_path).iterdir()}
    assert there == {"new", folder.name}
