"""Who listens on a TCP port of ours, as far as ``/proc`` shows it to us."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

_LISTENING = "0A"  # include/net/tcp_states.h: TCP_LISTEN


def holders(port: int, proc: Path = Path("/proc")) -> tuple[str, ...]:
    """``nginx (process 123)`` for each; empty if they are not ours to see. Blocks: use a thread.

    A command line may hold secrets, so only the program's name is told. In a container only its
    own processes are seen.
    """
    sockets = {f"socket:[{inode}]" for inode in _inodes(port, proc)}
    if not sockets:
        return ()
    found = []
    for process in sorted(proc.glob("[0-9]*"), key=lambda path: int(path.name)):
        try:
            held = any(str(fd.readlink()) in sockets for fd in (process / "fd").iterdir())
            name = (process / "comm").read_text("utf-8", "replace").strip() if held else ""
        except OSError:
            continue  # it has ended, or it is another user's
        if held:
            found.append(f"{name} (process {process.name})")
    return tuple(found)


def _inodes(port: int, proc: Path) -> Iterator[str]:
    for table in ("tcp", "tcp6"):
        try:
            lines = (proc / "net" / table).read_text("ascii", "replace").splitlines()[1:]
        except OSError:
            continue  # no IPv6 here
        for fields in map(str.split, lines):
            # sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                yield fields[9]
