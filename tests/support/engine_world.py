"""One small host to try an engine on, in memory and on the real Docker, with the same words."""

from __future__ import annotations

import subprocess
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from kopiwatch.engine.port import Engine, ExecResult, Healthcheck, WorkerSpec
from kopiwatch.testing.engine import FakeEngine, FakeWorker, Streamed, volume_mount
from kopiwatch.units.container import STATE_LABEL, WORKER_LABEL, Mount
from support import docker

ECHO = "echo hello; while read -r line; do case $line in quit) exit 3;; *) echo $line;; esac; done"
"""A worker that says hello, repeats each line, and leaves at ``quit`` or at the end of input."""


class World(Protocol):
    """What the contract suite does to a host from the outside."""

    engine: Engine
    name: str

    def run(
        self,
        name: str,
        *,
        start: bool = True,
        volume: str = "",
        anonymous: str = "",
        bind: str = "",
        labels: Mapping[str, str] | None = None,
        check: str = "",
    ) -> str:
        """Make a container. Returns its id. ``check`` is the shell command of a health check."""

    def full(self, name: str) -> str:
        """The name that the host knows."""

    def state(self, container: str) -> str:
        """Its state now, or ``gone``."""

    def remove(self, container: str) -> None:
        """Somebody else removes it."""

    def has_volume(self, name: str) -> bool:
        """Whether there is one."""

    def left(self) -> int:
        """How many containers, volumes and networks of this world there are."""

    def spec(self, **changes: object) -> WorkerSpec:
        """A worker that runs :data:`ECHO`."""


def worker_spec(world: World, image: str, changes: dict[str, object]) -> WorkerSpec:
    """The worker of both worlds."""
    given: dict[str, object] = {
        "name": world.full(f"worker-{uuid.uuid4().hex[:6]}"),
        "image": image,
        "entrypoint": ("/bin/sh", "-c", ECHO),
        "labels": {
            WORKER_LABEL: "run",
            STATE_LABEL: world.name,
            docker.LABEL: world.name,
        },
        "mounts": (),
        "network": "none",
    }
    return WorkerSpec(**(given | changes))  # type: ignore[arg-type]


class FakeWorld:
    """In memory. Commands run in this machine's own shell, which is as good as a container's."""

    def __init__(self) -> None:
        self.name = f"fake-{uuid.uuid4().hex[:8]}"
        self.engine = FakeEngine(script=self._echo)
        self.engine.missing_paths.add("/nowhere/at/all")
        self._before = len(self.engine.volumes)

    def run(
        self,
        name: str,
        *,
        start: bool = True,
        volume: str = "",
        anonymous: str = "",
        bind: str = "",
        labels: Mapping[str, str] | None = None,
        check: str = "",
    ) -> str:
        mounts = []
        if volume:
            mounts.append(volume_mount(self.full(volume), "/data"))
        if anonymous:
            mounts.append(Mount("volume", anonymous, volume=uuid.uuid4().hex + uuid.uuid4().hex))
        if bind:
            mounts.append(Mount("bind", "/bind", source=bind, writable=False))
        return self.engine.add_container(
            self.full(name),
            labels=labels,
            state="running" if start else "created",
            mounts=tuple(mounts),
            healthcheck=Healthcheck(("/bin/sh", "-c", check)) if check else None,
            on_exec=_run_here,
            on_stream=_stream_here,
        )

    def full(self, name: str) -> str:
        return f"{self.name}-{name}"

    def state(self, container: str) -> str:
        return self.engine.state(container)

    def remove(self, container: str) -> None:
        self.engine.remove(container)

    def has_volume(self, name: str) -> bool:
        return name in self.engine.volumes

    def left(self) -> int:
        return len(self.engine.all) + len(self.engine.volumes)

    def spec(self, **changes: object) -> WorkerSpec:
        return worker_spec(self, "kopiwatch:test", changes)

    @staticmethod
    def _echo(worker: FakeWorker, line: bytes | None) -> None:
        """What :data:`ECHO` does."""
        if line is None:
            worker.say(b"hello")
        elif line == b"quit":
            worker.end()
        else:
            worker.say(line)


def _run_here(argv: tuple[str, ...], user: str) -> ExecResult | None:
    if argv[0] == "sleep":
        return None
    try:
        done = subprocess.run(
            argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=5, check=False
        )
    except FileNotFoundError as error:
        return ExecResult(126, str(error))
    return ExecResult(done.returncode, done.stdout.decode()[-8192:])


def _stream_here(argv: tuple[str, ...], user: str, stdin: bytes) -> Streamed:
    if argv[0] == "sleep":
        return Streamed(exit_code=None)
    try:
        done = subprocess.run(argv, input=stdin, capture_output=True, timeout=5, check=False)
    except FileNotFoundError as error:
        return Streamed(err=str(error).encode(), exit_code=126)
    return Streamed((done.stdout,), done.stderr, done.returncode)


class DockerWorld:
    """The real daemon, in a scope of its own."""

    def __init__(self, engine: Engine, scope: docker.Scope) -> None:
        self.engine = engine
        self.scope = scope
        self.name = scope.name

    def run(
        self,
        name: str,
        *,
        start: bool = True,
        volume: str = "",
        anonymous: str = "",
        bind: str = "",
        labels: Mapping[str, str] | None = None,
        check: str = "",
    ) -> str:
        options = []
        if anonymous:
            options += ["--volume", anonymous]
        if bind:
            options += ["--volume", f"{bind}:/bind:ro"]
        if check:
            options += ["--health-cmd", check, "--health-interval", "1h"]
        return self.scope.run(
            name,
            start=start,
            volumes=[f"{volume}:/data"] if volume else [],
            labels=labels,
            options=options,
        )

    def full(self, name: str) -> str:
        return self.scope.full(name)

    def state(self, container: str) -> str:
        return docker.state(container)

    def remove(self, container: str) -> None:
        docker.call("rm", "--force", "--volumes", container)

    def has_volume(self, name: str) -> bool:
        return name in docker.call("volume", "ls", "--quiet").split()

    def left(self) -> int:
        return len(self.scope.remaining())

    def spec(self, **changes: object) -> WorkerSpec:
        return worker_spec(self, self.scope.image, changes)


def missing_host_path() -> str:
    """A path that no host has."""
    assert not Path("/nowhere/at/all").exists()
    return "/nowhere/at/all"
