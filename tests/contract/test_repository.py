"""One suite for every Repository: the shipped fake, and Kopia itself."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
from support.kopia import FILES, RealWorld

from kopiwatch.backup.verdict import judge_source
from kopiwatch.errors import (
    NotConnected,
    RepositoryError,
    RepositoryExists,
    RepositoryMismatch,
    RepositoryNotFound,
    RepositoryUnreachable,
    WrongPassword,
)
from kopiwatch.kopia.record import ACCEPTED_PIN, BAD_PIN, Snapshot
from kopiwatch.kopia.tree import parts
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.testing.kopia_contents import FakePlace, FakeState

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]

UNKNOWN = "0" * 32


class FakeWorld:
    """Places and states in memory."""

    def __init__(self, tmp_path: Path) -> None:
        self.places: dict[str, FakePlace] = {}
        self.states: dict[str, FakeState] = {}
        self.aside: dict[str, object] = {}

    def mount(self, place: str) -> None:
        self.places[place] = FakePlace(f"/{place}/kopia")

    def empty(self, place: str) -> None:
        self.aside[place] = self.places[place].contents
        self.places[place].contents = None

    def bring_back(self, place: str) -> None:
        self.places[place].contents = self.aside.pop(place)

    def repository(self, state="one", *, place="disk", password="password", host="harbour"):
        return FakeRepository(
            self.places.setdefault(place, FakePlace(f"/{place}/kopia", there=False)),
            host=host,
            password=password,
            state=self.states.setdefault(state, FakeState()),
        )

    async def snapshot(self, repository, path="shop", files=FILES, **tags) -> Snapshot:
        return repository.add_snapshot(f"/mnt/{path}", files, tags=tags)

    async def set_policy(self, repository, target, value) -> None:
        repository.set_policy(target, value)


@pytest.fixture(params=["fake", "kopia"])
def world(request, tmp_path):
    made = FakeWorld(tmp_path) if request.param == "fake" else RealWorld(tmp_path)
    made.mount("disk")
    return made


@pytest.fixture
async def repository(world):
    made = world.repository()
    await made.create()
    return made


# -- creating and connecting --------------------------------------------------------------------


async def test_created_repository_is_connected_and_ours(world):
    """Status tells who we are, where the blobs are, and how much room there is."""
    repository = world.repository()
    created = await repository.create()
    status = await repository.status()
    assert created.password_file is None
    assert created.status.unique_id == status.unique_id != ""
    assert (status.client.username, status.client.hostname) == ("kopiwatch", "harbour")
    assert status.storage.type == "filesystem"
    assert status.volume.available > 0
    assert await repository.snapshots() == ()


async def test_second_create_is_refused(world, repository):
    """Neither the state that knows one nor a new state may make another in the same place."""
    for again in (world.repository(), world.repository("two")):
        with pytest.raises(RepositoryExists):
            await again.create()
    await repository.status()


async def test_state_that_knew_a_repository_never_makes_another(world, repository):
    """An empty mount point is no new beginning."""
    world.empty("disk")
    with pytest.raises(RepositoryExists):
        await world.repository().create()
    world.bring_back("disk")
    await repository.status()


async def test_create_without_password_makes_one_that_works(world):
    """The state keeps it; whoever asked is told that it was made."""
    created = await world.repository(password=None).create()
    assert created.password_file is not None
    assert (await world.repository(password=None).status()).unique_id == created.status.unique_id
    with pytest.raises(WrongPassword):
        await world.repository("two").connect()


async def test_missing_place_is_unreachable_and_never_made(world):
    """An unmounted disk is not a reason to create folders."""
    for attempt in ("create", "connect", "ensure_connected"):
        with pytest.raises(RepositoryUnreachable):
            await getattr(world.repository(place="nowhere"), attempt)()


async def test_empty_place_is_not_a_repository(world):
    """Only create makes one; whatever else says that there is none."""
    for attempt in ("connect", "ensure_connected"):
        with pytest.raises(RepositoryNotFound):
            await getattr(world.repository(), attempt)()


async def test_nothing_works_without_a_connection(world, repository):
    """A state that never connected says so."""
    other = world.repository("two")
    for call in (other.status, other.snapshots, lambda: other.ensure_policy("harbour")):
        with pytest.raises(NotConnected):
            await call()
    with pytest.raises(NotConnected):
        await other.worker_files(cache_dir="/cache")


async def test_second_state_connects_to_the_same_repository(world, repository):
    """A fresh host needs address and password, and keeps its own identity."""
    stored = await world.snapshot(repository, run="r1")
    other = world.repository("two", host="island")
    await other.ensure_connected()
    status = await other.status()
    assert status.unique_id == (await repository.status()).unique_id
    assert status.client.hostname == other.host == "island"
    (found,) = await other.snapshots()
    assert found.id == stored.id
    assert found.source.host == "harbour"


async def test_wrong_password_leaves_the_connection_as_it_was(world, repository):
    """A failed connect deletes nothing, whatever Kopia itself would do."""
    with pytest.raises(WrongPassword):
        await world.repository(password="wrong").connect()
    with pytest.raises(WrongPassword):
        await world.repository("two", password="wrong").connect()
    with pytest.raises(WrongPassword):
        await world.repository(password="wrong").snapshots()
    await world.repository().status()
    with pytest.raises(NotConnected):
        await world.repository("two").status()


async def test_connecting_again_is_harmless(world, repository):
    """The same repository, the same identity, even under a new host name."""
    before = await repository.status()
    renamed = world.repository(host="renamed")
    await renamed.connect()
    await renamed.ensure_connected()
    after = await renamed.status()
    assert (after.unique_id, after.client) == (before.unique_id, before.client)
    assert renamed.host == "harbour"


async def test_ghost_repository_is_no_repository(world, repository):
    """An unmounted disk leaves an empty folder: that is an error, never an empty list."""
    await world.snapshot(repository)
    world.empty("disk")
    for call in (repository.status, repository.snapshots, repository.connect):
        with pytest.raises(RepositoryNotFound):
            await call()
    world.bring_back("disk")
    assert len(await repository.snapshots()) == 1


async def test_other_repository_in_the_same_place_is_a_mismatch(world, repository):
    """Another disk is mounted: both ids are named, nothing is switched."""
    known = (await repository.status()).unique_id
    world.empty("disk")
    other = world.repository("two")
    found = (await other.create()).status.unique_id
    for call in (repository.status, repository.connect):
        with pytest.raises(RepositoryMismatch) as caught:
            await call()
        assert known in caught.value.message
        assert found in caught.value.message
    world.bring_back("disk")
    assert (await repository.status()).unique_id == known


async def test_other_place_is_a_mismatch(world, repository):
    """A changed setting never retargets in silence, not even to a place with a repository."""
    world.mount("other")
    await world.repository("two", place="other").create()
    moved = world.repository(place="other")
    for call in (moved.status, moved.snapshots, moved.connect, moved.ensure_connected):
        with pytest.raises(RepositoryMismatch) as caught:
            await call()
        assert "/disk/kopia" in caught.value.message
        assert "/other/kopia" in caught.value.message
    await world.repository().status()


# -- snapshots ----------------------------------------------------------------------------------


async def test_snapshots_come_by_source_and_oldest_first(world, repository):
    """All, or those of one source; a source without any has none."""
    first = await world.snapshot(repository, run="r1", mode="stop")
    other = await world.snapshot(repository, "mail")
    second = await world.snapshot(repository, run="r2")
    source = str(first.source)
    found = await repository.snapshots(source)
    assert [s.id for s in found] == [first.id, second.id]
    assert [s.tag("run") for s in found] == ["r1", "r2"]
    assert found[0].tag("mode") == "stop"
    assert {s.id for s in await repository.snapshots()} == {first.id, second.id, other.id}
    assert await repository.snapshots(source + "x") == ()
    assert await repository.snapshots("kopiwatch@harbour") == ()


async def test_directory_has_entries_with_their_summaries(world, repository):
    """The parts of a tree, by object or by path below one."""
    snapshot = await world.snapshot(repository)
    root = await repository.directory(snapshot.root_entry.obj)
    assert [entry.name for entry in root.entries] == ["recipe", "volumes"]
    volumes = await repository.directory(f"{snapshot.root_entry.obj}/volumes")
    by_name = {entry.name: entry for entry in volumes.entries}
    assert by_name["db"].summ.files == 2
    assert by_name["db"].summ.size == len(b"content of a" + b"content of b")
    assert (await repository.directory(by_name["empty"].obj)).entries == ()


LAYOUT = FILES | {
    "volumes/a b\n%2F~": b"a file whose name is no name",
    "volumes/web:%2Fdata/" + "n" * 200: b"deep",
    f"volumes/{'n' * 200}/x": b"as long as a place may be",
    "volumes/shop.kopia/y": b"y",
    "binds/etc~app.conf": b"one file",
    "binds/srv~ü/z": b"z",
    "dumps/db.postgres.sql": b"-- dump",
    "recipe/attributes/db": b"list",
}


async def test_outline_tells_what_the_folders_tell(world, repository):
    """Path by path the same figures, in one launch; afterwards it is known without any."""
    snapshot = await world.snapshot(repository, files=LAYOUT)
    root = snapshot.root_entry.obj
    assert await repository.outlined(root) is None
    slow = await parts(repository, root)
    found = await repository.outline(snapshot)
    assert {p: judge_source(p, e) for p, e in found.items()} == {
        p: judge_source(p, e) for p, e in slow.items()
    }
    assert found["volumes/db"].summ.files == 2
    assert found["binds/etc~app.conf"].size == len(b"one file")
    assert found["recipe"].summ.files == 2
    assert await repository.outlined(root) == found == await parts(repository, root)


async def test_outline_goes_through_the_manifest(world, repository):
    """The tree may still be there: without its manifest in the repository nothing is told."""
    snapshot = await world.snapshot(repository)
    await repository.delete((snapshot.id,))
    with pytest.raises(RepositoryError):
        await repository.outline(snapshot)
    assert await repository.outlined(snapshot.root_entry.obj) is None


async def test_outline_that_does_not_add_up_is_none(world, repository):
    """The parts must be the whole; what is in the root itself is none of them."""
    snapshot = await world.snapshot(repository)
    summary = msgspec.structs.replace(snapshot.root_entry.summ, num_failed=1)
    entry = msgspec.structs.replace(snapshot.root_entry, summ=summary)
    with pytest.raises(RepositoryError, match="add up"):
        await repository.outline(msgspec.structs.replace(snapshot, root_entry=entry))
    loose = await world.snapshot(repository, files=FILES | {"loose": b"in the root"})
    with pytest.raises(RepositoryError):
        await repository.outline(loose)


async def test_content_is_the_file_behind_a_path(world, repository):
    """One small file is read without a restore."""
    snapshot = await world.snapshot(repository)
    root = snapshot.root_entry.obj
    assert await repository.content(f"{root}/volumes/db/sub/b") == b"content of b"
    with pytest.raises(RepositoryError):
        await repository.content(f"{root}/absent")


@pytest.mark.parametrize("path", ["k" + "0" * 32, "{root}/nothing", "{root}/recipe/unit.json"])
async def test_directory_that_is_none_is_an_error(world, repository, path):
    """Unknown objects, unknown paths and files."""
    snapshot = await world.snapshot(repository)
    with pytest.raises(RepositoryError):
        await repository.directory(path.format(root=snapshot.root_entry.obj))


async def test_pinning_changes_the_id_and_nothing_else(world, repository):
    """The verdict travels with the manifest."""
    snapshot = await world.snapshot(repository, run="r1")
    await repository.pin(snapshot.id, BAD_PIN + "partial")
    (pinned,) = await repository.snapshots()
    assert pinned.id != snapshot.id
    assert pinned.quarantine == "partial"
    assert pinned.tag("run") == "r1"
    assert pinned.root_entry.obj == snapshot.root_entry.obj
    with pytest.raises(RepositoryError):
        await repository.pin(snapshot.id, "x")


async def test_pin_takes_the_place_of_another_in_one_step(world, repository):
    """A refused point becomes an accepted one; there is no moment at which it is neither."""
    snapshot = await world.snapshot(repository, run="r1", mode="stop")
    await repository.pin(snapshot.id, BAD_PIN + "source-empty")
    (refused,) = await repository.snapshots()
    assert (refused.quarantine, refused.complete) == ("source-empty", False)
    accepted = ACCEPTED_PIN + "source-empty"
    await repository.pin(refused.id, accepted, instead_of=BAD_PIN + "source-empty")
    (found,) = await repository.snapshots()
    assert (found.pins, found.accepted, found.quarantine) == ((accepted,), "source-empty", "")
    assert found.complete
    assert found.id not in (snapshot.id, refused.id)
    assert (found.start_time, found.tag("run")) == (snapshot.start_time, "r1")
    await repository.pin(found.id, accepted, instead_of=BAD_PIN + "source-empty")
    assert await repository.snapshots() == (found,), "again: nothing changes, not even the id"


async def test_bad_pin_counts_more_than_an_accepting_one(world, repository):
    """Whoever adds the accepting pin first has not accepted anything yet."""
    snapshot = await world.snapshot(repository, run="r1")
    await repository.pin(snapshot.id, BAD_PIN + "source-empty")
    (refused,) = await repository.snapshots()
    await repository.pin(refused.id, ACCEPTED_PIN + "source-empty")
    (both,) = await repository.snapshots()
    assert len(both.pins) == 2
    assert (both.quarantine, both.accepted, both.complete) == ("source-empty", "", False)


async def test_moved_history_keeps_everything_but_the_ids(world, repository):
    """Times, tags, pins and content; what is at the new place already stays, too."""
    first = await world.snapshot(repository, "old", run="r1")
    await repository.pin(first.id, BAD_PIN + "partial")
    second = await world.snapshot(repository, "old", run="r2", mode="stop")
    own = await world.snapshot(repository, "new", run="r3")
    other = await world.snapshot(repository, "oldest", run="r4")
    source, target = str(first.source), str(own.source)
    before = await repository.snapshots(source)
    await repository.move_history(source, target)
    assert await repository.snapshots(source) == ()
    moved = await repository.snapshots(target)
    assert [s.tag("run") for s in moved] == ["r1", "r2", "r3"]
    assert moved[2] == (await repository.snapshots(target))[-1]
    assert moved[2].id == own.id
    assert [s.quarantine for s in moved] == ["partial", "", ""]
    assert moved[1].tag("mode") == "stop"
    for old, new in zip(before, moved, strict=False):
        assert old.id != new.id
        assert (old.start_time, old.end_time) == (new.start_time, new.end_time)
        assert old.root_entry.obj == new.root_entry.obj
    assert second.root_entry.obj == moved[1].root_entry.obj
    assert [s.id for s in await repository.snapshots(str(other.source))] == [other.id]


async def test_moving_a_history_again_is_no_error(world, repository):
    """Whoever was interrupted afterwards does it once more."""
    first = await world.snapshot(repository, "old", run="r1")
    target = str(first.source).replace("old", "new")
    await repository.move_history(str(first.source), target)
    found = await repository.snapshots()
    await repository.move_history(str(first.source), target)
    assert await repository.snapshots() == found


async def test_delete_is_all_or_nothing(world, repository):
    """One unknown id fails the call, and nothing is gone."""
    ids = [(await world.snapshot(repository, run=f"r{n}")).id for n in range(3)]
    with pytest.raises(RepositoryError):
        await repository.delete((ids[0], UNKNOWN))
    assert [s.id for s in await repository.snapshots()] == ids
    await repository.delete((ids[0], ids[2]))
    assert [s.id for s in await repository.snapshots()] == [ids[1]]


async def test_delete_by_object_is_refused(world, repository):
    """Kopia would delete every snapshot of that content."""
    snapshot = await world.snapshot(repository)
    with pytest.raises(RepositoryError, match="not the id"):
        await repository.delete((snapshot.root_entry.obj,))
    assert len(await repository.snapshots()) == 1


async def test_restore_writes_the_tree_or_a_part_of_it(world, repository, tmp_path):
    """Counts and content."""
    snapshot = await world.snapshot(repository)
    target = tmp_path / "out.tar"
    result = await repository.restore(snapshot.id, target, timeout=None)
    assert (result.files, result.symlinks) == (3, 0)
    assert (target / "volumes/db/sub/b").read_bytes() == b"content of b"
    part = await repository.restore(f"{snapshot.id}/volumes/db", tmp_path / "db", timeout=None)
    assert part.files == 2
    assert (tmp_path / "db" / "a").read_bytes() == b"content of a"


@pytest.mark.parametrize("path", [UNKNOWN, "{id}/volumes/nothing"])
async def test_restore_of_what_is_not_there_is_an_error(world, repository, tmp_path, path):
    """Never an empty directory that looks like a restore."""
    snapshot = await world.snapshot(repository)
    with pytest.raises(RepositoryError):
        await repository.restore(path.format(id=snapshot.id), tmp_path / "out", timeout=None)


# -- policy -------------------------------------------------------------------------------------


async def test_policy_is_written_once_and_on_drift_only(world, repository):
    """Read, compare, write; anything that is not ours is overwritten."""
    assert await repository.ensure_policy("harbour")
    assert not await repository.ensure_policy("harbour")
    await world.set_policy(repository, "kopiwatch@harbour", {"files": {"ignore": ["*.db"]}})
    assert await repository.ensure_policy("harbour")
    assert not await repository.ensure_policy("harbour")


async def test_source_is_checked_for_what_others_set(world, repository):
    """No policy, a foreign action on the source, and any policy below it are refused."""
    source = "kopiwatch@harbour:/mnt/shop"

    async def check(source: str) -> None:
        # Anew each time: one that has just found them good need not read them for 5 s.
        await world.repository().check_policy(source)

    with pytest.raises(RepositoryError, match="actions"):
        await check(source)
    await repository.ensure_policy("harbour")
    await check(source)
    foreign = {"actions": {"beforeSnapshotRoot": {"path": "/bin/true", "mode": "essential"}}}
    await world.set_policy(repository, source, foreign)
    with pytest.raises(RepositoryError, match="beforeSnapshotRoot"):
        await check(source)
    await world.set_policy(repository, source, {"files": {"ignore": ["*"]}})
    with pytest.raises(RepositoryError, match=r"files\.ignore"):
        await check(source)
    await world.set_policy(repository, source, None)
    await world.set_policy(repository, f"{source}/volumes/db", {"files": {"ignore": ["x"]}})
    with pytest.raises(RepositoryError, match="/mnt/shop/volumes/db"):
        await check(source)
    await check("kopiwatch@harbour:/mnt/mail")


# -- the worker's files -------------------------------------------------------------------------


async def test_worker_files_name_the_paths_of_the_worker(world, repository):
    """Cache and repository are where the worker sees them; the password is Kopia's own form."""
    files = await repository.worker_files(cache_dir="/cache/kopia", storage_path="/r/kopia")
    config = json.loads(files.config)
    assert config["storage"]["config"]["path"] == "/r/kopia"
    assert config["caching"]["cacheDirectory"].startswith("/cache/kopia/")
    assert (config["hostname"], config["username"]) == ("harbour", "kopiwatch")
    assert files.password == b"cGFzc3dvcmQ="


async def test_host_is_the_given_one_until_it_is_recorded(world):
    """Before the first connection there is only what we were told."""
    assert world.repository(host="first").host == "first"
    await world.repository(host="first").create()
    assert world.repository(host="second").host == "first"
