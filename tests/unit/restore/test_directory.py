"""Restoring into a directory, on a repository in memory."""

from __future__ import annotations

import json

import pytest

from kopiwatch.errors import RepositoryError, RepositoryFull, RunError, UsageError
from kopiwatch.restore import directory
from kopiwatch.restore.point import points, select
from kopiwatch.testing.kopia import FakeRepository

pytestmark = pytest.mark.anyio

RECIPE = {"expected": ["recipe", "volumes/data", "volumes/files"], "warnings": ["careful"]}
FILES = {
    "recipe/unit.json": json.dumps(RECIPE).encode(),
    "volumes/data/a": b"a",
    "volumes/data/b/c": b"c",
    "volumes/files/d": b"d",
}


async def stored(files: dict[str, bytes] = FILES):
    repository = FakeRepository(host="h")
    repository.add_snapshot("/mnt/shop", files, tags={"run": "r1"})
    return repository, select("shop", points(await repository.snapshots()), "latest")


async def test_whole_tree_is_restored(tmp_path):
    """Each part stands at its path, and the counts are told."""
    repository, point = await stored()
    chosen = await directory.plan(repository, point, tmp_path / "out", ())
    assert (chosen.files, chosen.warnings) == (4, ("careful",))
    assert chosen.parts == ("recipe", "volumes")
    done = await directory.restore(repository, chosen)
    assert done.files == 4
    assert (tmp_path / "out/volumes/data/b/c").read_bytes() == b"c"


async def test_chosen_volumes_are_restored_alone(tmp_path):
    """Nothing else is written."""
    repository, point = await stored()
    chosen = await directory.plan(repository, point, tmp_path / "out", ("files", "files"))
    assert chosen.parts == ("volumes/files",)
    await directory.restore(repository, chosen)
    assert [p.name for p in (tmp_path / "out/volumes").iterdir()] == ["files"]


async def test_point_without_an_expected_source_is_refused(tmp_path):
    """Nothing is written."""
    files = {name: data for name, data in FILES.items() if "files" not in name}
    repository, point = await stored(files)
    with pytest.raises(RunError, match="volumes/files"):
        await directory.plan(repository, point, tmp_path / "out", ())


@pytest.mark.parametrize("recipe", [b"", b"{", b"{}", b'{"expected": 1}'])
async def test_point_with_a_damaged_recipe_is_refused(tmp_path, recipe):
    """Without it nobody can tell whether the point is whole."""
    repository, point = await stored(FILES | {"recipe/unit.json": recipe})
    with pytest.raises(RunError, match="recipe"):
        await directory.plan(repository, point, tmp_path / "out", ())


async def test_fewer_files_than_stored_is_an_error(tmp_path):
    """A restore that wrote less is not a success, whatever Kopia says."""
    repository, point = await stored()
    chosen = await directory.plan(repository, point, tmp_path / "out", ("data",))
    more = directory.Plan(point, chosen.target, chosen.parts, chosen.files + 1, chosen.size)
    with pytest.raises(RunError, match="2 files were restored"):
        await directory.restore(repository, more)


async def test_failing_restore_is_raised(tmp_path):
    """And not counted as done."""
    repository, point = await stored()
    chosen = await directory.plan(repository, point, tmp_path / "out", ())
    repository.fail("restore", RepositoryError("corrupt"))
    with pytest.raises(RepositoryError, match="corrupt"):
        await directory.restore(repository, chosen)


async def test_full_disk_at_the_target_says_so(tmp_path):
    """It is not the repository's disk, and a part stands there."""
    repository, point = await stored()
    chosen = await directory.plan(repository, point, tmp_path / "out", ())
    repository.fail("restore", RepositoryFull("no space left"))
    with pytest.raises(RunError, match="a part was written"):
        await directory.restore(repository, chosen)


async def test_target_must_be_empty_or_new(tmp_path):
    """A file, a full folder, a dangling link, a place without a parent: refused, untouched."""
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name in ("file", "full", "link", "absent/deeper", "x" * 300):
        with pytest.raises(UsageError):
            await directory.check_target(tmp_path / name)
    (tmp_path / "empty").mkdir()
    await directory.check_target(tmp_path / "empty")
    await directory.check_target(tmp_path / "new")
