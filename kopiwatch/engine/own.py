"""Who are we: a process on the host, or a container, and which one; and where its folders lie.

Measured on Docker 20.10: the files ``/etc/hostname``, ``/etc/hosts`` and ``/etc/resolv.conf`` are
mounted from a folder named after a container, whatever its hostname, network or cgroup namespace.
After *a* container: with ``network_mode: container:<other>`` they are the other's. ``HOSTNAME`` and
``/proc/self/cgroup`` were wrong in most cases and are not asked.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Literal

import msgspec

from kopiwatch.engine.port import Engine, Inspected
from kopiwatch.errors import ContainerGone

MOUNTINFO = Path("/proc/self/mountinfo")
MARKERS = (Path("/.dockerenv"), Path("/run/.containerenv"))
"""Files that Docker and Podman put into each container."""

_PLACES = ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_ROOT = re.compile(r"/([0-9a-f]{64})/(?:userdata/)?(?:hostname|hosts|resolv\.conf)(?://deleted)?")
_UPPER = re.compile(r"[ ,]upperdir=([^ ,]+)")


class Outside(msgspec.Struct, frozen=True, tag="outside"):
    """A process that is in no container."""


class Inside(msgspec.Struct, frozen=True, tag="inside"):
    """A container of the daemon that we talk to: us. Never stop it, never back it up."""

    container: Inspected


class Unknown(msgspec.Struct, frozen=True, tag="unknown"):
    """In a container, but which one cannot be told, so no path of ours can be translated.

    ``reason`` completes "this container cannot be identified: …".
    """

    reason: str


Own = Outside | Inside | Unknown


class HostSource(msgspec.Struct, frozen=True):
    """A path of ours as Docker's host knows it.

    ``source`` is the mount it lies on: a volume's name, or a folder of the host. ``rest`` is the
    way below that, without a leading slash and empty for the mount itself. ``path`` is the whole
    path on the host, good as a bind source as long as we run (which keeps the volume mounted).
    """

    kind: Literal["volume", "bind"]
    source: str
    rest: str
    path: str


def container_id(mountinfo: str) -> str | None:
    """The container that ``/proc/self/mountinfo`` names: ours, or the one whose network we share.

    None when it names none. Other 64-digit names in there (layers of the root) do not count.
    """
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] in _PLACES:
            found = _ROOT.search(fields[3])
            if found is not None and found.end() == len(fields[3]):
                return found[1]
    return None


async def whoami(
    engine: Engine, *, mountinfo: str | None = None, marked: bool | None = None
) -> Own:
    """Find out who we are, with one list and as few inspects as will do.

    ``mountinfo`` and ``marked`` (a marker file of a container exists) are read from this process
    where they are None. Raises EngineError when Docker cannot be asked.
    """
    text = _own_mountinfo() if mountinfo is None else mountinfo
    inside = _is_marked() if marked is None else marked
    named = container_id(text)
    if named is None:
        if inside and _has_runtime_files(text):
            return Unknown("the files that its runtime mounted do not name it")
        return Outside()
    rows = await engine.containers()
    if named not in (row.id for row in rows):
        return Unknown(f"this Docker daemon has no container {named[:12]}")
    sharers = [
        row.id
        for row in rows
        if row.network_mode == f"container:{named}" and row.running and not row.worker
    ]
    try:
        candidates = [await engine.inspect(identity) for identity in (named, *sharers)]
    except ContainerGone as error:
        return Unknown(error.message)
    if not sharers:
        return Inside(candidates[0])
    return _choose(text, candidates)


def host_source(own: Inspected, path: str) -> HostSource | None:
    """Where a path of ours lies on Docker's host: the mount with the longest matching destination.

    ``path`` is absolute and free of symbolic links. None when it lies on no mount of ours, or on
    one that the host does not see as a path (tmpfs).
    """
    wanted = posixpath.normpath(path)
    best = None
    for mount in own.mounts:
        place = posixpath.normpath(mount.destination or "/")
        if _is_below(wanted, place) and (best is None or len(place) > len(best[0])):
            best = (place, mount)
    if best is None:
        return None
    place, mount = best
    if mount.kind not in ("volume", "bind") or not mount.source:
        return None
    rest = wanted[len(place.rstrip("/")) :].lstrip("/")
    return HostSource(
        kind="volume" if mount.kind == "volume" else "bind",
        source=mount.volume if mount.kind == "volume" else mount.source,
        rest=rest,
        path=posixpath.join(mount.source, rest) if rest else mount.source,
    )


def _has_runtime_files(mountinfo: str) -> bool:
    """Whether a container runtime has mounted its files here.

    A marker file without them is a left-over: a machine whose disk was made from an image carries
    it, too, and is a host all the same. Every runtime mounts at least one of them.
    """
    fields = (line.split(" ") for line in mountinfo.splitlines())
    return any(len(field) > 4 and field[4] in _PLACES for field in fields)


def _own_mountinfo() -> str:
    return MOUNTINFO.read_text(errors="replace")


def _is_marked() -> bool:
    return any(path.exists() for path in MARKERS)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _choose(mountinfo: str, candidates: list[Inspected]) -> Own:
    """Which of the containers that share one network we are: by our root, else by our mounts."""
    upper = _upper_of_root(mountinfo)
    if upper:
        same = [one for one in candidates if _upper_of(one) == upper]
        if len(same) == 1:
            return Inside(same[0])
    places = {line.split(" ")[4] for line in mountinfo.splitlines() if line.count(" ") > 4}
    fitting = [one for one in candidates if all(m.destination in places for m in one.mounts)]
    most = max((len(one.mounts) for one in fitting), default=0)
    best = [one for one in fitting if len(one.mounts) == most]
    if len(best) == 1 and most > 0:
        return Inside(best[0])
    names = ", ".join(one.name for one in candidates)
    return Unknown(f"several containers share its network and look alike: {names}")


def _upper_of_root(mountinfo: str) -> str:
    """The writable layer of our root, as overlay names it; empty on other file systems."""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 4 and fields[4] == "/":
            found = _UPPER.search(line)
            return found[1] if found is not None else ""
    return ""


class _GraphDriver(msgspec.Struct, frozen=True, rename="pascal"):
    data: dict[str, msgspec.Raw] | None = None


class _Definition(msgspec.Struct, frozen=True, rename="pascal"):
    graph_driver: _GraphDriver | None = None


def _upper_of(container: Inspected) -> str:
    """The writable layer that inspect names (overlay2; not with the containerd image store)."""
    try:
        driver = msgspec.json.decode(container.definition, type=_Definition).graph_driver
        raw = (driver.data if driver else None) or {}
        return msgspec.json.decode(raw["UpperDir"], type=str) if "UpperDir" in raw else ""
    except msgspec.DecodeError:
        return ""
