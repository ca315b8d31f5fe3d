"""Paths on Docker's host that are never backed up, and why."""

from __future__ import annotations

import posixpath

import msgspec

from kopiwatch.units.place import inside, normal, overlap

_SOCKETS = ("docker.sock", "podman.sock", "containerd.sock")
_SYSTEM = {
    "/dev": "it is a device, not data",
    "/proc": "it is the kernel's, not data",
    "/sys": "it is the kernel's, not data",
    "/run": "what is below /run does not outlive a restart of the host",
    "/var/run": "what is below /run does not outlive a restart of the host",
    "/var/lib/docker": "it is Docker's own data; mount the volume by its name instead",
    "/var/lib/containerd": "it is containerd's own data",
}
_HOST_FILES = (
    "/etc/hostname",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/machine-id",
    "/etc/resolv.conf",
    "/etc/timezone",
)


class RefusedPaths(msgspec.Struct, frozen=True):
    """Paths on Docker's host that hold our repository, our state, or our cache.

    Backing one of them up, something above it, or something in it would put the backups into
    themselves. Empty strings do not count.
    """

    paths: tuple[str, ...] = ()

    def refusal(self, path: str) -> str:
        """Why ``path`` is refused; empty if it is not, or if it is not known (empty)."""
        for own in self.paths:
            if path and own and overlap(path, own):
                where = "is" if normal(path) == normal(own) else "lies in"
                where = where if inside(path, own) else "holds"
                return f"it {where} kopiwatch's own repository or state ({own})"
        return ""


NOTHING_REFUSED = RefusedPaths()


def refusal(path: str, refused: RefusedPaths) -> str:
    """Why a bind mount of the host's ``path`` is refused; empty if it is not."""
    if not path.startswith("/"):
        return "Docker gives no path on a Linux host for it"
    place = normal(path)
    if place == "/":
        return "it is the whole file system of the host"
    if posixpath.basename(place) in _SOCKETS:
        return "it is the socket of a container engine, not data"
    for folder, reason in _SYSTEM.items():
        if inside(place, folder):
            return reason
    return refused.refusal(path)


def belongs_to_host(path: str) -> bool:
    """A file of the host that containers borrow; protected only if named exactly."""
    return normal(path) in _HOST_FILES
