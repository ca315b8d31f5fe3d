"""The tiny image that tests run: static busybox, built from this machine, never pulled."""

from __future__ import annotations

import fcntl
import io
import subprocess
import tarfile
import tempfile
from pathlib import Path

from support import docker

BUSYBOX = "kopiwatch-test/busybox:1"
PROGRAM = Path("/bin/busybox")


def busybox() -> str:
    """The reference of the busybox image, built first if this Docker does not have it.

    Its PATH is ``/bin``, it runs as root, and knows the user ``app`` (1000:1000). Raises
    DockerMissing when there is no Docker, RuntimeError when there is no static busybox.
    """
    docker.require()
    # Test processes run side by side; each import would move the tag and leave an image behind.
    with Path(tempfile.gettempdir(), "kopiwatch-test-image.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not docker.call("images", "--quiet", BUSYBOX):
            _build()
    return BUSYBOX


def with_changes(reference: str, *changes: str) -> str:
    """Import the same root under another name, with Dockerfile instructions such as VOLUME."""
    options = [part for change in changes for part in ("--change", change)]
    docker.call("import", *options, "-", reference, data=_root())
    return reference


def _build() -> None:
    with_changes(BUSYBOX, "ENV PATH=/bin", 'CMD ["/bin/sh"]', "LABEL kopiwatch-test=image")


def _root() -> bytes:
    """A root file system as a tar: busybox, a link per applet, and the usual empty folders."""
    if not PROGRAM.exists():
        raise RuntimeError(f"{PROGRAM} is missing: apt-get install busybox-static")
    applets = subprocess.run(
        [PROGRAM, "--list"], check=True, capture_output=True, text=True, timeout=10
    ).stdout.split()
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for folder in ("bin", "dev", "etc", "mnt", "proc", "root", "sys", "tmp", "var"):
            entry = tarfile.TarInfo(folder)
            entry.type, entry.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            tar.addfile(entry)
        _add(tar, "bin/busybox", PROGRAM.read_bytes(), 0o755)
        _add(
            tar, "etc/passwd", b"root:x:0:0::/root:/bin/sh\napp:x:1000:1000::/tmp:/bin/sh\n", 0o644
        )
        _add(tar, "etc/group", b"root:x:0:\napp:x:1000:\n", 0o644)
        for applet in applets:
            if applet != "busybox":
                link = tarfile.TarInfo(f"bin/{applet}")
                link.type, link.linkname = tarfile.SYMTYPE, "busybox"
                tar.addfile(link)
    return buffer.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes, mode: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), mode
    tar.addfile(entry, io.BytesIO(content))
