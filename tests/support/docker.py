"""A real Docker for tests, through its command line: nothing here knows kopiwatch.

Each test works in a :class:`Scope`: whatever it makes carries the scope's label and its prefix,
and is gone when the scope ends. Nothing else on the daemon is touched.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

URL = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
LABEL = "kopiwatch-test.scope"


class DockerMissing(RuntimeError):
    """These tests need a Docker daemon, and none answers."""


def call(*args: str, data: bytes | None = None, timeout: float = 60) -> str:
    """Run ``docker …`` and return what it printed, stripped. Raises RuntimeError with its words."""
    result = subprocess.run(
        ["docker", *args],
        input=data,
        stdin=subprocess.DEVNULL if data is None else None,
        capture_output=True,
        env={**os.environ, "DOCKER_HOST": URL, "DOCKER_CONTEXT": ""},
        timeout=timeout,
        check=False,
    )
    if result.returncode != 0:
        words = result.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"docker {' '.join(args[:3])} …: {words}")
    return result.stdout.decode(errors="replace").strip()


def require() -> None:
    """Raise DockerMissing, with what to do about it, unless Docker answers."""
    todo = "start a Docker daemon, or name one with DOCKER_HOST (scripts/test does this by itself)"
    if shutil.which("docker") is None:
        raise DockerMissing(f"no docker command on PATH; install docker.io, then {todo}")
    try:
        call("version", "--format", "{{.Server.APIVersion}}", timeout=20)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        raise DockerMissing(f"no Docker answers at {URL}: {error}; {todo}") from error


class Scope:
    """Containers, volumes and networks of one test. ``name`` is a unique prefix for all of them."""

    def __init__(self, image: str) -> None:
        self.name = f"kwtest-{uuid.uuid4().hex[:10]}"
        self.image = image

    @property
    def label(self) -> str:
        """``key=value``, carried by everything in this scope."""
        return f"{LABEL}={self.name}"

    def full(self, name: str) -> str:
        """A short name with the prefix of this scope, once."""
        return name if name.startswith(self.name) else f"{self.name}-{name}"

    def run(
        self,
        name: str = "",
        *,
        script: str = "exec sleep 600",
        labels: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
        network: str = "none",
        options: Sequence[str] = (),
        start: bool = True,
    ) -> str:
        """Create (and start) a container that runs a shell script as PID 1. Returns its id.

        ``volumes`` are ``--volume`` values; a named volume in them is prefixed and made first.
        The script gets no SIGTERM handling for free: ``sleep`` as PID 1 ignores it, so ``options``
        holds ``--stop-timeout 0`` by default, that is: killed at once.
        """
        args = ["create", "--label", self.label, "--network", network, "--stop-timeout", "0"]
        args += ["--name", self.full(name or uuid.uuid4().hex[:8])]
        for key, value in (labels or {}).items():
            args += ["--label", f"{key}={value}"]
        for volume in volumes:
            source, _, rest = volume.partition(":")
            if rest and not source.startswith("/"):
                volume = f"{self.volume(source)}:{rest}"  # noqa: PLW2901 - the same, prefixed
            args += ["--volume", volume]
        container = call(*args, *options, self.image, "/bin/sh", "-c", script)
        if start:
            call("start", container)
        return container

    def volume(self, name: str, *options: str) -> str:
        """Create a volume unless it is there. Returns its full name."""
        return call("volume", "create", "--label", self.label, *options, self.full(name))

    def network(self, name: str, *options: str) -> str:
        """Create a network. Returns its full name."""
        call("network", "create", "--label", self.label, *options, self.full(name))
        return self.full(name)

    def stack(
        self, services: Mapping[str, Mapping[str, Any]], project: str = "shop"
    ) -> dict[str, str]:
        """Run one container per service with Compose's own labels, in the order given.

        Each value holds the keyword arguments of :meth:`run`, and ``depends_on`` as Compose writes
        it into the label (``db:service_healthy:false``). Returns the id by service.
        """
        made: dict[str, str] = {}
        for service, given in services.items():
            keywords = dict(given)
            labels = {
                "com.docker.compose.project": self.full(project),
                "com.docker.compose.service": service,
                "com.docker.compose.container-number": "1",
                "com.docker.compose.oneoff": "False",
                "com.docker.compose.depends_on": keywords.pop("depends_on", ""),
                **keywords.pop("labels", {}),
            }
            made[service] = self.run(f"{project}-{service}-1", labels=labels, **keywords)
        return made

    def remaining(self) -> list[str]:
        """Ids or names of what carries this scope's label now."""
        flag = ("--filter", f"label={self.label}")
        found: list[str] = []
        for listing in (
            ("ps", "--all", "--quiet", "--no-trunc"),
            ("volume", "ls", "--quiet"),
            ("network", "ls", "--quiet"),
        ):
            found += call(*listing, *flag).split()
        return found

    def end(self) -> None:
        """Remove all of it, with the anonymous volumes of its containers."""
        flag = ("--filter", f"label={self.label}")
        for listing, remove in (
            (("ps", "--all", "--quiet"), ("rm", "--force", "--volumes")),
            (("volume", "ls", "--quiet"), ("volume", "rm", "--force")),
            (("network", "ls", "--quiet"), ("network", "rm")),
        ):
            found = call(*listing, *flag).split()
            if found:
                call(*remove, *found)


@contextmanager
def scope(image: str) -> Iterator[Scope]:
    """A :class:`Scope` that is gone at the end, whatever happened inside."""
    made = Scope(image)
    try:
        yield made
    finally:
        made.end()


def inspect(container: str) -> dict[str, Any]:
    """The raw answer of ``docker inspect`` for one thing."""
    answer: list[dict[str, Any]] = json.loads(call("inspect", container))
    return answer[0]


def state(container: str) -> str:
    """``running``, ``exited``, ``paused`` and so on; ``gone`` when there is no such container."""
    try:
        return str(inspect(container)["State"]["Status"])
    except RuntimeError as error:
        if "no such object" in str(error).lower():
            return "gone"
        raise
