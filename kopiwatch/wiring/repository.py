"""The repository, for one command."""

from __future__ import annotations

import socket

import anyio.to_thread

from kopiwatch.backup.state import StateFolder
from kopiwatch.config import Config
from kopiwatch.engine.own import MOUNTINFO, container_id
from kopiwatch.engine.port import EngineInfo
from kopiwatch.errors import EngineError
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.wiring.docker import docker


def repository_of(config: Config, info: EngineInfo | None, command: str) -> KopiaRepository:
    """The configured repository; the host's name is Docker's unless another is set or recorded."""
    return KopiaRepository(config, host=info.name if info else "", command=command)


async def reading(config: Config, command: str) -> KopiaRepository:
    """The repository for a command that only reads: it touches nobody's containers.

    Without a connection of this state it makes one. Docker is asked for the host's name only when
    nothing else knows it; on a machine without Docker its own name counts, as Docker's would.
    """
    await anyio.to_thread.run_sync(StateFolder(config.state_dir).open)
    repository = repository_of(config, None, command)
    if not repository.host:
        try:
            async with docker(config) as where:
                repository = repository_of(config, where.info, command)
        except EngineError:
            if container_id(MOUNTINFO.read_text()) is not None:
                raise
            repository = KopiaRepository(config, host=socket.gethostname(), command=command)
    await repository.ensure_connected()
    return repository
