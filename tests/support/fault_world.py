"""A kopiwatch whose Docker and Kopia fail as a test says, and what must be true after each fault.

Namespace access: a Kopia of the tests would have to be in the image of a worker.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support import docker, image
from support.docker_proxy import DockerProxy, docker_proxy
from support.fake_kopia import FakeKopia
from support.kopia import find_kopia
from support.site import IDLE, Site, make_site, mountpoint, wait_until

BACK_SECONDS = 60
MODES = {"shop": "stop", "frozen": "pause"}
TWO_POINTS = {
    f"kopi.retention.{name}": "2" if name == "latest" else "0"
    for name in ("latest", "hourly", "daily", "weekly", "monthly", "annual")
}
RULES = {"thin": TWO_POINTS}
"""Units whose retention lets something go after each success."""


@dataclass
class Photo:
    """What was true before a fault. ``states`` by container; ``good`` are the complete points."""

    unit: str
    states: dict[str, str]
    good: list[str]


class FaultWorld:
    """One site with the units ``shop`` (stopped for the read) and ``frozen`` (paused for it).

    Each has ``db``, ``web`` that depends on it, and ``idle``, which was stopped long ago.
    """

    run: subprocess.Popen[str] | None = None

    def __init__(self, site: Site, scope: docker.Scope, proxy: DockerProxy) -> None:
        self.site = site
        self.scope = scope
        self.proxy = proxy
        self.kopia = FakeKopia(site.folder / "fake", find_kopia())
        self.members: dict[str, dict[str, str]] = {}
        self.content: dict[str, str] = {}
        self.marker = "content"
        site.extra |= {"DOCKER_HOST": proxy.url, "KOPIWATCH_KOPIA": str(self.kopia.program)}

    def labels(self, unit: str) -> dict[str, str]:
        """Of a member of this site."""
        named = {"kopi.enable": "true", "kopi.unit": unit, "kopi.instance": self.site.instance}
        # Kopia is held in its only call, which is to be in the window.
        named |= {"kopi.mode": MODES.get(unit, "stop"), "kopi.strategy": "gate"}
        return named | RULES.get(unit, {})

    def stack(self, unit: str, *, options: Sequence[str] = ()) -> None:
        """The three members of a unit; ``options`` are for ``docker create``."""
        given = {"script": IDLE, "labels": self.labels(unit), "options": options}
        self.members[unit] = self.scope.stack(
            {
                "db": {**given, "volumes": [f"{unit}-db:/data"]},
                "web": {
                    **given,
                    "volumes": [f"{unit}-web:/data"],
                    "depends_on": "db:service_started:false",
                },
                "idle": {**given, "volumes": [f"{unit}-idle:/data"]},
            },
            project=unit,
        )
        docker.call("stop", self.members[unit]["idle"])
        self.back_up(unit)

    def volume(self, unit: str, service: str = "db") -> Path:
        """Where a member's volume lies on this host."""
        return mountpoint(self.volume_name(unit, service))

    def volume_name(self, unit: str, service: str = "db") -> str:
        """Docker's name of a member's volume."""
        return self.scope.full(f"{unit}-{service}")

    def back_up(self, unit: str) -> None:
        """A run that must be a success."""
        process = self.start(unit)
        out, errors = process.communicate(timeout=BACK_SECONDS)
        assert process.returncode == 0, out + errors
        (run,) = json.loads(out)["runs"]
        self.content[run["run"]] = self.marker

    def photo(self, unit: str) -> Photo:
        """What is true now, before a fault."""
        return Photo(unit, self.states(unit), self.good(unit))

    def states(self, unit: str) -> dict[str, str]:
        """State by service."""
        return {name: docker.state(each) for name, each in self.members[unit].items()}

    def good(self, unit: str) -> list[str]:
        """The runs that count as restore points, the oldest first."""
        found = self.site.json("points", unit)["points"]
        return [point["run"] for point in found if point["state"] == "complete"]

    def start(self, unit: str) -> subprocess.Popen[str]:
        """A backup of content that no run before has seen."""
        self.marker = f"{self.marker}."
        (self.volume(unit) / "kept").write_text(self.marker)
        self.run = self.site.start("backup", unit, "--json")
        return self.run

    def rest(self) -> None:
        """After a test: no more faults, and no run that it left behind."""
        self.mend()
        if self.run is not None and self.run.poll() is None:
            self.run.kill()
            self.run.communicate()

    def mend(self) -> None:
        """No more faults."""
        self.proxy.clear()
        self.kopia.clear()

    # -- after a fault -------------------------------------------------------------------------

    def aftermath(self, before: Photo, *verdicts: str, stored: bool = False) -> dict[str, Any]:
        """All that must be true after every fault, from now on that kopiwatch is alive.

        That is a restore of the last good point of before, which settles whatever is owed first.
        The run that met the fault must be on record with one of ``verdicts``; it is a restore
        point only if that is a success, or ``stored``. Returns it, as the history has it.
        """
        self.mend()
        unit, last = before.unit, before.good[-1]
        target = self.site.folder / "out"
        shutil.rmtree(target, ignore_errors=True)
        command = self.site.start("restore", unit, "--at", last, "--to", str(target))
        try:
            wait_until(
                lambda: self.states(unit) == before.states,
                f"{before.states} again",
                BACK_SECONDS,
            )
        finally:
            out, errors = command.communicate(timeout=BACK_SECONDS)
        assert command.returncode == 0, out + errors
        volume = target / "volumes" / self.volume_name(unit)
        assert (volume / "kept").read_text() == self.content[last]
        run = self.last_run(unit)
        new = [each for each in self.good(unit) if each not in before.good]
        self.content |= dict.fromkeys(new, self.marker)
        assert run["verdict"] in verdicts, run
        counts = run["verdict"] == "success" or stored
        assert new == ([run["run"]] if counts else [])
        self.nothing_is_left()
        assert self.states(unit) == before.states
        return run

    def nothing_is_left(self) -> None:
        """No journal, no worker, no lock that somebody holds."""
        journals = {path.name for path in (self.site.state / "journal").iterdir()}
        assert journals <= {"reserve"}
        wait_until(lambda: self.workers() == [], f"{self.workers()} are gone")
        assert self.site.workers() == []
        for name in ("run.lock", "kopia.lock"):
            with (self.site.state / "locks" / name).open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def workers(self) -> list[tuple[int, str]]:
        """Worker processes of this site and what they started: id and command line."""
        uuid = json.loads((self.site.state / "state.json").read_text())["uuid"]
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                environment = (process / "environ").read_bytes()
                words = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if f"KOPIWATCH_WORKER_STATE={uuid}".encode() in environment:
                found.append((int(process.name), words))
        return found

    def strike_worker(self, number: signal.Signals) -> None:
        """A signal for the worker itself, and for nothing that it started."""
        (worker,) = [pid for pid, _ in self.workers() if first_of_its_namespace(pid)]
        os.kill(worker, number)

    def last_run(self, unit: str) -> dict[str, Any]:
        """The newest run on record."""
        rows = [row for row in self.site.json("history")["runs"] if row["unit"] == unit]
        return rows[-1]


def first_of_its_namespace(pid: int) -> bool:
    """Whether a process is number 1 where it lives, as a worker is, and not what it forked."""
    status = Path(f"/proc/{pid}/status").read_text()
    (numbers,) = [line.split()[1:] for line in status.splitlines() if line.startswith("NSpid:")]
    return len(numbers) > 1 and numbers[-1] == "1"


@contextmanager
def fault_world(folder: Path, *units: str) -> Iterator[FaultWorld]:
    """A world with these units, one good point of each; it leaves nothing."""
    with (
        tempfile.TemporaryDirectory(prefix="kw-faults-") as short,
        docker.scope(image.busybox()) as scope,
        docker_proxy(Path(short) / "docker.sock", docker.URL) as proxy,
    ):
        world = FaultWorld(make_site(folder, "namespace", scope), scope, proxy)
        for unit in units:
            world.stack(unit)
        yield world
        world.rest()
