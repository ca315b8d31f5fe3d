"""One file's content from a source into a stage: cloned, copied, or compared and mended."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

FICLONE = 0x40049409  # <linux/fs.h>, as the next three
FS_IOC_GETFLAGS = 0x80086601
FS_IOC_SETFLAGS = 0x40086602
FS_NOCOW_FL = 0x00800000

BLOCK_BYTES = 1024 * 1024
COPY_BYTES = 64 * 1024 * 1024

CANNOT_CLONE = (errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.ENOSYS)
"""What FICLONE answers where it will not work for the next file either."""
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from collections.abc import Iterator


def clone(source: int, target: int) -> None:
    """Let the file ``target`` share all blocks of ``source``: all or an OSError, never a copy.

    The kernel writes back what it still holds of the source and write-protects it: a later store
    through a mapping moves the file's times (checked on xfs and btrfs, kernel 6.18). A target that
    is longer must be cut first. Over a file that shares most of the blocks already this takes 3 ms
    per GiB; to empty that file, or to make a new one, takes 60 ms and more.
    """
    try:
        fcntl.ioctl(target, FICLONE, source)
    except OSError as error:
        # btrfs: data without checksums (chattr +C) goes into such a file only.
        if error.errno != errno.EINVAL or not _take_nocow(source, target):
            raise
        fcntl.ioctl(target, FICLONE, source)


def _take_nocow(source: int, target: int) -> bool:
    """Give ``target`` (empty) the +C of ``source``; False if the source has none."""
    try:
        (flags,) = struct.unpack("l", fcntl.ioctl(source, FS_IOC_GETFLAGS, bytes(8)))
        if not flags & FS_NOCOW_FL:
            return False
        (own,) = struct.unpack("l", fcntl.ioctl(target, FS_IOC_GETFLAGS, bytes(8)))
        fcntl.ioctl(target, FS_IOC_SETFLAGS, struct.pack("l", own | FS_NOCOW_FL))
    except OSError:
        return False
    return True


def why_not(error: OSError) -> str:
    """Why a file cannot be cloned, in words."""
    return {
        errno.EXDEV: "it lies on another file system (or the kernel is older than 5.18, "
        "and sees two mounts of one)",
        errno.EOPNOTSUPP: "its file system cannot clone",
        errno.ENOTTY: "its file system cannot clone",
        errno.ENOSYS: "its file system cannot clone",
        errno.EINVAL: "its file system refuses to clone it (attributes such as chattr +C differ, "
        "or it is in use as swap)",
        errno.ENOSPC: "no space is left",
        errno.EDQUOT: "the quota is used up",
    }.get(error.errno or 0, error.strerror or "unknown")


def data_ranges(handle: int, size: int, start: int = 0) -> Iterator[tuple[int, int]]:
    """Begin and end of each part of a file before ``size`` that is not a hole."""
    while start < size:
        try:
            start = os.lseek(handle, start, os.SEEK_DATA)
            end = min(os.lseek(handle, start, os.SEEK_HOLE), size)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        if start < end:
            yield start, end
        start = max(end, start + 1)


def copy(source: int, target: int, size: int) -> None:
    """Copy ``size`` bytes into an empty file; holes stay holes."""
    for start, end in data_ranges(source, size):
        _copy_range(source, target, start, end)
    os.ftruncate(target, size)


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    """Copy one range, inside the kernel where it can. Ends early at the end of the source."""
    try:
        while start < end:
            more = min(end - start, COPY_BYTES)
            count = os.copy_file_range(source, target, more, start, start)
            if not count:
                return
            start += count
    except OSError as error:
        if error.errno not in CANNOT_CLONE:
            raise
        _read_and_write(source, target, start, end)


def _read_and_write(source: int, target: int, start: int, end: int) -> None:
    """Copy one range through our memory: the two file systems do not know each other."""
    while start < end:
        block = os.pread(source, min(end - start, BLOCK_BYTES), start)
        if not block:
            return
        write_all(target, block, start)
        start += len(block)


def write_all(target: int, block: bytes | memoryview, start: int) -> None:
    """Write a block whole."""
    view = memoryview(block)
    while view:
        count = os.pwrite(target, view, start)
        view, start = view[count:], start + count


def mend(source: int, target: int, size: int) -> int:
    """Make ``target``, an earlier copy of ``source``, equal to it; the bytes that were written.

    Reads both in blocks of 1 MiB and writes those that differ. A new hole of the source becomes
    zeros, if there was data.
    """
    if os.fstat(target).st_size != size:
        os.ftruncate(target, size)
    block = min(size, BLOCK_BYTES)  # 3 MiB of buffers for each small file would take a minute
    ours, theirs, zeros = bytearray(block), bytearray(block), bytes(block)
    written = hole = 0
    for start, end in [*data_ranges(source, size), (size, size)]:
        for begin, until in list(data_ranges(target, start, hole)):
            for at in range(begin, until, BLOCK_BYTES):
                count = min(BLOCK_BYTES, until - at)
                if os.pread(target, count, at) != zeros[:count]:
                    write_all(target, zeros[:count], at)
                    written += count
        for at in range(start, end, BLOCK_BYTES):
            got = _read_into(source, theirs, min(BLOCK_BYTES, end - at), at)
            if _read_into(target, ours, got, at) != got or not _equal(ours, theirs, got):
                write_all(target, memoryview(theirs)[:got], at)
                written += got
        hole = end
    return written


def _equal(one: bytearray, other: bytearray, count: int) -> bool:
    """Whether two buffers begin alike. Whole ones are not copied for that: three times faster."""
    return one == other if count == len(one) else one[:count] == other[:count]


def _read_into(handle: int, buffer: bytearray, count: int, start: int) -> int:
    """Fill a buffer from a file; the bytes that were read, fewer only at its end."""
    got = 0
    view = memoryview(buffer)
    while got < count:
        more = os.preadv(handle, [view[got:count]], start + got)
        if not more:
            break
        got += more
    return got
