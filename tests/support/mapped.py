"""A program that changes a file without moving its time, in a container, and its backups."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from support import docker
from support.filesystem import mounted
from support.site import Site, make_site, wait_until

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
        self.volume = "data:/data"
        self.labels: dict[str, str] = {}
        self.strategy = ""

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
            **self.labels,
        }
        self.container = self.scope.run(
            "mapped",
            script=f"exec python3 -c '{PROGRAM}'",
            labels=labels,
            volumes=[self.volume, f"{self.control}:/control"],
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
        """Back it up, have Kopia restore that, and compare with what was written about then."""
        before = self.number
        with ThreadPoolExecutor(1) as pool:
            writing = pool.submit(self.write_after_freeze) if frozen else None
            (run,) = self.site.json("backup", "mapped")["runs"]
            if writing is not None:
                writing.result()
        assert (run["verdict"], run["message"]) == ("success", "")
        self.site.kopia("snapshot", "restore", run["snapshot"], str(target))
        (page,) = target.glob("*/*/page")
        assert before <= int(page.read_bytes()[:8]) <= self.number
        self.strategy = run["strategy"]


KINDS = ("ext4", "xfs", "btrfs", "tmpfs")
CLONES = ("xfs", "btrfs")


def cells() -> Iterator[tuple[str, str, str]]:
    """File system, strategy and modes (``stop``, ``pause``, ``live-stop``) that go together."""
    for kind in KINDS:
        for strategy in ("gate", "hot", "clone", "copy"):
            if strategy != "clone" or kind in CLONES:
                for modes in ("stop", "pause", "live-stop"):
                    yield kind, strategy, modes


@contextmanager
def mapped_on(kind: str, strategy: str, folder: Path, scope: docker.Scope) -> Iterator[Mapped]:
    """The program on a bind mount of a file system of its own, where a stage has its place, too.

    Clones are made through bind mounts of a worker container, too; the rest is quicker without.
    """
    access = "worker" if strategy == "clone" else "namespace"
    with mounted(kind, folder / "fs") as place:
        site = make_site(folder / "site", access, scope)
        (folder / "control").mkdir()
        for name in ("data", "stage"):
            (place / name).mkdir()
        site.extra["KOPIWATCH_STAGE_PATHS"] = str(place / "stage")
        made = Mapped(site, scope, folder / "control")
        made.volume = f"{place}/data:/data"
        made.labels = {"kopi.strategy": strategy, "kopi.binds": "/data", "kopi.collapse": "off"}
        yield made
        assert not site.workers(), "workers were left behind"
        scope.end()


def try_cell(mapped: Mapped, strategy: str, modes: str, folder: Path, turns: int) -> None:
    """Back up again and again while it writes; AssertionError where something stale is stored."""
    first, _, then = modes.partition("-")
    mapped.start(first)
    mapped.stores_what_it_held(folder / "before", frozen=first == "pause")
    if then:
        mapped.write()
        mapped.start(then)
    for turn in range(turns):
        mapped.stores_what_it_held(folder / f"turn-{turn}", frozen=modes == "pause")
        assert mapped.strategy == strategy
