"""Docker as one process sees it: who we are there, and the units on it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch.config import Config, nearest
from kopiwatch.engine.client import DockerEngine
from kopiwatch.engine.own import Inside, Own, host_source, whoami
from kopiwatch.engine.port import Engine, EngineInfo, Inspected
from kopiwatch.errors import ConfigError, UnknownUnit
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
async def engine(config: Config) -> AsyncIterator[Engine]:
    """A fresh connection to Docker for the length of a block."""
    async with await DockerEngine.connect(config.docker_url) as connected:
        yield connected


@asynccontextmanager
async def docker(config: Config) -> AsyncIterator[Docker]:
    """Connect to Docker for the length of a block."""
    async with engine(config) as connected:
        yield Docker(connected, await connected.info(), await whoami(connected))


async def look(config: Config, where: Docker) -> tuple[Discovery, tuple[Container, ...]]:
    """List all containers and turn their labels into units."""
    rows = await where.engine.containers()
    # In a thread: many labels take a while, and time zones are files.
    return await anyio.to_thread.run_sync(units_of, config, where.own, rows), rows


def units_of(config: Config, own: Own, rows: Iterable[Container]) -> Discovery:
    """The units among these containers, as this configuration means them."""
    return discover(
        rows,
        instance=config.instance,
        profiles=config.profiles,
        self_id=own.container.id if isinstance(own, Inside) else "",
        refused=RefusedPaths(refused_paths(config, own)),
        defaults=config.defaults,
    )


def require_units(found: Discovery, names: Iterable[str]) -> tuple[Unit, ...]:
    """The units of these names, all for none. Raises UnknownUnit; ConfigError if there is none."""
    wanted = tuple(names)
    chosen = choose(found, wanted) if wanted else found.units
    if not chosen:
        raise ConfigError(
            'no container carries kopi.enable: "true", so there is nothing to back up',
            hint="label a service, recreate its container, and see `kopiwatch units`",
        )
    return chosen


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
