"""The recipe: how to recreate the unit without its old host, and what its tree must contain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch import __version__
from kopiwatch.backup.dump.record import DumpRecord, records
from kopiwatch.backup.plausible import Terms
from kopiwatch.backup.state import StateFolder
from kopiwatch.durable import write_durably
from kopiwatch.engine.port import Engine, EngineInfo, Inspected
from kopiwatch.errors import RunError
from kopiwatch.kopia.folder import make_private
from kopiwatch.units.coverage import NOT_KEPT
from kopiwatch.units.unit import Coverage, Source, Unit

FORMAT = 1
FILE = "unit.json"
DEFAULT_NETWORKS = ("bridge", "host", "none")


class Recipe(msgspec.Struct, frozen=True):
    """What ``recipe/unit.json`` holds.

    ``expected`` lists the paths that a complete tree has. ``containers``, ``volumes`` and
    ``networks`` are Docker's own definitions as JSON objects (empty at scope ``minimal``). Secrets
    in the containers' environment are kept: the repository is encrypted, and a redacted recipe
    cannot recreate anything. ``plausibility`` is what the sources were held to,
    ``dumps`` how each dump was made and is fed back.
    """

    format: int
    kopiwatch: str
    unit: str
    run: str
    at: datetime
    host: str
    engine: str
    scope: str
    expected: tuple[str, ...]
    sources: tuple[Source, ...]
    coverage: tuple[Coverage, ...]
    warnings: tuple[str, ...] = ()
    plausibility: Terms = Terms()
    dumps: tuple[DumpRecord, ...] = ()
    containers: tuple[msgspec.Raw, ...] = ()
    volumes: tuple[msgspec.Raw, ...] = ()
    networks: tuple[msgspec.Raw, ...] = ()


async def write_recipe(
    engine: Engine,
    state: StateFolder,
    unit: Unit,
    *,
    run: str,
    at: datetime,
    host: str,
    info: EngineInfo,
    expected: tuple[str, ...],
    inspected: tuple[Inspected, ...],
    warnings: tuple[str, ...],
    plausibility: Terms,
) -> Path:
    """Write the unit's recipe to its staging folder and return that folder.

    Raises RunError when the disk does not take it, EngineError when Docker does not tell.
    """
    recipe = Recipe(
        format=FORMAT,
        kopiwatch=__version__,
        unit=unit.name,
        run=run,
        at=at,
        host=host,
        engine=info.id,
        scope=unit.settings.scope,
        expected=expected,
        sources=unit.sources,
        coverage=coverage_of(unit, inspected),
        warnings=warnings,
        plausibility=plausibility,
        dumps=records(unit),
    )
    if unit.settings.scope != "minimal":
        recipe = msgspec.structs.replace(
            recipe,
            containers=tuple(msgspec.Raw(i.definition) for i in inspected),
            volumes=await _volumes(engine, unit),
            networks=await _networks(engine, inspected),
        )
    folder = state.recipe(unit.name)
    content = msgspec.json.format(msgspec.json.encode(recipe), indent=1)
    try:
        await anyio.to_thread.run_sync(_write, folder, content)
    except OSError as error:
        raise RunError(
            f"unit {unit.name}: cannot write the recipe: {error.strerror}",
            phase="check",
            reason="recipe",
            hint=f"make room and check permissions in {folder}",
        ) from error
    return folder


def coverage_of(unit: Unit, inspected: Iterable[Inspected]) -> tuple[Coverage, ...]:
    """The fate of each mount, with those that only inspect tells of: what ``--tmpfs`` mounted."""
    listed = {(line.container, line.destination) for line in unit.coverage}
    hidden = (
        Coverage(seen.name, mount.destination, mount.kind, "not-supported", NOT_KEPT["tmpfs"])
        for seen in inspected
        for mount in seen.mounts
        if mount.kind == "tmpfs" and (seen.name, mount.destination) not in listed
    )
    return (*unit.coverage, *hidden)


def _write(folder: Path, content: bytes) -> None:
    make_private(folder)
    write_durably(folder / FILE, content)


async def _volumes(engine: Engine, unit: Unit) -> tuple[msgspec.Raw, ...]:
    names = sorted({source.volume for source in unit.sources if source.volume})
    found = [await engine.volume(name) for name in names]
    return tuple(msgspec.Raw(volume.definition) for volume in found if volume is not None)


async def _networks(engine: Engine, inspected: tuple[Inspected, ...]) -> tuple[msgspec.Raw, ...]:
    names = sorted({name for i in inspected for name in i.networks} - set(DEFAULT_NETWORKS))
    found = [await engine.network(name) for name in names]
    return tuple(msgspec.Raw(network) for network in found if network is not None)
