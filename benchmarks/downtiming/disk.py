"""Where the volumes lie: on this machine's Docker, or on one of our own on a loop device.

A Docker of our own has its whole data folder on the device: that is how a host with such a disk
looks, and the only way in which a volume and its stage lie on the same file system.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import docker
from support.own_docker import OwnDocker

GIBIBYTES = 8


@contextmanager
def disk(kind: str, worker_image: str) -> Iterator[str]:
    """Docker on such a disk, for :mod:`support.docker`; yields its file system in words.

    ``kind`` is ``host``, ``ext4`` or ``xfs``. ``worker_image`` is brought along unless empty.
    """
    if kind == "host":
        yield f"{file_system(docker.call('info', '--format', '{{.DockerRootDir}}'))}, host's Docker"
        return
    with loop_device(kind) as folder:
        own, before = OwnDocker(folder), docker.URL
        try:
            own.start()
            if worker_image:
                bring(worker_image, own)
            docker.URL = own.url
            yield f"{kind} on a loop device, its own Docker"
        finally:
            docker.URL = before
            own.end()


@contextmanager
def loop_device(kind: str) -> Iterator[Path]:
    """A folder on a fresh file system of this kind, gone at the end."""
    place = Path(tempfile.mkdtemp(prefix="kw-disk-", dir="/var/tmp"))
    image, folder = place / "image", place / "m"
    try:
        folder.mkdir()
        with image.open("wb") as file:
            file.truncate(GIBIBYTES << 30)
        force = "-f" if kind == "xfs" else "-F"
        subprocess.run([f"mkfs.{kind}", force, "-q", image], check=True)
        subprocess.run(["mount", "-o", "loop", image, folder], check=True)
        inside = folder / "d"
        inside.mkdir()
        yield inside
    finally:
        if os.path.ismount(folder):
            subprocess.run(["umount", folder], check=False)
        if os.path.ismount(folder):
            subprocess.run(["umount", "--lazy", folder], check=True)
        shutil.rmtree(place)


def bring(image: str, own: OwnDocker) -> None:
    """Copy an image from this machine's Docker; it keeps its id."""
    with tempfile.NamedTemporaryFile(dir="/var/tmp") as file:
        docker.call("save", "--output", file.name, image, timeout=300)
        own.call("load", "--input", file.name)


def file_system(folder: str) -> str:
    """The kind of file system that a folder lies on."""
    found = subprocess.run(
        ["stat", "--file-system", "--format=%T", folder], capture_output=True, text=True, check=True
    )
    return found.stdout.strip().replace("ext2/ext3", "ext4")
