"""What a run stored is read back through its manifest; where that tells nothing, step by step."""

from __future__ import annotations

import msgspec
import pytest

from kopiwatch.backup.stored import read_back
from kopiwatch.errors import RepositoryError, RunError
from kopiwatch.testing.kopia import FakeRepository

pytestmark = pytest.mark.anyio

FILES = {"recipe/unit.json": b"{}", "volumes/db/a": b"content"}


@pytest.fixture
def repository():
    return FakeRepository()


@pytest.fixture
def snapshot(repository):
    return repository.add_snapshot("/mnt/shop", FILES, tags={"run": "r1"})


async def ask(repository, snapshot, run="r1"):
    source = "kopiwatch@host:/mnt/shop"
    return await read_back(repository, snapshot, unit="shop", source=source, run=run)


def methods(repository):
    return [name for name, _ in repository.calls]


async def test_one_call_tells_it(repository, snapshot):
    """That it is there, and what it holds."""
    assert set(await ask(repository, snapshot)) == {"recipe", "volumes/db"}
    assert methods(repository) == ["outline"]


async def test_tree_that_cannot_be_outlined_is_read_folder_by_folder(repository, snapshot):
    """The manifest is looked for in the list then."""
    repository.fail("outline", RepositoryError("no space for placeholders"))
    assert set(await ask(repository, snapshot)) == {"recipe", "volumes/db"}
    assert methods(repository) == ["outline", "snapshots", "outlined", "directory", "directory"]


async def test_snapshot_that_is_not_there_has_no_tree(repository, snapshot):
    """Kopia named it, and its content is there, but nobody would find it again."""
    repository.contents.snapshots.clear()
    with pytest.raises(RunError) as caught:
        await ask(repository, snapshot)
    assert caught.value.reason == "no-manifest"


@pytest.mark.parametrize("wrong", ["run", "source"])
async def test_snapshot_of_somebody_else_is_not_ours(repository, snapshot, wrong):
    """What Kopia named must be of this run and this source."""
    if wrong == "source":
        repository.contents.snapshots.clear()
        snapshot = repository.add_snapshot("/mnt/other", FILES, tags={"run": "r1"})
    with pytest.raises(RunError) as caught:
        await ask(repository, snapshot, run="r2" if wrong == "run" else "r1")
    assert caught.value.reason == "no-manifest"


async def test_root_without_a_summary_is_not_trusted(repository, snapshot):
    """Nothing to hold the parts against: the folders are read."""
    entry = msgspec.structs.replace(snapshot.root_entry, summ=None)
    await ask(repository, msgspec.structs.replace(snapshot, root_entry=entry))
    assert "directory" in methods(repository)
