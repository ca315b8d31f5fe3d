"""The settings of this process as one value, and the secrets among them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

import msgspec

from kopiwatch.config.hook import HostHooks

Access = Literal["auto", "worker", "namespace"]
ACCESSES: tuple[Access, ...] = ("auto", "worker", "namespace")
LogFormat = Literal["text", "json"]
LOG_FORMATS: tuple[LogFormat, ...] = ("text", "json")
LogLevel = Literal["debug", "info", "warning", "error"]
LOG_LEVELS: tuple[LogLevel, ...] = ("debug", "info", "warning", "error")

RecipeSecrets = Literal["keep", "redact"]
RECIPE_SECRETS: tuple[RecipeSecrets, ...] = ("keep", "redact")


class Secret:
    """A value that prints as ``***`` everywhere; only :meth:`reveal` gives it away."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The value itself."""
        return self._value

    def __repr__(self) -> str:
        return "***"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)


class Listen(msgspec.Struct, frozen=True):
    """Where the exporter listens; an IPv6 address stands without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Config(msgspec.Struct, frozen=True):
    """All settings of this process, resolved.

    ``docker_url`` is resolved once (own setting, ``DOCKER_HOST``, the usual socket) and is what
    every Docker client gets. ``hostname`` is empty where Docker's own name for the host counts.
    ``profiles`` maps a profile's name to labels it stands for (``{"kopi.mode": "stop"}``).
    ``kopia`` is the program as configured, a name or a path.

    ``schedule`` and ``timezone`` (from ``TZ``) hold where no label says otherwise; they are texts
    as a label would hold them, empty where nothing was given; ``schedule_origin`` is where it
    stands (``environment KOPIWATCH_SCHEDULE``, ``file PATH``). ``forget_after`` None means that a
    vanished unit is watched until it is forgotten. ``run_timeout`` bounds a whole run.
    ``stage_paths`` are folders of Docker's host in which sources may be cloned.
    ``recipe_paths`` are folders of Docker's host that recipes may be read from besides.
    ``retention`` holds, by name (``latest``), the numbers that were given for units that say
    nothing: the text, and where it stands.
    ``hooks`` are the programs that run where we run, by when they do.
    ``listen`` None means the usual place: all addresses in a container, loopback on a host.
    ``metrics_user`` with ``metrics_password``, or ``metrics_token``, are asked for by the exporter
    where they are set; ``tls_cert`` and ``tls_key`` (PEM) are set both or not at all.
    """

    docker_url: str = "unix:///var/run/docker.sock"
    state_dir: Path = Path("/var/lib/kopiwatch")
    cache_dir: Path = Path("/var/cache/kopiwatch")
    repository: str = "filesystem:/repository"
    password: Secret | None = None
    hostname: str = ""
    instance: str = "default"
    kopia: str = "kopia"
    access: Access = "auto"
    worker_image: str = ""
    schedule: str = ""
    schedule_origin: str = "environment KOPIWATCH_SCHEDULE"
    timezone: str = ""
    forget_after: timedelta | None = None
    run_timeout: timedelta = timedelta(hours=24)
    stage_paths: tuple[Path, ...] = ()
    recipe_secrets: RecipeSecrets = "keep"
    recipe_paths: tuple[str, ...] = ()
    listen: Listen | None = None
    metrics_user: str = ""
    metrics_password: Secret | None = None
    metrics_token: Secret | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    log_format: LogFormat = "text"
    log_level: LogLevel = "info"
    retention: dict[str, tuple[str, str]] = msgspec.field(default_factory=dict)
    profiles: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
    hooks: HostHooks = msgspec.field(default_factory=dict)

    @property
    def secrets(self) -> tuple[Secret, ...]:
        """All secrets that were given."""
        values = (getattr(self, name) for name in self.__struct_fields__)
        return tuple(value for value in values if isinstance(value, Secret))

    @property
    def defaults(self) -> dict[str, tuple[str, str]]:
        """What stands for a missing label: by label the text, and where it was given."""
        given = {f"kopi.retention.{name}": number for name, number in self.retention.items()}
        given |= {
            "kopi.schedule": (self.schedule, self.schedule_origin),
            "kopi.timezone": (self.timezone, "environment TZ"),
        }
        return {label: value for label, value in given.items() if value[0]}
