"""A kopiwatch of its own for a test: the installed command, its folders, its settings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from support import docker, tree
from support.kopia import find_kopia

PASSWORD = "correct-horse-battery-staple"
COMMAND = Path(sys.executable).parent / "kopiwatch"
IDLE = "trap 'exit 0' TERM; while :; do sleep 0.05; done"
SLOW = "trap 'sleep 4; exit 0' TERM; while :; do sleep 0.05; done"
WRITER = "trap 'exit 0' TERM; while :; do date +%s%N >> /data/log; sleep 0.05; done"


@dataclass
class Site:
    """One kopiwatch: its state, cache and repository in a folder of their own."""

    folder: Path
    access: str
    instance: str
    extra: dict[str, str] = field(default_factory=dict)
    without: set[str] = field(default_factory=set)

    @property
    def state(self) -> Path:
        return self.folder / "state"

    @property
    def repository(self) -> Path:
        return self.folder / "repository"

    @property
    def environment(self) -> dict[str, str]:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "DOCKER_HOST": docker.URL,
            "KOPIWATCH_STATE_DIR": str(self.state),
            "KOPIWATCH_CACHE_DIR": str(self.folder / "cache"),
            "KOPIWATCH_REPOSITORY": f"filesystem:{self.repository}",
            "KOPIWATCH_PASSWORD": PASSWORD,
            "KOPIWATCH_HOSTNAME": "testhost",
            "KOPIWATCH_INSTANCE": self.instance,
            "KOPIWATCH_KOPIA": find_kopia(),
            "KOPIWATCH_ACCESS": self.access,
        }
        if self.access == "worker":
            environment["KOPIWATCH_WORKER_IMAGE"] = worker_image()
        environment |= self.extra
        return {name: value for name, value in environment.items() if name not in self.without}

    def workers(self) -> list[str]:
        """Worker containers of this site, running or not."""
        uuid = json.loads((self.state / "state.json").read_text())["uuid"]
        return docker.call("ps", "--all", "--quiet", "--filter", f"label=kopi.state={uuid}").split()

    def run(self, *args: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        """Run the command to its end; stdout and stderr as text."""
        return subprocess.run(
            [COMMAND, *args],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def ok(self, *args: str, timeout: float = 120) -> str:
        """Run the command, which must exit 0; its stdout."""
        done = self.run(*args, timeout=timeout)
        assert done.returncode == 0, f"{args}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def json(self, *args: str) -> Any:
        """Run the command with --json, which must exit 0; the document."""
        return json.loads(self.ok(*args, "--json"))

    def json_any(self, *args: str, timeout: float = 200) -> Any:
        """Run the command with --json, whatever its exit code; the document."""
        done = self.run(*args, "--json", timeout=timeout)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        """Start the command and do not wait for it."""
        return subprocess.Popen(
            [COMMAND, *args],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def kopia(self, *args: str) -> str:
        """Ask Kopia itself, through our connection."""
        config = self.state / "kopia" / "repository.config"
        return subprocess.run(
            [find_kopia(), f"--config-file={config}", "--no-auto-maintenance", *args],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder), "KOPIA_PASSWORD": PASSWORD},
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        ).stdout


def worker_image() -> str:
    """The kopiwatch image that scripts/test built."""
    reference = os.environ.get("KOPIWATCH_TEST_WORKER_IMAGE", "")
    if not reference:
        pytest.fail("KOPIWATCH_TEST_WORKER_IMAGE names no image; scripts/test builds one")
    return reference


def wait_until(fact: Callable[[], bool], what: str, seconds: float = 20) -> None:
    """Poll for a fact of the outside world; fail with its name when it does not come true."""
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)


def make_site(folder: Path, access: str, scope: docker.Scope) -> Site:
    """A site with a fresh repository. Its instance is the scope's name: other tests' containers on
    the same Docker are not its members.
    """
    site = Site(folder, access, scope.name)
    site.repository.mkdir(parents=True)
    site.ok("repo", "create")
    return site


def mountpoint(volume: str) -> Path:
    return Path(docker.inspect(volume)["Mountpoint"])


def make_stack(site, scope, *, db: str = WRITER, patience: int = 0) -> dict[str, str]:
    """web depends on db; each has a volume; both are labelled.

    ``db`` is its script, ``patience`` the seconds that Docker waits for its end.
    """
    labels = {"kopi.enable": "true", "kopi.unit": "shop", "kopi.instance": site.instance}
    stack = scope.stack(
        {
            "db": {
                "script": db,
                "volumes": ["data:/data"],
                "labels": labels,
                "options": ("--stop-timeout", str(patience)),
            },
            "web": {
                "script": WRITER,
                "volumes": ["files:/data"],
                "labels": labels,
                "depends_on": "db:service_started:false",
            },
        }
    )
    tree.make_odd(mountpoint(scope.full("files")))
    return stack
