"""A look at the sources: that they are there, what kind of disk they lie on, what is our own."""

from __future__ import annotations

import errno
import os
import stat

from kopiwatch.worker.speech import Refused


def expect_path(path: str) -> None:
    """Refuse unless a folder or file is there: anything else would be an empty source."""
    try:
        mode = os.lstat(path).st_mode
    except OSError as error:
        raise Refused("missing", f"{path} is not there: {error.strerror}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        kind = (
            "a socket" if stat.S_ISSOCK(mode) else "a FIFO" if stat.S_ISFIFO(mode) else "a device"
        )
        raise Refused("no-data", f"{path} is {kind}, and holds no data")


def in_memory(paths: list[str]) -> list[str]:
    """The paths that lie on, or hold, a file system without a disk.

    It tells nobody of writes by mmap.
    """
    kinds = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, more = line.partition(" - ")
            kinds[fields.split(" ")[2]] = more.split(" ")[0]

    def volatile(path: str) -> bool:
        device = os.lstat(path).st_dev
        return kinds.get(f"{os.major(device)}:{os.minor(device)}") in ("tmpfs", "ramfs")

    return [path for path in paths if any(volatile(each) for each in with_nested([path]))]


def with_nested(paths: list[str]) -> list[str]:
    """The paths, and whatever is mounted below them: Kopia reads on across mount points."""
    points = [point for point, _, _ in mounts()]
    below = [p for p in points if any(p.startswith(path.rstrip("/") + "/") for path in paths)]
    return list(dict.fromkeys([*paths, *below]))


def mounts() -> list[tuple[str, str, str]]:
    """Mount point, device and the folder of that device's file system, of each mount we have."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        rows = [line.split(" ") for line in table]
    plain = [(row[4], row[2], row[3]) for row in rows]
    return [(unescaped(point), device, unescaped(root)) for point, device, root in plain]


def disk_of(path: str) -> dict[str, object]:
    """The file system that a path lies on, as ``Disk`` of :mod:`kopiwatch.backup.survey` has it.

    By its mount point: the device number of a file is another one on btrfs.
    """
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        rows = [(line.split(" "), line.partition(" - ")[2].split(" ")[0]) for line in table]
    points = {unescaped(row[4]): (row[2], kind) for row, kind in rows}
    above = [p for p in points if f"{path}/".startswith(p.rstrip("/") + "/")]
    device, kind = points[max(above, key=len)] if above else ("", "")
    room = os.statvfs(path)
    return {
        "type": kind,
        "device": device,
        "free": room.f_bavail * room.f_frsize,
        "total": room.f_blocks * room.f_frsize,
        "in_memory": bool(in_memory([path])),
    }


WRITE_PROTECTS = ("ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs")
"""File systems where a page that was written back cannot be stored to without a new time."""


def tells_of_mmap(path: str) -> bool:
    """Whether, after a sync, no store through a mapping below a path leaves all times unmoved.

    The file system is found by the id of the mount: btrfs gives its files other device numbers than
    the table of mounts.
    """
    kinds = {}
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            fields, _, more = line.partition(" - ")
            kinds[fields.split(" ")[0]] = more.split(" ")[0]
    return all(kinds.get(mount_id(each)) in WRITE_PROTECTS for each in with_nested([path]))


def mount_id(path: str) -> str:
    """The id of the mount that a path lies on. Raises OSError."""
    handle = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        return mount_of(handle)
    finally:
        os.close(handle)


def mount_of(handle: int) -> str:
    """The id of the mount that an open file was reached through.

    Two mounts of one file system have the same device number, but never the same id.
    """
    with open(f"/proc/self/fdinfo/{handle}", "rb", buffering=0) as about:
        for line in about.read().split(b"\n"):
            if line.startswith(b"mnt_id:"):
                return line[7:].strip().decode()
    raise OSError(errno.ENOSYS, "the kernel does not tell mounts apart")


def unescaped(text: str) -> str:
    """A path of mountinfo, where blanks, tabs, newlines and backslashes stand as octal numbers."""
    for character in " \t\n\\":
        text = text.replace(f"\\{ord(character):03o}", character)
    return text


def refuse_own(sources: list[str], own: list[str]) -> None:
    """Refuse a source that holds or lies in what is our own, by whatever name it was mounted.

    The kernel has resolved all symbolic links here: two mounts see the same files if one's folder
    of the same file system holds the other's.
    """
    table = mounts()
    ours = [(device, root) for point, device, root in table if point in own]
    for source in sources:
        shown = [row for row in table if f"{row[0]}/".startswith(f"{source}/")]
        for _, device, root in shown:
            if any(device == other and nested(root, folder) for other, folder in ours):
                raise Refused("own", f"{source} shows kopiwatch's own repository or state")


def nested(one: str, other: str) -> bool:
    """Whether one of two folders is or holds the other."""
    one, other = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return one.startswith(other) or other.startswith(one)


def sync_filesystems(paths: list[str]) -> None:
    """syncfs(2) on each file system once: pages written by mmap get their times, too."""
    import ctypes  # noqa: PLC0415 - slow to load, and only some runs need it

    library = ctypes.CDLL(None, use_errno=True)
    done = set()
    for path in with_nested(paths):
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            device = os.fstat(handle).st_dev
            if device not in done and library.syncfs(handle) != 0:
                problem = os.strerror(ctypes.get_errno())
                raise Refused("sync", f"cannot sync the file system of {path}: {problem}")
            done.add(device)
        finally:
            os.close(handle)


def look_at(paths: list[str]) -> list[str]:
    """Refuse unless each path is there; those that lie in memory."""
    for path in paths:
        expect_path(path)
    return in_memory(paths)
