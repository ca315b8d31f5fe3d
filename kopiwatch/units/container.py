"""A container as one row of Docker's list shows it."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

import msgspec

PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
NUMBER_LABEL = "com.docker.compose.container-number"
ONEOFF_LABEL = "com.docker.compose.oneoff"
DEPENDS_LABEL = "com.docker.compose.depends_on"
SWARM_SERVICE_LABEL = "com.docker.swarm.service.id"
WORKER_LABEL = "kopi.worker"
STATE_LABEL = "kopi.state"
STAGE_LABEL = "kopi.stage"

MountKind = Literal["volume", "bind", "tmpfs", "image", "npipe", "cluster", "other"]
State = Literal[
    "created", "running", "paused", "restarting", "removing", "exited", "dead", "unknown"
]


class Mount(msgspec.Struct, frozen=True):
    """One mount of a container.

    ``source`` is the path on Docker's host, as typed and unresolved, and empty where Docker's list
    does not say (anonymous volumes, tmpfs). ``volume`` is the volume's name and empty for others.
    """

    kind: MountKind
    destination: str
    source: str = ""
    volume: str = ""
    driver: str = ""
    writable: bool = True

    @property
    def anonymous(self) -> bool:
        """Docker itself named this volume: 64 hexadecimal digits."""
        name = self.volume
        return self.kind == "volume" and len(name) == 64 and not name.strip("0123456789abcdef")


class Container(msgspec.Struct, frozen=True):
    """One row of ``GET /containers/json?all=1`` (Docker API 1.41 and later).

    ``created`` is UTC with the second as its unit, or None when it cannot be told. ``status`` is
    Docker's sentence for people (``Up 3 minutes (healthy)``). ``network_mode`` is ``bridge``,
    ``host``, ``container:<64 hex>`` and so on.
    """

    id: str
    name: str
    image: str = ""
    image_id: str = ""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    state: State = "unknown"
    status: str = ""
    created: datetime | None = None
    network_mode: str = ""
    mounts: tuple[Mount, ...] = ()

    @property
    def project(self) -> str:
        """The Compose project, or empty."""
        return self.labels.get(PROJECT_LABEL, "")

    @property
    def service(self) -> str:
        """The Compose service, or empty."""
        return self.labels.get(SERVICE_LABEL, "")

    @property
    def number(self) -> str:
        """The Compose container number of a scaled service, or empty."""
        return self.labels.get(NUMBER_LABEL, "")

    @property
    def oneoff(self) -> bool:
        """Started by ``docker compose run``: never a member."""
        return self.labels.get(ONEOFF_LABEL, "").lower() in ("true", "1")

    @property
    def worker(self) -> bool:
        """One of kopiwatch's own workers, ours or another instance's: never a member."""
        return WORKER_LABEL in self.labels

    @property
    def swarm_task(self) -> bool:
        """A Swarm task: its replacement would be a second writer, so it is never stopped."""
        return SWARM_SERVICE_LABEL in self.labels

    @property
    def running(self) -> bool:
        """Its processes exist, paused or not."""
        return self.state in ("running", "paused", "restarting")
