"""The mmap trap: a program that changes a file without moving its time, in every mode.

Kopia skips a file whose size and time are those of the snapshot before. A page that is dirty
already can be written through a mapping without any of them changing, so what is stored here is
compared with what the program wrote, not with what looks changed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from support import docker
from support.mapped import KINDS, Mapped, cells, mapped_on, try_cell
from support.site import make_site, worker_image

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(params=["ext4", "tmpfs"])
def mapped(request, tmp_path: Path) -> Iterator[Mapped]:
    """A volume on a disk, or one in memory.

    The disk is one of its own. Whenever any container ends, its overlay is unmounted, which syncs
    Docker's own disk as a whole and would hide the trap.
    """
    with docker.scope(worker_image()) as scope, volume_on(request.param, tmp_path, scope):
        scope.run("keeper", volumes=["data:/data:ro"], options=("--entrypoint", ""))
        site = make_site(tmp_path / "site", "worker", scope)
        (tmp_path / "control").mkdir()
        yield Mapped(site, scope, tmp_path / "control")
        assert not site.workers(), "workers were left behind"
        scope.end()
    shutil.rmtree(tmp_path / "site", ignore_errors=True)


@contextmanager
def volume_on(kind: str, folder: Path, scope: docker.Scope) -> Iterator[None]:
    """Make the volume ``data`` on a file system of this kind."""
    if kind == "tmpfs":
        scope.volume("data", "--opt", "type=tmpfs", "--opt", "device=tmpfs")
        yield
        return
    disk = folder / "disk"
    disk.touch()
    os.truncate(disk, 64 * 1024 * 1024)
    place = folder / "mounted"
    place.mkdir()
    subprocess.run([f"mkfs.{kind}", "-q", disk], check=True, timeout=30)
    subprocess.run(["mount", "-o", "loop", disk, place], check=True, timeout=30)
    try:
        scope.volume("data", "--opt", "type=none", "--opt", "o=bind", "--opt", f"device={place}")
        yield
    finally:
        subprocess.run(["umount", "--lazy", place], check=True, timeout=30)


@pytest.mark.parametrize("mode", ["stop", "pause"])
def test_each_snapshot_holds_what_was_written_last(mapped, tmp_path, mode):
    """The program goes on at once after the first run, and no time of its file tells."""
    mapped.start(mode)
    for turn in ("first", "second"):
        mapped.stores_what_it_held(tmp_path / turn, frozen=mode == "pause")


def test_quiet_run_after_a_live_one_reads_everything(mapped, tmp_path):
    """What the live run stored is no ground to skip a file."""
    mapped.start("live")
    mapped.stores_what_it_held(tmp_path / "first")
    mapped.write()
    mapped.start("stop")
    mapped.stores_what_it_held(tmp_path / "second")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", KINDS)
def test_no_strategy_stores_what_is_stale(tmp_path, kind):
    """Each file system and strategy, in all modes; ``benchmarks/soak`` does the same for longer.

    The strategies are tried side by side: a run spends most of its time looking on.
    """
    strategies = list(dict.fromkeys(strategy for disk, strategy, _ in cells() if disk == kind))
    with ThreadPoolExecutor(len(strategies)) as pool:
        list(pool.map(partial(try_strategy, tmp_path, kind), strategies))


def try_strategy(folder: Path, kind: str, strategy: str) -> None:
    """All modes of one world, three times each."""
    with (
        docker.scope(worker_image()) as scope,
        mapped_on(kind, strategy, folder / strategy, scope) as mapped,
    ):
        for *cell, modes in cells():
            if cell == [kind, strategy]:
                (folder / strategy / modes).mkdir()
                try_cell(mapped, strategy, modes, folder / strategy / modes, turns=3)
