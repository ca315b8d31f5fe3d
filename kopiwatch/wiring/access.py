"""The way to the data, as configuration and place decide it."""

from __future__ import annotations

from pathlib import Path

import msgspec

from kopiwatch.backup.access import Access
from kopiwatch.backup.access_namespace import HostPaths, NamespaceAccess
from kopiwatch.backup.access_worker import OwnFolders, WorkerAccess
from kopiwatch.backup.plan import worker_plan
from kopiwatch.backup.state import StateFolder
from kopiwatch.config import Config
from kopiwatch.engine.own import Inside, Unknown
from kopiwatch.engine.port import Inspected
from kopiwatch.errors import ConfigError
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.units.unit import Unit
from kopiwatch.wiring.docker import Docker, host_path


def access_of(config: Config, where: Docker, state: StateFolder, identity: str) -> Access:
    """The way to the data. Raises ConfigError when none is possible."""
    own = where.own
    if isinstance(own, Unknown):
        raise ConfigError(
            f"this container cannot be identified: {own.reason}",
            hint="point KOPIWATCH_DOCKER at the daemon that runs this container",
        )
    inside = isinstance(own, Inside)
    wanted = config.access
    if wanted == "auto":
        wanted = "worker" if inside or config.worker_image else "namespace"
    if wanted == "namespace":
        if inside:
            raise ConfigError(
                "KOPIWATCH_ACCESS=namespace works on the host only, not in a container",
                hint="remove it: the container uses worker containers",
            )
        return NamespaceAccess(
            where.engine,
            state=identity,
            paths=HostPaths(state.locks, config.cache_dir, repository_folder(config), state.stage),
            kopia=KopiaRepository(config).kopia.path(),
        )
    if isinstance(own, Inside):
        return _own_worker(config, where, own.container, state, identity)
    if not config.worker_image:
        raise ConfigError(
            "KOPIWATCH_ACCESS=worker needs an image for the workers",
            hint="set KOPIWATCH_WORKER_IMAGE to the kopiwatch image",
        )
    repository = repository_folder(config)
    return WorkerAccess(
        where.engine,
        image=config.worker_image,
        state=identity,
        network="none",
        folders=OwnFolders(
            locks=str(state.locks),
            staging=str(state.staging),
            cache=str(config.cache_dir),
            repository=str(repository) if repository else None,
            staging_here=state.staging,
        ),
    )


async def check_access(config: Config, where: Docker, unit: Unit) -> None:
    """Refuse what the worker of this unit could not reach, without writing anything.

    Raises ConfigError, EngineError or RunError, as the run itself would.
    """
    state = StateFolder(config.state_dir)
    plan = worker_plan(unit, run="check", instance=config.instance, recipe="")
    sources = tuple(entry for entry in plan.entries if not entry.own)
    way = access_of(config, where, state, "")
    await way.check(msgspec.structs.replace(plan, entries=sources))


def _own_worker(
    config: Config, where: Docker, own: Inspected, state: StateFolder, identity: str
) -> WorkerAccess:
    """Workers of a sidecar: our own image, our network, sub-folders of our own mounts."""

    def folder(path: Path, what: str, hint: str) -> str:
        found = host_path(own, path)
        if found is None:
            raise ConfigError(f"{what} {path} has no mount of its own in this container", hint=hint)
        return found

    volume = "mount a volume or a host folder there (see compose.example.yml)"
    locks = folder(state.locks, "the state folder", volume)
    repository = repository_folder(config)
    return WorkerAccess(
        where.engine,
        image=config.worker_image or own.image_id,
        state=identity,
        network=f"container:{own.id}",
        folders=OwnFolders(
            locks=locks,
            staging=folder(state.staging, "the state folder", volume),
            cache=folder(config.cache_dir, "the cache folder", volume),
            repository=folder(repository, "the repository", volume) if repository else None,
            staging_here=state.staging,
        ),
    )


def repository_folder(config: Config) -> Path | None:
    """The folder whose sub-folder ``kopia`` is the repository, None if it is not a folder."""
    return parse_repository(config.repository).path.parent
