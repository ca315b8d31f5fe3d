"""The stacks that are measured: containers with a health check, and data that changes a little."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from support import docker
from support.site import Site, mountpoint, wait_until

READY = """\
trap 'exit 0' TERM; rm -f /tmp/ready; sleep 0.2; touch /tmp/ready; while :; do sleep 0.05; done
"""
"""An application that is ready 0.2 s after its start and ends at once when told to."""

HEALTH = ("--health-cmd", "test -f /tmp/ready", "--health-interval", "1s")
BLOCK_BYTES = 64 * 1024
FOLDER_FILES = 200


@dataclass(frozen=True)
class Shape:
    """How much data: files of all volumes together, their MiB, and MiB of one large file each."""

    volumes: int
    files: int
    mib: int
    large_mib: int

    def __str__(self) -> str:
        whole = self.mib + self.volumes * self.large_mib
        return f"{self.volumes} volume(s), {self.files + self.volumes} files, {whole} MiB in all"


SHAPES = {
    "small": Shape(volumes=1, files=150, mib=12, large_mib=8),
    "large": Shape(volumes=4, files=20_000, mib=300, large_mib=100),
    "units": Shape(volumes=10, files=500, mib=10, large_mib=1),
}


@dataclass(frozen=True)
class Stack:
    """What was built: units by name, each with its containers (ids) in levels of stopping."""

    shape: Shape
    units: dict[str, list[list[str]]]
    places: list[Path]

    def wait(self) -> None:
        """Return when Docker says of all that they are healthy; a run asks it, too."""
        ids = [each for levels in self.units.values() for level in levels for each in level]
        shown = ("inspect", "--format", "{{.State.Health.Status}}", *ids)
        wait_until(lambda: set(docker.call(*shown).split()) == {"healthy"}, "all are healthy", 60)

    def change(self) -> None:
        """Rewrite 1 % of the small files, and 1 % of the blocks of each large one."""
        for place in self.places:
            small = sorted(place.glob("*/*"))
            for file in random.sample(small, max(1, len(small) // 100)):
                file.write_bytes(os.urandom(file.stat().st_size))
            large = place / "large"
            blocks = large.stat().st_size // BLOCK_BYTES
            with large.open("r+b") as handle:
                for block in random.sample(range(blocks), max(1, blocks // 100)):
                    handle.seek(block * BLOCK_BYTES)
                    handle.write(os.urandom(BLOCK_BYTES))


def build(
    name: str, shape: Shape, scope: docker.Scope, site: Site, labels: dict[str, str]
) -> Stack:
    """The stack of this name with its data."""
    labels = {"kopi.enable": "true", "kopi.instance": site.instance, **labels}
    if name == "large":
        units = {"large": _three(scope, labels)}
    else:
        units = dict(_singles(name, shape, scope, labels))
    places = [mountpoint(scope.full(f"v{number}")) for number in range(shape.volumes)]
    for place in places:
        _fill(place, shape.files // shape.volumes, shape.mib << 20, shape)
    return Stack(shape, units, places)


def _singles(
    name: str, shape: Shape, scope: docker.Scope, labels: dict[str, str]
) -> Iterator[tuple[str, list[list[str]]]]:
    """A unit of one container for each volume."""
    for number in range(shape.volumes):
        unit = f"{name}{number}"
        own = labels | {"kopi.unit": unit}
        volumes = [f"v{number}:/data"]
        container = scope.run(unit, script=READY, volumes=volumes, labels=own, options=HEALTH)
        yield unit, [[container]]


def _three(scope: docker.Scope, labels: dict[str, str]) -> list[list[str]]:
    """A database and two that want it healthy; four volumes."""
    labels = labels | {"kopi.unit": "large"}
    common = {"script": READY, "labels": labels, "options": HEALTH}
    waits = {"depends_on": "db:service_healthy:false"}
    stack = scope.stack(
        {
            "db": {**common, "volumes": ["v0:/a", "v1:/b"]},
            "app": {**common, **waits, "volumes": ["v2:/c"]},
            "web": {**common, **waits, "volumes": ["v3:/d"]},
        },
        project="bench",
    )
    return [[stack["app"], stack["web"]], [stack["db"]]]


def _fill(place: Path, files: int, whole: int, shape: Shape) -> None:
    size = whole // shape.files
    for number in range(files):
        folder = place / f"{number // FOLDER_FILES:04d}"
        folder.mkdir(exist_ok=True)
        (folder / f"{number:06d}").write_bytes(os.urandom(size))
    with (place / "large").open("wb") as file:
        for _ in range(shape.large_mib):
            file.write(os.urandom(1 << 20))
