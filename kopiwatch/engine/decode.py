"""Docker's JSON turned into our values: pure, and tolerant of what Docker leaves out.

Field names and shapes are those of the Docker API 1.41 to 1.52 and of Podman's compatible answers.
Anything may be missing or null; only an id must be there. An answer that cannot be understood
raises ``msgspec.DecodeError``, which the caller translates: a failed read is never an empty read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TypeVar, cast, get_args

import msgspec

from kopiwatch.engine.port import (
    EngineInfo,
    Health,
    Healthcheck,
    HostMount,
    Image,
    Inspected,
    Volume,
)
from kopiwatch.units.container import Container, Mount, MountKind, State

PROBE_TIMEOUT_SECONDS = 30
"""What Docker allows one probe when the health check names no timeout."""
STOP_TIMEOUT_SECONDS = 10
"""What Docker waits before SIGKILL when the container names no StopTimeout (Linux)."""

_T = TypeVar("_T")
_STATES = frozenset(get_args(State))
_KINDS = frozenset(get_args(MountKind)) - {"other"}
_HEALTHS = frozenset(get_args(Health))
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)


class _Raw(msgspec.Struct, frozen=True, rename="pascal"):
    """Base of the shapes below: our snake_case is Docker's PascalCase."""


class _Mount(_Raw, frozen=True):
    type: str | None = None
    name: str | None = None
    source: str | None = None
    destination: str | None = None
    driver: str | None = None
    rw: bool | None = msgspec.field(name="RW", default=None)


class _RowHostConfig(_Raw, frozen=True):
    network_mode: str | None = None


class _Row(_Raw, frozen=True):
    id: str
    names: list[str] | None = None
    image: str | None = None
    image_id: str | None = msgspec.field(name="ImageID", default=None)
    labels: dict[str, str] | None = None
    state: str | None = None
    status: str | None = None
    created: int | float | str | None = None
    host_config: _RowHostConfig | None = None
    mounts: list[_Mount] | None = None


class _Probe(_Raw, frozen=True):
    test: list[str] | None = None
    timeout: int | None = None


class _Config(_Raw, frozen=True):
    image: str | None = None
    labels: dict[str, str] | None = None
    shell: list[str] | None = None
    healthcheck: _Probe | None = None
    stop_timeout: int | None = None


class _RestartPolicy(_Raw, frozen=True):
    name: str | None = None


class _HostConfig(_Raw, frozen=True):
    network_mode: str | None = None
    pid_mode: str | None = None
    ipc_mode: str | None = None
    volumes_from: list[str] | None = None
    auto_remove: bool | None = None
    restart_policy: _RestartPolicy | None = None
    tmpfs: dict[str, str] | None = None


class _HealthState(_Raw, frozen=True):
    status: str | None = None


class _ContainerState(_Raw, frozen=True):
    running: bool | None = None
    paused: bool | None = None
    exit_code: int | None = None
    started_at: str | None = None
    health: _HealthState | None = None


class _NetworkSettings(_Raw, frozen=True):
    networks: dict[str, msgspec.Raw] | None = None


class _Inspect(_Raw, frozen=True):
    id: str
    name: str | None = None
    image: str | None = None
    config: _Config | None = None
    host_config: _HostConfig | None = None
    state: _ContainerState | None = None
    network_settings: _NetworkSettings | None = None
    mounts: list[_Mount] | None = None
    restart_count: int | None = None


class _Volume(_Raw, frozen=True):
    name: str
    driver: str | None = None
    mountpoint: str | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class _Volumes(_Raw, frozen=True):
    volumes: list[_Volume] | None = None


class _Info(_Raw, frozen=True):
    id: str | None = msgspec.field(name="ID", default=None)
    name: str | None = None
    server_version: str | None = None
    docker_root_dir: str | None = None
    security_options: list[str] | None = None
    system_time: str | None = None
    driver_status: msgspec.Raw = msgspec.Raw(b"null")


class _ImageConfig(_Raw, frozen=True):
    volumes: dict[str, msgspec.Raw] | None = None


class _Image(_Raw, frozen=True):
    id: str
    config: _ImageConfig | None = None
    repo_digests: list[str] | None = None
    repo_tags: list[str] | None = None
    architecture: str | None = None
    os: str | None = None
    variant: str | None = None


class _ExecState(_Raw, frozen=True):
    running: bool | None = None
    exit_code: int | None = None


class _Id(_Raw, frozen=True):
    id: str


class _Component(_Raw, frozen=True):
    name: str | None = None
    version: str | None = None


class _Version(_Raw, frozen=True):
    api_version: str
    components: list[_Component] | None = None


def read(body: bytes, kind: type[_T]) -> _T:
    """Decode one answer. Raises ``msgspec.DecodeError``."""
    return msgspec.json.decode(body, type=kind, strict=False)


def parse_time(text: str | None) -> datetime | None:
    """Read a time as Docker writes it (RFC 3339, up to nanoseconds) as UTC.

    None for Docker's zero time (year 1), for a time without a zone, and for anything else that
    cannot be told: an unknown time is never "now".
    """
    found = _TIME.fullmatch(text or "")
    if found is None:
        return None
    whole, fraction, zone = found.groups()
    microseconds = (fraction or ".0")[:7].ljust(7, "0")
    try:
        moment = datetime.fromisoformat(whole + microseconds + zone.upper())
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if moment.year == 1 else moment


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


def created_id(body: bytes) -> str:
    """The id of what was just created (a container, an exec)."""
    return read(body, _Id).id


def containers(body: bytes) -> tuple[Container, ...]:
    """Rows of ``GET /containers/json``."""
    return tuple(_container(row) for row in read(body, list[_Row]))


def inspected(body: bytes) -> Inspected:
    """The answer of ``GET /containers/{id}/json``.

    What ``--tmpfs`` mounted stands in ``HostConfig`` only; it is added to the mounts here, so that
    a path below it is not taken for a path of the mount that it covers.
    """
    raw = read(body, _Inspect)
    config, host = raw.config or _Config(), raw.host_config or _HostConfig()
    state = raw.state or _ContainerState()
    status = (state.health.status if state.health else None) or "none"
    restart = host.restart_policy.name if host.restart_policy else None
    networks = raw.network_settings.networks if raw.network_settings else None
    mounts = tuple(_host_mount(mount) for mount in raw.mounts or ())
    covered = {mount.destination for mount in mounts}
    hidden = (path for path in host.tmpfs or () if path not in covered)
    return Inspected(
        id=raw.id,
        name=(raw.name or raw.id[:12]).removeprefix("/"),
        image=config.image or "",
        image_id=raw.image or "",
        running=bool(state.running),
        paused=bool(state.paused),
        exit_code=state.exit_code or 0,
        started_at=parse_time(state.started_at),
        health=cast("Health", status) if status in _HEALTHS else "none",
        healthcheck=_healthcheck(config),
        restart_policy=restart or "no",
        auto_remove=bool(host.auto_remove),
        pid_mode=host.pid_mode or "",
        ipc_mode=host.ipc_mode or "",
        network_mode=host.network_mode or "",
        volumes_from=tuple(host.volumes_from or ()),
        networks=tuple(networks or ()),
        mounts=mounts + tuple(HostMount(kind="tmpfs", destination=path) for path in hidden),
        definition=body,
        stop_timeout=_stop_timeout(config),
        restart_count=raw.restart_count or 0,
    )


def stop_timeout(body: bytes) -> timedelta | None:
    """How long Docker waits for this container before SIGKILL; None where it waits for ever."""
    return _stop_timeout(read(body, _Inspect).config or _Config())


def _stop_timeout(config: _Config) -> timedelta | None:
    seconds = STOP_TIMEOUT_SECONDS if config.stop_timeout is None else config.stop_timeout
    return None if seconds < 0 else timedelta(seconds=seconds)


def labels(body: bytes) -> dict[str, str]:
    """The labels of an inspected container."""
    config = read(body, _Inspect).config
    return (config.labels if config else None) or {}


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


def exec_exit_code(body: bytes) -> int | None:
    """The exit code of an exec, or None while it runs."""
    raw = read(body, _ExecState)
    return None if raw.running else raw.exit_code


def _container(row: _Row) -> Container:
    state = (row.state or "").lower()
    return Container(
        id=row.id,
        name=_name(row),
        image=row.image or "",
        image_id=row.image_id or "",
        labels=row.labels or {},
        state=cast("State", state) if state in _STATES else "unknown",
        status=row.status or "",
        created=_epoch(row.created),
        network_mode=(row.host_config.network_mode if row.host_config else None) or "",
        mounts=tuple(_mount(mount) for mount in row.mounts or ()),
    )


def _name(row: _Row) -> str:
    """The container's own name: a link to it appears as a further name ``/other/alias``."""
    names = [name.removeprefix("/") for name in row.names or ()]
    own = [name for name in names if name and "/" not in name]
    return next(iter(own or names), "") or row.id[:12]


def _epoch(value: float | str | None) -> datetime | None:
    """Seconds since 1970 (Docker), or a time in words (some old answers), as UTC."""
    if isinstance(value, str):
        return parse_time(value)
    if not value or value < 0:
        return None
    try:
        return datetime.fromtimestamp(value, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def _mount(raw: _Mount) -> Mount:
    kind = _kind(raw)
    return Mount(
        kind=cast("MountKind", kind) if kind in _KINDS else "other",
        destination=raw.destination or "",
        source=raw.source or "",
        volume=(raw.name or "") if kind == "volume" else "",
        driver=raw.driver or "",
        writable=raw.rw is not False,
    )


def _host_mount(raw: _Mount) -> HostMount:
    kind = _kind(raw)
    return HostMount(
        kind=kind,
        destination=raw.destination or "",
        source=raw.source or "",
        volume=(raw.name or "") if kind == "volume" else "",
        driver=raw.driver or "",
        writable=raw.rw is not False,
    )


def _kind(raw: _Mount) -> str:
    """The mount's type. Where it is not said, a name makes a volume and a source a bind."""
    if raw.type:
        return raw.type.lower()
    if raw.name:
        return "volume"
    return "bind" if raw.source else "other"


def _healthcheck(config: _Config) -> Healthcheck | None:
    """The check as an argv, in the way in which Docker itself would run it (API 1.41)."""
    probe = config.healthcheck
    test = (probe.test if probe else None) or []
    match test:
        case ["CMD", *argv] if argv:
            found = tuple(argv)
        case ["CMD-SHELL", *words] if words:
            # Docker appends the words to the image's SHELL, so that a JSON array works, too.
            found = (*(config.shell or ("/bin/sh", "-c")), *words)
        case _:
            return None
    nanoseconds = (probe.timeout if probe else None) or 0
    if nanoseconds <= 0:
        return Healthcheck(found, timedelta(seconds=PROBE_TIMEOUT_SECONDS))
    return Healthcheck(found, timedelta(microseconds=max(1, nanoseconds // 1000)))
