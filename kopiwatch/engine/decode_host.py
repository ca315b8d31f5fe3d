"""What Docker tells of itself, of images and of volumes, turned into our values: pure.

Field names and shapes are those of the Docker API 1.41 to 1.52 and of Podman's compatible answers.
"""

from __future__ import annotations

import re

import msgspec

from kopiwatch.engine.body import Raw, parse_time, read
from kopiwatch.engine.port import EngineInfo, Image, Volume


class _Volume(Raw, frozen=True):
    name: str
    driver: str | None = None
    mountpoint: str | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _Volumes(Raw, frozen=True):
    volumes: list[_Volume] | None = None


class _Info(Raw, frozen=True):
    id: str | None = msgspec.field(name="ID", default=None)
    name: str | None = None
    server_version: str | None = None
    docker_root_dir: str | None = None
    security_options: list[str] | None = None
    system_time: str | None = None
    driver_status: msgspec.Raw = msgspec.Raw(b"null")


class _ImageConfig(Raw, frozen=True):
    volumes: dict[str, msgspec.Raw] | None = None


class _Image(Raw, frozen=True):
    id: str
    config: _ImageConfig | None = None
    repo_digests: list[str] | None = None
    repo_tags: list[str] | None = None
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None


class _Component(Raw, frozen=True):
    name: str | None = None
    version: str | None = None


class _Version(Raw, frozen=True):
    api_version: str
    components: list[_Component] | None = None


def api_version(body: bytes) -> str:
    """The newest API version the daemon speaks (``GET /version``), such as ``1.41``."""
    return read(body, _Version).api_version


def podman(body: bytes) -> tuple[int, int] | None:
    """Podman's own version (``GET /version``), such as (5, 6); None where it is not Podman.

    A Podman whose version cannot be told counts as an old one.
    """
    for component in read(body, _Version).components or ():
        if component.name == "Podman Engine":
            found = re.match(r"(\d+)\.(\d+)", component.version or "")
            return (int(found[1]), int(found[2])) if found else (0, 0)
    return None


def volume(body: bytes) -> Volume:
    """The answer of ``GET /volumes/{name}``."""
    return _volume(read(body, _Volume), body)


def volumes(body: bytes) -> tuple[Volume, ...]:
    """The answer of ``GET /volumes``, without the definitions."""
    return tuple(_volume(row, b"") for row in read(body, _Volumes).volumes or ())


def _volume(raw: _Volume, body: bytes) -> Volume:
    return Volume(
        name=raw.name,
        driver=raw.driver or "",
        mountpoint=raw.mountpoint or "",
        options=raw.options or {},
        labels=raw.labels or {},
        definition=body,
    )


def info(body: bytes, api: str) -> EngineInfo:
    """The answer of ``GET /info``; ``api`` is the API version in use."""
    raw = read(body, _Info)
    return EngineInfo(
        id=raw.id or "",
        name=raw.name or "",
        version=raw.server_version or "",
        api_version=api,
        root_dir=raw.docker_root_dir or "",
        rootless=any("name=rootless" in option.split(",") for option in raw.security_options or ()),
        system_time=parse_time(raw.system_time),
        backing=_backing(raw.driver_status),
    )


def _backing(status: msgspec.Raw) -> str:
    """``[["Backing Filesystem", "extfs"], …]``; other drivers and Podman have other shapes."""
    try:
        rows = msgspec.json.decode(status, type=tuple[tuple[str, str], ...])
    except msgspec.MsgspecError:
        return ""
    return next((value for name, value in rows if name == "Backing Filesystem"), "")


def image(body: bytes) -> tuple[str, tuple[str, ...]]:
    """The id of an image, and the paths that it declares as volumes."""
    raw = read(body, _Image)
    declared = raw.config.volumes if raw.config else None
    return raw.id, tuple(declared or ())


def whole_image(body: bytes) -> Image:
    """The answer of ``GET /images/{name}/json``."""
    raw = read(body, _Image)
    return Image(
        id=raw.id,
        digests=tuple(raw.repo_digests or ()),
        tags=tuple(raw.repo_tags or ()),
        architecture=raw.architecture or "",
        os=raw.os or "",
        variant=raw.variant or "",
    )
