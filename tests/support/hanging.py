"""A file system that hangs when told to: whoever asks it then waits in the kernel, beyond SIGKILL.

A FUSE server of a few calls, spoken raw over ``/dev/fuse`` (protocol 7.31, ``<linux/fuse.h>``). It
is what a dead NFS server with a hard mount is to its clients, and worse: a request that was taken
and not answered cannot be interrupted. It runs in a process of its own, because a process that
waits for itself would never end.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT, FILE = 1, 2
NAME = b"file"
CONTENT = b"content\n" * 1024
HEADER = struct.Struct("<IIQQIIII")
UNANSWERED = (2, 36, 42)
"""FORGET, INTERRUPT and BATCH_FORGET want no answer."""


class HangingFolder:
    """A mounted folder with one file. ``hang`` names the calls that are not answered any more."""

    def __init__(self, path: Path, server: subprocess.Popen[bytes] | None = None) -> None:
        self.path = path
        self.server = server
        self.file = path / NAME.decode()
        self.word = path.parent / f"{path.name}.hang"
        self.asked = path.parent / f"{path.name}.asked"
        self.broken = path.parent / f"{path.name}.fail"

    def hang(self, *calls: str) -> None:
        """From now on: ``look`` (lookup, getattr), ``list``, ``open`` or ``read`` hang."""
        self.word.write_text(" ".join(calls))

    def fail(self, *calls: str) -> None:
        """From now on these calls are answered with EIO, as a disk with bad blocks does."""
        self.broken.write_text(" ".join(calls))

    def release(self) -> None:
        """Cut the connection: whoever waits gets an error, and so does whoever comes later."""
        assert self.server is not None
        self.server.kill()  # its /dev/fuse closes with it
        self.server.wait()

    @property
    def hung(self) -> bool:
        """Somebody waits for an answer that never comes."""
        return self.asked.exists()


@contextmanager
def hanging_folder(path: Path) -> Iterator[HangingFolder]:
    """Mounted at ``path``; at the end the connection is cut, which frees whoever waits."""
    path.mkdir(parents=True)
    server = subprocess.Popen([sys.executable, "-I", __file__, path], stdout=subprocess.PIPE)
    assert server.stdout is not None
    folder = HangingFolder(path, server)
    try:
        assert server.stdout.readline() == b"ready\n"
        yield folder
    finally:
        folder.release()
        server.stdout.close()
        subprocess.run(["umount", "--lazy", path], check=True)


def _attributes(node: int) -> bytes:
    mode = stat.S_IFDIR | 0o755 if node == ROOT else stat.S_IFREG | 0o644
    size = 0 if node == ROOT else len(CONTENT)
    return struct.pack(
        "<QQQQQQIIIIIIIIII", node, size, 16, *(10**9,) * 3, 0, 0, 0, mode, 1, *(0,) * 3, 4096, 0
    )


def _entries(offset: int) -> bytes:
    names = [(ROOT, b".", 4), (ROOT, b"..", 4), (FILE, NAME, 8)]
    out = b""
    for place, (node, name, kind) in enumerate(names):
        if place >= offset:
            out += struct.pack("<QQII", node, place + 1, len(name), kind) + name
            out += bytes(-len(out) % 8)
    return out


def _answer(code: int, node: int, body: bytes) -> tuple[str, bytes | int]:  # noqa: PLR0911 - a table
    """What kind of call it is, and the answer: its body, or an error number."""
    match code:
        case 26:  # INIT
            fields = (7, 31, 65536, 0, 16, 12, 65536, 1, 16, 0, 0)
            return "init", struct.pack("<IIIIHHIIHHI28x", *fields)
        case 1 if body.rstrip(b"\0") != NAME:  # LOOKUP
            return "look", errno.ENOENT
        case 1:
            return "look", struct.pack("<QQQQII", FILE, 0, 0, 0, 0, 0) + _attributes(FILE)
        case 3:  # GETATTR
            return "look", struct.pack("<QII", 0, 0, 0) + _attributes(node)
        case 14 | 27:  # OPEN, OPENDIR
            return "open", struct.pack("<QII", 0, 0, 0)
        case 28:  # READDIR
            return "list", _entries(struct.unpack_from("<QQ", body)[1])
        case 15:  # READ
            _, offset, size = struct.unpack_from("<QQI", body)
            return "read", CONTENT[offset : offset + size]
        case 17:  # STATFS
            return "", struct.pack("<QQQQQIII28x", 1, 1, 1, 1, 1, 4096, 255, 4096)
        case 18 | 25 | 29 | 34:  # RELEASE, FLUSH, RELEASEDIR, ACCESS
            return "", b""
        case _:
            return "", errno.ENOSYS


def _serve(path: Path) -> None:
    folder = HangingFolder(path)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other,default_permissions"
    subprocess.run(
        ["mount", "-i", "-t", "fuse", "-o", options, "kopiwatch-test", path],
        check=True,
        pass_fds=(device,),
    )
    told = False
    while True:
        try:
            request = os.read(device, 256 * 1024)
        except InterruptedError:
            continue
        except OSError:
            return
        _, code, unique, node, *_ = HEADER.unpack_from(request)
        if code in UNANSWERED:
            continue
        kind, answer = _answer(code, node, request[HEADER.size :])
        if kind and folder.word.exists() and kind in folder.word.read_text().split():
            folder.asked.touch()
            continue
        if kind and folder.broken.exists() and kind in folder.broken.read_text().split():
            answer = errno.EIO
        body, error = (b"", -answer) if isinstance(answer, int) else (answer, 0)
        os.write(device, struct.pack("<IiQ", 16 + len(body), error, unique) + body)
        if kind == "init" and not told:
            told = True
            os.write(1, b"ready\n")


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
