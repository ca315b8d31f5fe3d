"""What Docker tells of containers, turned into our values: pure, and tolerant of what is left out.

Field names and shapes are those of the Docker API 1.41 to 1.52 and of Podman's compatible answers.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import cast, get_args

import msgspec

from kopiwatch.engine.body import Raw, parse_time, read
from kopiwatch.engine.port import Health, Healthcheck, HostMount, Inspected
from kopiwatch.units.container import Container, Mount, MountKind, State

PROBE_TIMEOUT_SECONDS = 30
"""What Docker allows one probe when the health check names no timeout."""
STOP_TIMEOUT_SECONDS = 10
"""What Docker waits before SIGKILL when the container names no StopTimeout (Linux)."""

_STATES = frozenset(get_args(State))
_KINDS = frozenset(get_args(MountKind)) - {"other"}
_HEALTHS = frozenset(get_args(Health))


class _Mount(Raw, frozen=True):
    type: str | None = None
    name: str | None = None
    source: str | None = None
    destination: str | None = None
    driver: str | None = None
    rw: bool | None = msgspec.field(name="RW", default=None)


class _RowHostConfig(Raw, frozen=True):
    network_mode: str | None = None


class _Row(Raw, frozen=True):
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


class _Probe(Raw, frozen=True):
    test: list[str] | None = None
    timeout: int | None = None


class _Config(Raw, frozen=True):
    image: str | None = None
    labels: dict[str, str] | None = None
    shell: list[str] | None = None
    healthcheck: _Probe | None = None
    stop_timeout: int | None = None


class _RestartPolicy(Raw, frozen=True):
    name: str | None = None


class _HostConfig(Raw, frozen=True):
    network_mode: str | None = None
    pid_mode: str | None = None
    ipc_mode: str | None = None
    volumes_from: list[str] | None = None
    auto_remove: bool | None = None
    restart_policy: _RestartPolicy | None = None
    tmpfs: dict[str, str] | None = None


class _HealthState(Raw, frozen=True):
    status: str | None = None


class _ContainerState(Raw, frozen=True):
    running: bool | None = None
    paused: bool | None = None
    exit_code: int | None = None
    started_at: str | None = None
    health: _HealthState | None = None


class _NetworkSettings(Raw, frozen=True):
    networks: dict[str, msgspec.Raw] | None = None


class _Inspect(Raw, frozen=True):
    id: str
    name: str | None = None
    image: str | None = None
    config: _Config | None = None
    host_config: _HostConfig | None = None
    state: _ContainerState | None = None
    network_settings: _NetworkSettings | None = None
    mounts: list[_Mount] | None = None
    restart_count: int | None = None


class _ExecState(Raw, frozen=True):
    running: bool | None = None
    exit_code: int | None = None


class _Id(Raw, frozen=True):
    id: str


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
