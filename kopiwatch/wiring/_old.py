"""Wires the rooms for one command: configuration, Docker, units, repository, access, locks."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.backup.access import Access
from kopiwatch.backup.access_namespace import HostPaths, NamespaceAccess
from kopiwatch.backup.access_worker import OwnFolders, WorkerAccess
from kopiwatch.backup.house import House, Listener
from kopiwatch.backup.plan import worker_plan
from kopiwatch.backup.settle import bring_all_back, readable, settle_verdicts
from kopiwatch.backup.state import StateFolder
from kopiwatch.backup.stray import end_strays
from kopiwatch.cli.output import note
from kopiwatch.clock import SYSTEM
from kopiwatch.config import Config, load, nearest
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.own import MOUNTINFO, Inside, Own, Unknown, container_id, host_source, whoami
from kopiwatch.engine.port import Engine, EngineInfo, Inspected
from kopiwatch.errors import ConfigError, EngineError, EngineUnreachable, UnknownUnit
from kopiwatch.kopia.backend import parse_repository
from kopiwatch.kopia.environment import environment
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.lock import FileLock, Owner
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.units.container import Container
from kopiwatch.units.group import Discovery, discover
from kopiwatch.units.refusal import RefusedPaths
from kopiwatch.units.unit import Unit


class Docker(msgspec.Struct, frozen=True):
    """Docker, and who we are for it."""

    engine: Engine
    info: EngineInfo
    own: Own

    @property
    def own_id(self) -> str:
        """The id of our own container; empty outside one."""
        return self.own.container.id if isinstance(self.own, Inside) else ""


@asynccontextmanager
async def docker(config: Config) -> AsyncIterator[Docker]:
    """Connect to Docker for the length of a block."""
    async with await DockerEngine.connect(config.docker_url) as engine:
        yield Docker(engine, await engine.info(), await whoami(engine))


async def look(config: Config, where: Docker) -> tuple[Discovery, tuple[Container, ...]]:
    """List all containers and turn their labels into units."""
    rows = await where.engine.containers()
    refused = RefusedPaths(refused_paths(config, where.own))
    found = discover(
        rows,
        instance=config.instance,
        profiles=config.profiles,
        self_id=where.own_id,
        refused=refused,
    )
    return found, rows


def refused_paths(config: Config, own: Own) -> tuple[str, ...]:
    """Our state and the repository, as the host knows them: no unit may hold them."""
    paths = [config.state_dir]
    if config.repository.startswith("filesystem:"):
        paths.append(Path(config.repository.removeprefix("filesystem:")))
    if isinstance(own, Inside):
        found = [host_path(own.container, path) for path in paths]
        return tuple(path for path in found if path)
    return tuple(str(path) for path in paths)


def host_path(own: Inspected, path: Path) -> str | None:
    """A path of ours as Docker's host knows it; None where it lies on no mount of ours."""
    found = host_source(own, str(path))
    return found.path if found is not None else None


def choose(found: Discovery, names: Iterable[str]) -> tuple[Unit, ...]:
    """The units of these names, in this order. Raises UnknownUnit that lists those there are."""
    by_name = {unit.name: unit for unit in found.units}
    chosen = []
    for name in dict.fromkeys(names):
        if name not in by_name:
            close = nearest(name, by_name)
            known = ", ".join(sorted(by_name)) or "none: no container carries kopi.enable=true"
            raise UnknownUnit(
                f"there is no unit {name!r}",
                hint=(f"did you mean {close!r}? " if close else "") + f"units: {known}",
            )
        chosen.append(by_name[name])
    return tuple(chosen)


def repository_of(config: Config, info: EngineInfo | None, command: str) -> KopiaRepository:
    """The configured repository; the host's name is Docker's unless another is set or recorded."""
    return KopiaRepository(config, host=info.name if info else "", command=command)


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


@asynccontextmanager
async def changing(
    config: Config, where: Docker, command: str
) -> AsyncIterator[tuple[StateFolder, str]]:
    """The right to change something: run lock, own strays ended, interrupted runs replayed.

    In this order, which is that of the design's first promise, and before anything else that could
    fail. Raises BusyError at once when somebody else holds the run lock: that run is alive and
    nobody else touches anything.
    """
    state = StateFolder(config.state_dir)
    identity = await anyio.to_thread.run_sync(state.open)
    async with FileLock(state.run_lock, command=command).hold():
        await replay(where, state, identity)
        yield state, identity


async def replay(where: Docker, state: StateFolder, identity: str) -> None:
    """End our strays and bring back what interrupted runs left down; needs the run lock."""
    if ended := await end_strays(where.engine, identity):
        note(f"ended workers that an interrupted run left: {', '.join(ended)}")
    for replayed in await bring_all_back(where.engine, state.journals, SYSTEM):
        note(str(replayed))


def open_cache(folder: Path) -> None:
    """Make the cache folder, 0700. Raises ConfigError when it cannot be."""
    try:
        make_private(folder)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {folder} cannot be used: {error.strerror}",
            hint="run as root, or set KOPIWATCH_CACHE_DIR to a folder you may write to",
        ) from error


async def house(
    config: Config,
    where: Docker,
    command: str,
    listener: Listener,
    *,
    state: StateFolder,
    identity: str,
) -> House:
    """Everything a run needs, with the repository known to be ours; needs the run lock."""
    await anyio.to_thread.run_sync(open_cache, config.cache_dir)
    way = access_of(config, where, state, identity)
    repository = repository_of(config, where.info, command)
    await repository.ensure_connected()
    await repository.status()
    if await repository.ensure_policy(repository.host):
        note("wrote kopiwatch's policy to the repository")
    await settle(repository, state)
    owner = Owner(pid=os.getpid(), command=command, since=datetime.now(UTC))
    return House(
        engine=where.engine,
        info=where.info,
        repository=repository,
        access=way,
        state=state,
        host=repository.host,
        instance=config.instance,
        own=where.own_id,
        owner=msgspec.json.encode(owner).decode(),
        environment=environment(os.environ, home=Path("/")),
        repository_is_folder=repository_folder(config) is not None,
        listener=listener,
    )


async def settle(repository: KopiaRepository, state: StateFolder) -> None:
    """Make the verdicts of interrupted runs durable; needs the run lock."""
    for run in await settle_verdicts(repository, state.journals):
        note(f"run {run} was interrupted before its verdict: not a restore point")


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


async def unfinished(config: Config) -> frozenset[str]:
    """Runs of this state whose verdict is not durable: alive, or interrupted. Reads only."""
    journals = await readable(StateFolder(config.state_dir).journals)
    return frozenset(journal.run for journal in journals.values() if not journal.judged)


@asynccontextmanager
async def repository_changing(config: Config, command: str) -> AsyncIterator[KopiaRepository]:
    """The repository for a command that changes its connection, with the run lock held."""
    async with without_docker(config, command):
        info = None
        if not config.hostname:
            async with docker(config) as where:
                info = where.info
        yield repository_of(config, info, command)


@asynccontextmanager
async def without_docker(config: Config, command: str) -> AsyncIterator[StateFolder]:
    """The run lock for a command that needs Docker only if members are owed a start.

    A fresh machine restores files without any Docker on it, and so does one whose Docker is dead:
    what is owed stays on the books then, and is said.
    """
    state = StateFolder(config.state_dir)
    identity = await anyio.to_thread.run_sync(state.open)
    async with FileLock(state.run_lock, command=command).hold():
        journals = await readable(state.journals)
        if any(journal.members for journal in journals.values()):
            try:
                async with docker(config) as where:
                    await replay(where, state, identity)
            except EngineUnreachable as error:
                units = ", ".join(unit for unit, journal in journals.items() if journal.members)
                note(f"members of {units} are still down: {error.message}")
        yield state


def configuration() -> Config:
    """The configuration of this process. Raises ConfigError with every problem at once."""
    return load(os.environ)
