"""Real Docker Compose with ``compose.example.yml``, as somebody uses it who copied it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import docker, image
from support.site import PASSWORD, worker_image

ROOT = Path(__file__).parents[2]
PROXY_IMAGE = "kopiwatch-test/haproxy:1"
PROXY_CHANGES = ("--change", "ENV PATH=/usr/local/sbin", "--change", "LABEL kopiwatch-test=image")
DATABASE = """
trap 'exit 0' TERM
mkdir -p -m 2770 "$D/shared"; chown 5:6 "$D/shared"; chmod 2770 "$D/shared"
echo row >"$D/table"; chown 999:998 "$D/table"; chmod 0600 "$D/table"
while :; do date +%s%N >>"$D/log"; sleep 0.05; done
""".replace("$D", "/var/lib/postgresql/data")
"""Stands in for PostgreSQL: writes all the time, and has owners and modes worth keeping."""


def program() -> str:
    """The Compose program that scripts/test found or built."""
    path = os.environ.get("KOPIWATCH_TEST_COMPOSE", "")
    if not path:
        pytest.fail("KOPIWATCH_TEST_COMPOSE names no program; scripts/test builds one")
    return path


class Project:
    """A folder with the example, its secrets and its repository; its name is the scope's.

    The images are local ones, the labels carry this scope's instance; else it is the example.
    """

    def __init__(self, scope: docker.Scope, folder: Path) -> None:
        self.name = scope.name
        self.folder = folder
        self.extra: dict[str, str] = {}
        self.socket = docker.URL.removeprefix("unix://")
        (folder / "secrets").mkdir(parents=True)
        (folder / "repository").mkdir()
        (folder / "restored").mkdir()
        shutil.copy(ROOT / "compose.example.yml", folder / "compose.yml")
        shutil.copytree(ROOT / "deploy", folder / "deploy")
        for name in ("db-password", "kopia-password", "grafana-password"):
            secret = folder / "secrets" / name
            secret.touch(mode=0o600)
            secret.write_text(PASSWORD + "\n")
        (folder / "substitutes.json").write_text(json.dumps(self._substitutes()))

    def _substitutes(self) -> dict[str, Any]:
        """Local images, quick probes, and an instance of its own: nobody else is touched."""
        local = {"pull_policy": "never", "environment": {"KOPIWATCH_INSTANCE": self.name}}
        labels = {"kopi.instance": self.name}
        probe = {"interval": "1s", "timeout": "10s"}
        check = {"test": ["CMD", "test", "-s", "/var/lib/postgresql/data/log"], **probe}
        db = {
            "image": image.busybox(),
            "pull_policy": "never",
            # Compose reads $ as the beginning of a variable, unless it stands twice.
            "command": ["/bin/sh", "-c", DATABASE.replace("$", "$$")],
            "healthcheck": check,
            "labels": labels,
        }
        proxy = {
            "image": PROXY_IMAGE,
            "pull_policy": "never",
            "volumes": [f"{self.socket}:/var/run/docker.sock"],
        }
        watch = {**local, "healthcheck": probe}
        return {"services": {"db": db, "kopiwatch": watch, "restore": local, "socket-proxy": proxy}}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DOCKER_HOST": docker.URL,
            "KOPIWATCH_IMAGE": worker_image(),
            "KOPIWATCH_SOCKET": self.socket,
            "KOPIWATCH_REPOSITORY_FOLDER": str(self.folder / "repository"),
            **self.extra,
        }

    def run(
        self, *args: str, timeout: float = 120, files: tuple[str, ...] = ("substitutes.json",)
    ) -> subprocess.CompletedProcess[str]:
        """``docker compose ARGS`` in the folder, to its end."""
        which = [part for file in ("compose.yml", *files) for part in ("--file", file)]
        return subprocess.run(
            [program(), *which, "--project-name", self.name, "--progress", "quiet", *args],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *args: str, timeout: float = 120) -> str:
        """The same, which must exit 0; its standard output."""
        done = self.run(*args, timeout=timeout)
        assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def container(self, service: str) -> str:
        """The id of a service's container, running or not."""
        return self.ok("ps", "--all", "--quiet", service).strip()

    def inspect(self, service: str) -> dict[str, Any]:
        return docker.inspect(self.container(service))

    def remaining(self) -> list[str]:
        """What Docker still has of this project, its volumes apart."""
        flag = ("--filter", f"label=com.docker.compose.project={self.name}")
        return [
            *docker.call("ps", "--all", "--quiet", *flag).split(),
            *docker.call("network", "ls", "--quiet", *flag).split(),
        ]

    def end(self) -> None:
        """Take all of it away, volumes, too."""
        self.run("--profile", "*", "down", "--volumes", "--timeout", "5", "--remove-orphans")


@contextmanager
def project(scope: docker.Scope, folder: Path) -> Iterator[Project]:
    """A :class:`Project` that is gone at the end, whatever happened inside."""
    made = Project(scope, folder)
    try:
        yield made
    finally:
        made.end()


def proxy_image() -> str:
    """An image of this machine's HAProxy, because none may be to be had from a registry.

    Built first if this Docker does not have it.
    """
    found = shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin")
    if found is None:
        pytest.fail("there is no haproxy here: apt-get install --no-install-recommends haproxy")
    with Path(tempfile.gettempdir(), "kopiwatch-test-haproxy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not docker.call("images", "--quiet", PROXY_IMAGE):
            docker.call("import", *PROXY_CHANGES, "-", PROXY_IMAGE, data=_proxy_root(found))
    return PROXY_IMAGE


def _proxy_root(found: str) -> bytes:
    """The program and its libraries as a tar."""
    needed = subprocess.run(["ldd", found], check=True, capture_output=True, text=True).stdout
    paths = [word for word in needed.split() if word.startswith("/")]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", dereference=True) as tar:
        for path in paths:
            tar.add(path, arcname=path.lstrip("/"))
        tar.add(found, arcname="usr/local/sbin/haproxy")
    return buffer.getvalue()
