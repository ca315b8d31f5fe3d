"""The settings of this process as one value, and the secrets among them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

Access = Literal["auto", "worker", "namespace"]
ACCESSES: tuple[Access, ...] = ("auto", "worker", "namespace")


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


class Config(msgspec.Struct, frozen=True):
    """All settings of this process, resolved.

    ``docker_url`` is resolved once (own setting, ``DOCKER_HOST``, the usual socket) and is what
    every Docker client gets. ``hostname`` is empty where Docker's own name for the host counts.
    ``profiles`` maps a profile's name to labels it stands for (``{"kopi.mode": "stop"}``).
    ``kopia`` is the program as configured, a name or a path.
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
    profiles: dict[str, dict[str, str]] = msgspec.field(default_factory=dict)
