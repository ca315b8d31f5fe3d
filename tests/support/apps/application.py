"""What the tests know of an application: how it starts, how it is loaded, how it is proven."""

from __future__ import annotations

import os
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar

import pytest

from support import docker
from support.site import wait_until

FOLDER = "/data"
"""Where an application has its only volume."""
SAID = "/said"
"""Where the load tells what was acknowledged: a folder of the test, no part of the unit's data."""
PASSWORD = "pw-of-the-database"


def apps_image() -> str:
    """The image that scripts/test made."""
    reference = os.environ.get("KOPIWATCH_TEST_APPS_IMAGE", "")
    if not reference:
        pytest.fail("KOPIWATCH_TEST_APPS_IMAGE names no image; scripts/test makes one")
    return reference


class Application(ABC):
    """One application. Its load writes the numbers 1, 2, 3, … in lock step into two places.

    ``server`` is the shell script of its container; it makes its data first where there is none.
    ``ready`` is a command in it that succeeds as soon as it answers. ``client`` is a shell script
    that defines ``put N``, which returns 0 once the number N is acknowledged, and ``fill`` and
    ``background``, which make more data and more load; empty where the application writes by
    itself. ``dump`` holds the labels that make kopiwatch dump it, and ``feed`` is the command in a
    container that takes such a dump on its standard input.
    """

    name: ClassVar[str]
    server: ClassVar[str]
    ready: ClassVar[str]
    client: ClassVar[str] = ""
    dump: ClassVar[Mapping[str, str]] = MappingProxyType({})
    feed: ClassVar[str] = ""
    options: ClassVar[Sequence[str]] = ()
    environment: ClassVar[Mapping[str, str]] = MappingProxyType({})

    def start(
        self,
        scope: docker.Scope,
        name: str,
        *,
        data: str,
        network: str = "none",
        labels: Mapping[str, str] | None = None,
        volumes: Sequence[str] = (),
        options: Sequence[str] = (),
    ) -> str:
        """Start it on a volume or a folder, and wait until it answers. Returns the container."""
        container = scope.run(
            name,
            script=self.server,
            volumes=[f"{data}:{FOLDER}", *volumes],
            network=network,
            labels=labels,
            options=(
                *("--stop-timeout", "60"),
                *(f"--env={key}={value}" for key, value in self.environment.items()),
                *self.options,
                *options,
            ),
        )
        self.wait_ready(container)
        return container

    def wait_ready(self, container: str) -> None:
        """Poll until it answers; its log is told when it never does."""

        def answers() -> bool:
            if docker.state(container) != "running":
                raise AssertionError(f"{self.name} has ended:\n{log_of(container)}")
            return succeeds(container, self.ready)

        try:
            wait_until(answers, f"{self.name} answers", 60)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{log_of(container)}") from None

    def prove_files(self, scope: docker.Scope, folder: Path) -> None:
        """Check restored files before the application is started on them, where it has a tool."""
        return

    def start_from_dump(self, scope: docker.Scope, name: str, dump: Path, folder: Path) -> str:
        """Start it on an empty folder, and feed it a dump. Returns the container."""
        container = self.start(scope, name, data=str(folder))
        feed(container, self.feed, dump)
        return container

    @abstractmethod
    def prove(self, container: str) -> None:
        """Run the application's own check, and check what its load keeps true. Raises."""

    @abstractmethod
    def numbers(self, container: str) -> tuple[list[int], list[int]]:
        """What the two places hold, in order."""


def execute(container: str, command: str, *, timeout: float = 120) -> str:
    """Run a shell command in a container; what it printed. Raises RuntimeError with its words."""
    return docker.call("exec", container, "/bin/sh", "-ec", command, timeout=timeout)


def execute_check(container: str, command: str) -> str:
    """The same for a program that tells on its standard output, too, what it finds wrong."""
    return execute(
        container, f'said=$({command} 2>&1) || {{ echo "$said" >&2; exit 1; }}; echo "$said"'
    )


def succeeds(container: str, command: str) -> bool:
    """Whether a shell command in a container exits 0."""
    try:
        execute(container, f"{{ {command}; }} >/dev/null 2>&1")
    except RuntimeError:
        return False
    return True


def feed(container: str, command: str, file: Path) -> None:
    """Run a shell command in a container with a file as its standard input. Raises RuntimeError."""
    docker.call(
        *("exec", "--interactive", container, "/bin/sh", "-ec", command),
        data=file.read_bytes(),
        timeout=120,
    )


def log_of(container: str) -> str:
    """The end of what a container said, on both its outputs."""
    done = subprocess.run(
        ["docker", "--host", docker.URL, "logs", "--tail", "30", container],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=30,
        check=False,
    )
    return done.stdout


def whole_numbers(text: str) -> list[int]:
    """One number a line."""
    return [int(line) for line in text.split()]
