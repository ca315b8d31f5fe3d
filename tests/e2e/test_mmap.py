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
from pathlib import Path

import pytest
from support import docker
from support.site import Site, make_site, wait_until, worker_image

pytestmark = pytest.mark.timeout(180)

PROGRAM = """
import mmap, os, signal, time
path = "/data/page"
if not os.path.exists(path):
    with open(path, "wb") as file:
        file.write(b"00000000" + b"-" * 4088)
file = open(path, "r+b")
page = mmap.mmap(file.fileno(), 4096)
count = int(page[0:8])
def more(signal_number, _):
    global count, busy
    busy = signal_number == signal.SIGUSR1
    count += 1
    page[0:8] = b"%08d" % count
    with open("/control/new", "wb") as said:
        said.write(b"%08d" % count)
    os.rename("/control/new", "/control/said")
signal.signal(signal.SIGUSR1, more)
signal.signal(signal.SIGUSR2, more)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
more(signal.SIGUSR1, None)
while True:
    time.sleep(0.005)
    if busy:
        page[0:8] = b"%08d" % count
"""
"""Writes one page through a mapping.

The number in it grows when the program starts, and at SIGUSR1; then it is written again and again,
so that the page is dirty whenever it is read. At SIGUSR2 it grows once more, which changes no time
if the kernel has not written the page back meanwhile, and then it rests.
"""


class Mapped:
    """A container that runs the program on a volume."""

    def __init__(self, site: Site, scope: docker.Scope, folder: Path) -> None:
        self.site = site
        self.scope = scope
        self.control = folder
        self.container = ""

    @property
    def number(self) -> int:
        """What it has written last."""
        said = self.control / "said"
        wait_until(said.exists, "it has written")
        return int(said.read_bytes())

    def start(self, mode: str) -> None:
        """Start it in this mode; one that runs is recreated, its volume kept."""
        before = 0
        if self.container:
            before = self.number
            docker.call("rm", "--force", self.container)
        labels = {
            "kopi.enable": "true",
            "kopi.unit": "mapped",
            "kopi.instance": self.site.instance,
            "kopi.mode": mode,
        }
        self.container = self.scope.run(
            "mapped",
            script=f"exec python3 -c '{PROGRAM}'",
            labels=labels,
            volumes=["data:/data", f"{self.control}:/control"],
            options=("--entrypoint", ""),
        )
        wait_until(lambda: self.number > before, "it has started")

    def write(self, number: str = "USR1") -> None:
        """Let it write another number."""
        before = self.number
        docker.call("kill", "--signal", number, self.container)
        wait_until(lambda: self.number > before, "it has written")

    def write_after_freeze(self) -> None:
        """Wait for the end of a freeze, and write at once."""
        wanted = ("--filter", f"container={self.container}", "--filter", "event=unpause")
        events = subprocess.Popen(["docker", "events", *wanted], stdout=subprocess.PIPE)
        assert events.stdout is not None
        with events:
            try:
                assert events.stdout.readline(), "Docker tells of no thaw"
                self.write("USR2")
            finally:
                events.kill()

    def stores_what_it_held(self, target: Path, *, frozen: bool = False) -> None:
        """Back it up, restore that, and compare with what was written before and after."""
        before = self.number
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self.write_after_freeze) if frozen else None
            (run,) = self.site.json("backup", "mapped")["runs"]
            if writing is not None:
                writing.result()
        assert (run["verdict"], run["message"]) == ("success", "")
        self.site.ok("restore", "mapped", "--at", run["run"], "--to", str(target))
        page = target / "volumes" / self.scope.full("data") / "page"
        assert before <= int(page.read_bytes()[:8]) <= self.number


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
