"""Containers for the tests of this room, in as few words as possible."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from kopiwatch.units.container import Container, Mount


def volume(name: str, destination: str = "/data", *, writable: bool = True) -> Mount:
    return Mount(
        "volume",
        destination,
        source=f"/var/lib/docker/volumes/{name}/_data",
        volume=name,
        driver="local",
        writable=writable,
    )


def anonymous(digit: str, destination: str = "/data") -> Mount:
    return Mount("volume", destination, volume=digit * 64, driver="local")


def bind(source: str, destination: str = "/mnt", *, writable: bool = True) -> Mount:
    return Mount("bind", destination, source=source, writable=writable)


def container(
    name: str,
    *mounts: Mount,
    enable: str | None = "true",
    project: str = "",
    service: str = "",
    depends: str | None = None,
    created: int | None = None,
    labels: dict[str, str] | None = None,
    **fields: Any,
) -> Container:
    """A running container; ``labels`` are added without the prefix ``kopi.`` if they lack a dot."""
    found = {"kopi.enable": enable} if enable is not None else {}
    if project:
        found["com.docker.compose.project"] = project
        found["com.docker.compose.service"] = service or name
    if depends is not None:
        found["com.docker.compose.depends_on"] = depends
    for key, value in (labels or {}).items():
        found[key if "." in key else f"kopi.{key}"] = value
    when = None if created is None else datetime.fromtimestamp(created, UTC)
    fields.setdefault("state", "running")
    return Container(
        id=(name.encode().hex() + "0" * 64)[:64],
        name=name,
        labels=found,
        mounts=mounts,
        created=when,
        **fields,
    )
