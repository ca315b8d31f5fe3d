"""What only the real Kopia can prove: the gate, the policy at work, the worker's files."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import threading
from pathlib import Path

import anyio
import msgspec
import pytest
from support.kopia import RealWorld

from kopiwatch.config import Secret
from kopiwatch.errors import BusyError, ConfigError, RepositoryExists, RepositoryNotFound
from kopiwatch.kopia import argv
from kopiwatch.kopia.environment import SETTINGS
from kopiwatch.kopia.lock import FileLock
from kopiwatch.kopia.record import Snapshot

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(60)]


@pytest.fixture
def world(tmp_path):
    made = RealWorld(tmp_path)
    made.mount("disk")
    return made


@pytest.fixture
async def repository(world):
    made = world.repository()
    await made.create()
    await made.ensure_policy("harbour")
    return made


class Worker:
    """What a worker does: Kopia on moved files, no password in its environment, at a gate."""

    def __init__(self, world: RealWorld, files) -> None:
        self.world = world
        self.base = world.path / "worker"
        self.base.mkdir(exist_ok=True)
        (self.base / "repository.config").write_bytes(files.config)
        (self.base / "repository.config.kopia-password").write_bytes(files.password)
        self.gate = self.base / "gate"
        self.said: list[str] = []

    def launch(
        self, source: Path, word: str | None, *, gate: bool = True, **tags: str
    ) -> subprocess.CompletedProcess:
        """Run Kopia through its gate, with this word; None for no gate at all."""
        arguments = argv.snapshot_argv(
            self.base / "repository.config",
            str(source),
            log_dir=self.base / "logs",
            tags=tags,
            gate=gate,
        )
        env = {"PATH": os.environ["PATH"], "HOME": str(self.base), **SETTINGS}
        if word is not None:
            env["KOPIWATCH_GATE"] = str(self.gate)
            self.gate.mkdir(exist_ok=True)
            for name in ("said", "word"):
                if not (self.gate / name).exists():
                    os.mkfifo(self.gate / name)
            threading.Thread(target=self._keep, args=(word,), daemon=True).start()
        return subprocess.run(
            [self.world.kopia, *arguments], env=env, capture_output=True, timeout=30, check=False
        )

    def _keep(self, word: str) -> None:
        self.said.append((self.gate / "said").read_text())
        (self.gate / "word").write_text(f"{word}\n")
        if word.startswith("go"):
            self.said.append((self.gate / "said").read_text())
            (self.gate / "word").write_text("flush\n")


@pytest.fixture
async def worker(world, repository):
    files = await repository.worker_files(
        cache_dir=world.path / "worker" / "cache", storage_path=world.path / "disk" / "kopia"
    )
    return Worker(world, files)


@pytest.fixture
def source(world):
    made = world.path / "mnt" / "shop"
    (made / "volumes" / "db").mkdir(parents=True)
    (made / "volumes" / "db" / "a").write_text("a")
    return made


async def test_gate_opens_and_the_manifest_is_durable(repository, worker, source):
    """before, go, after; one line names a snapshot that others can see."""
    done = await anyio.to_thread.run_sync(lambda: worker.launch(source, "go", run="r1"))
    assert done.returncode == 0, done.stderr
    assert worker.said == ["before\n", "after\n"]
    (line,) = done.stdout.splitlines()
    snapshot = msgspec.json.decode(line, type=Snapshot)
    assert str(snapshot.source) == f"kopiwatch@harbour:{source}"
    assert snapshot.tag("run") == "r1"
    assert [s.id for s in await repository.snapshots()] == [snapshot.id]


@pytest.mark.parametrize("word", ["stop", None])
async def test_refusing_gate_leaves_no_manifest(repository, worker, source, word):
    """Another word, or no gate because somebody runs Kopia by hand: a clean abort."""
    done = await anyio.to_thread.run_sync(lambda: worker.launch(source, word))
    assert done.returncode == 1
    assert b"upload error: exit status 1" in done.stderr
    assert (b"only kopiwatch backs this source up" in done.stderr) is (word is None)
    assert await repository.snapshots() == ()


async def test_gate_lets_kopia_read_a_stage_in_the_source_s_place(repository, worker, source):
    """Identity and parent stay the source's: what is the same there is not read again."""
    await anyio.to_thread.run_sync(lambda: worker.launch(source, "go", run="r1"))
    stage = source.parents[1] / "stage" / "0" / "shop"
    await anyio.to_thread.run_sync(shutil.copytree, source, stage)
    (source / "volumes" / "db" / "a").write_text("written after the window")
    (stage / "volumes" / "db" / "b").write_text("staged")
    done = await anyio.to_thread.run_sync(lambda: worker.launch(source, f"go {stage}", run="r2"))
    assert done.returncode == 0, done.stderr
    snapshot = msgspec.json.decode(done.stdout, type=Snapshot)
    assert str(snapshot.source) == f"kopiwatch@harbour:{source}"
    root = snapshot.root_entry.obj
    assert await repository.content(f"{root}/volumes/db/a") == b"a"
    assert await repository.content(f"{root}/volumes/db/b") == b"staged"
    stats = json.loads(done.stdout)["stats"]
    assert (stats["cachedFiles"], stats["nonCachedFiles"]) == (1, 1)
    assert worker.said[-1] == "after\n"


async def test_hot_pass_knows_no_gate_and_is_no_restore_point(repository, worker, source):
    """Another identity without the tag of a run; its exit code is its own."""
    hot = source.parent / ".hot" / "shop"
    hot.parent.mkdir()
    hot.symlink_to(source)
    done = await anyio.to_thread.run_sync(lambda: worker.launch(hot, None, gate=False, hot="r1"))
    assert done.returncode == 0, done.stderr
    assert worker.said == []
    assert await repository.snapshots(f"kopiwatch@harbour:{source}") == ()
    (found,) = await repository.snapshots(f"kopiwatch@harbour:{hot}")
    assert not found.complete
    assert found.tag("hot") == "r1"


async def test_action_does_not_see_the_password(world, repository, worker, source):
    """The worker's Kopia has its password from its credential file, so no child inherits it."""
    spy = {"actions": {"beforeSnapshotRoot": {"path": "/bin/sh", "args": ["-c", "env >&2"]}}}
    await world.set_policy(repository, f"kopiwatch@harbour:{source}", spy)
    done = await anyio.to_thread.run_sync(lambda: worker.launch(source, None))
    assert b"KOPIA_SOURCE_PATH" in done.stderr
    assert b"PASSWORD" not in done.stderr


async def test_nothing_inside_or_outside_hides_data(world, repository, worker, source):
    """Ignore files, tagged caches, and the global policy leave nothing out."""
    db = source / "volumes" / "db"
    (db / ".kopiaignore").write_text("*\n")
    (db / "cache").mkdir()
    (db / "cache" / "CACHEDIR.TAG").write_text("Signature: 8a477f597d28d172789f06886806bc55\n")
    (db / "x.tmp").write_bytes(b"x" * 500)
    rules = {"ignore": ["*.tmp"], "maxFileSize": 100, "oneFileSystem": True}
    for target in ("(global)", "@harbour"):
        await world.set_policy(repository, target, {"files": rules})
    await repository.check_policy(f"kopiwatch@harbour:{source}")
    done = await anyio.to_thread.run_sync(lambda: worker.launch(source, "go"))
    snapshot = msgspec.json.decode(done.stdout, type=Snapshot)
    assert snapshot.root_entry.summ.files == 4


async def test_nothing_is_pruned_by_kopia(world, repository, worker, source):
    """Twelve snapshots stay twelve, also when the global policy keeps one."""
    keep = {"retention": {"keepLatest": 1, "keepHourly": 0, "keepDaily": 0}}
    await world.set_policy(repository, "(global)", keep)
    for n in range(12):
        (source / "volumes" / "db" / "a").write_text(str(n))
        done = await anyio.to_thread.run_sync(lambda: worker.launch(source, "go"))
        assert done.returncode == 0
    assert len(await repository.snapshots()) == 12


@pytest.mark.parametrize("password", [" spaced out\n", "umlaut-ü-\U0001f511", "quote'\"$x\\"])
async def test_worker_opens_what_any_password_made(world, password):
    """Kopia trims a password from the environment and not from its file; both must agree."""
    repository = world.repository(password=password)
    await repository.create()
    files = await repository.worker_files(
        cache_dir=world.path / "c", storage_path=world.path / "disk" / "kopia"
    )
    worker = Worker(world, files)
    made = argv.common(worker.base / "repository.config", log_dir=worker.base / "l")
    env = {"HOME": str(worker.base), **SETTINGS}
    done = await anyio.run_process([world.kopia, *made, *argv.status()], env=env)
    assert json.loads(done.stdout)["uniqueIDHex"] == (await repository.status()).unique_id


async def test_busy_kopia_is_named(world, repository):
    """Whoever holds the lock is told to whoever gives up."""
    hurried = world.repository()
    hurried._lock_wait = 0.1
    async with FileLock(repository.lock_path, command="kopiwatch backup shop").hold():
        with pytest.raises(BusyError, match="kopiwatch backup shop"):
            await hurried.status()
    await hurried.status()


async def test_files_of_the_state_are_private(world, repository):
    """0600 in 0700, and nothing temporary is left."""
    await repository.snapshots()
    state = world.path / "state-one"
    for path in (state, *state.rglob("*")):
        if path.is_symlink() or "logs" in path.relative_to(state).parts:
            continue
        mode = stat.S_IMODE(path.stat().st_mode)
        assert mode == (0o700 if path.is_dir() else 0o600), path
    assert stat.S_IMODE((state / "kopia" / "logs").stat().st_mode) == 0o700
    assert not list((state / "kopia").glob(".connect-*"))


async def test_password_is_nowhere_in_the_state(world):
    """Neither in Kopia's configuration nor in its logs."""
    repository = world.repository(password="geheim-im-log")
    await repository.create()
    world.mount("empty")
    with pytest.raises(RepositoryNotFound):
        await world.repository("two", password="geheim-im-log", place="empty").connect()
    for path in (p for p in world.path.rglob("*") if p.is_file()):
        assert b"geheim-im-log" not in path.read_bytes()


async def test_folder_with_something_else_is_left_alone(world):
    """A repository is made in an empty folder, or not at all."""
    place = world.path / "disk" / "kopia"
    place.mkdir()
    (place / "thesis.odt").touch()
    with pytest.raises(RepositoryExists, match="not empty"):
        await world.repository().create()
    assert [path.name for path in place.iterdir()] == ["thesis.odt"]


async def test_repository_in_the_mount_itself_is_pointed_out(world, repository):
    """A common mistake of who brings an existing Kopia repository along."""
    (world.path / "disk" / "kopia").rename(world.path / "mine")
    with pytest.raises(RepositoryNotFound) as caught:
        await world.repository("two", place="mine").connect()
    assert "itself is a Kopia repository" in caught.value.hint


async def test_other_hostname_than_the_recorded_one_is_a_mistake(world, repository):
    """A name that was set explicitly is never ignored."""
    config = msgspec.structs.replace(
        world.config("one", "disk", "password"), hostname="elsewhere", password=Secret("password")
    )
    other = type(repository)(config)
    for call in (other.status, other.connect, other.ensure_connected):
        with pytest.raises(ConfigError, match="elsewhere"):
            await call()
