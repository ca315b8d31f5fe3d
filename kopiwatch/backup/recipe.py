"""The recipe: how to recreate the unit without its old host, and what its tree must contain."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import partial
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch import __version__
from kopiwatch.backup.compose.collect import Collector, Look, ProjectFiles, Rules, hosts_of
from kopiwatch.backup.compose.project import Project
from kopiwatch.backup.docker_files import HOSTS as DOCKER_HOSTS
from kopiwatch.backup.docker_files import DockerConfiguration, collect_docker
from kopiwatch.backup.dump.record import DumpRecord, records
from kopiwatch.backup.kept import complaints, store
from kopiwatch.backup.plausible import Terms
from kopiwatch.backup.redact import redact_json
from kopiwatch.backup.state import StateFolder
from kopiwatch.durable import write_durably
from kopiwatch.engine.port import Engine, EngineInfo, Image, Inspected
from kopiwatch.errors import RunError
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.tree import ATTRIBUTES
from kopiwatch.task import together
from kopiwatch.units.coverage import NOT_KEPT
from kopiwatch.units.unit import Coverage, Source, Unit

FORMAT = 1
FILE = "unit.json"
DEFAULT_NETWORKS = ("bridge", "host", "none")


class ContainerImage(msgspec.Struct, frozen=True):
    """What a container was made from: ``reference`` as it was asked for, and the image itself.

    ``image`` is None when Docker has it no more. One without digests came from no registry.
    """

    container: str
    reference: str
    image: Image | None


class Recipe(msgspec.Struct, frozen=True):
    """What ``recipe/unit.json`` holds.

    ``expected`` lists the paths that a complete tree has. ``containers``, ``volumes`` and
    ``networks`` are Docker's own definitions as JSON objects, ``images`` what the containers were
    made from, ``compose`` the projects with the copies of their files (all empty at scope
    ``minimal``); ``docker`` is the daemon's own configuration (scope ``full`` only). Secrets are
    kept, because the repository is encrypted; a ``redacted`` recipe cannot recreate anything.
    ``plausibility`` is what the sources were held to, ``dumps`` how each dump was made and is fed
    back.
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
    images: tuple[ContainerImage, ...] = ()
    redacted: bool = False
    compose: tuple[ProjectFiles, ...] = ()
    docker: DockerConfiguration | None = None


class Draft(msgspec.Struct, frozen=True):
    """A recipe without the files of the host, as it stands in ``folder``."""

    folder: Path
    recipe: Recipe


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
    redact: bool = False,
    more: bool = False,
) -> Draft:
    """Write the unit's recipe to its staging folder, without what only a worker can read.

    ``more`` says that such comes later: until then the copies of the last run stay.

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
        redacted=redact,
        dumps=records(unit),
    )
    if unit.settings.scope != "minimal":
        recipe = msgspec.structs.replace(
            recipe,
            containers=_raw((i.definition for i in inspected), redact=redact),
            volumes=_raw(await _volumes(engine, inspected), redact=redact),
            networks=_raw(await _networks(engine, inspected), redact=redact),
            images=await _images(engine, inspected),
        )
    draft = Draft(state.recipe(unit.name), recipe)
    await _store(draft, {}, "check", whole=not more)
    return draft


async def complete_recipe(
    engine: Engine, draft: Draft, projects: tuple[Project, ...], look: Look, rules: Rules
) -> tuple[str, ...]:
    """Add what a worker reads of the host: the projects' files, and Docker's own at ``full``.

    Returns what is missing, in sentences: nothing of it ends the run. Raises RunError when the
    disk does not take it or the worker is lost, EngineError when Docker does not tell.
    """
    recipe = draft.recipe
    found: list[ProjectFiles] = []
    copies: dict[str, bytes] = {}
    missing: list[str] = []
    for project in projects:
        collector = Collector(project, look, rules)
        files = await collector.collect()
        found.append(files)
        copies |= collector.copies
        missing += complaints(project.name, files.left_out)
    docker = None
    if recipe.scope == "full":
        docker, more = await collect_docker(look, await engine.daemon(), rules)
        copies |= more
        missing += complaints("", docker.left_out)
    recipe = msgspec.structs.replace(
        recipe,
        compose=tuple(found),
        docker=docker,
        warnings=(*recipe.warnings, *missing),
    )
    await _store(Draft(draft.folder, recipe), copies, "check", whole=True)
    return tuple(missing)


def hosts_wanted(unit: Unit, projects: tuple[Project, ...], rules: Rules) -> tuple[str, ...]:
    """The folders and files of the host that the recipe of this unit is read from."""
    if unit.settings.scope == "minimal":
        return ()
    docker = DOCKER_HOSTS if unit.settings.scope == "full" else ()
    return (*(host for project in projects for host in hosts_of(project, rules)), *docker)


async def _store(draft: Draft, copies: dict[str, bytes], phase: str, *, whole: bool) -> None:
    content = msgspec.json.format(msgspec.json.encode(draft.recipe), indent=1)
    try:
        await anyio.to_thread.run_sync(_write, draft.folder, content, copies if whole else None)
    except OSError as error:
        raise RunError(
            f"unit {draft.recipe.unit}: cannot write the recipe: {error.strerror}",
            phase=phase,
            reason="recipe",
            hint=f"make room and check permissions in {draft.folder}",
        ) from error


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


def _write(folder: Path, content: bytes, copies: dict[str, bytes] | None) -> None:
    make_private(folder / ATTRIBUTES)
    if copies is not None:
        store(folder, copies)
    write_durably(folder / FILE, content)


def _raw(definitions: Iterable[bytes], *, redact: bool) -> tuple[msgspec.Raw, ...]:
    return tuple(msgspec.Raw(redact_json(each) if redact else each) for each in definitions)


async def _volumes(engine: Engine, inspected: tuple[Inspected, ...]) -> list[bytes]:
    """All that the members mount, backed up or not: they must be made again alike."""
    names = sorted({m.volume for i in inspected for m in i.mounts if m.volume})
    found = await together([partial(engine.volume, name) for name in names])
    return [volume.definition for volume in found if volume is not None]


async def _networks(engine: Engine, inspected: tuple[Inspected, ...]) -> list[bytes]:
    names = sorted({name for i in inspected for name in i.networks} - set(DEFAULT_NETWORKS))
    found = await together([partial(engine.network, name) for name in names])
    return [network for network in found if network is not None]


async def _images(engine: Engine, inspected: tuple[Inspected, ...]) -> tuple[ContainerImage, ...]:
    """By their ids: the name may be another image's by now."""
    identities = sorted({i.image_id for i in inspected})
    found = await together([partial(engine.image, identity) for identity in identities])
    images = dict(zip(identities, found, strict=True))
    return tuple(ContainerImage(i.name, i.image, images[i.image_id]) for i in inspected)
