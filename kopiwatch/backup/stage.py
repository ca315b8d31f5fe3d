"""Where a stage can be made: our own volume beside Docker's, and folders that the operator names.

A clone lies on the file system of what it is a clone of. Docker's local volumes share one, so a
volume of ours is next to them; binds and volumes on other disks need a folder there, which only
the operator can name. The volume is made before the worker, holds nothing before or after the run,
and is removed with it: by whoever comes next where the run dies.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import anyio
import msgspec

from kopiwatch.backup.access import StagePlace, WorkerPlan
from kopiwatch.backup.house import House
from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineError, RunError
from kopiwatch.units.container import STAGE_LABEL, STATE_LABEL, Container
from kopiwatch.units.coverage import writes_to
from kopiwatch.units.setting import Strategy
from kopiwatch.units.unit import Unit

PLACE = "/mnt/.stage"
NO_REFLINKS = ("extfs", "tmpfs", "overlayfs", "zfs")
"""What Docker calls the file systems that it is of no use to try: overlayfs as it is in a
container, where an upper layer is no file system of its own, and zfs, which clones blocks only with
options that nobody can see from here."""
REMOVE_SECONDS = 60.0


def volume_name(unit: str, instance: str) -> str:
    """The name of a unit's stage volume."""
    return (
        f"kopiwatch-stage-{unit}" if instance == "default" else f"kopiwatch-stage-{instance}-{unit}"
    )


def places(unit: Unit, house: House, root: str) -> tuple[StagePlace, ...]:
    """Where this unit's stage may be made; ``root`` is that of its tree, below ``/mnt``.

    ``auto`` goes without our volume where Docker says that reflinks are out of the question.
    """
    label: Strategy = unit.settings.strategy
    if label in ("gate", "hot"):
        return ()
    below = root.removeprefix("/mnt/")
    found = []
    if label != "auto" or house.info.backing not in NO_REFLINKS:
        name = volume_name(unit.name, house.instance)
        found.append(StagePlace(name, "volume", name, f"{PLACE}/0", f"{PLACE}/0/{below}", own=True))
    for number, path in enumerate(house.stage_paths, 1):
        mount = f"{PLACE}/{number}"
        found.append(StagePlace(str(path), "path", str(path), mount, f"{mount}/{below}"))
    return tuple(found)


def written(unit: Unit, rows: Iterable[Container], mountpoints: dict[str, str]) -> frozenset[str]:
    """Paths of the sources that some container of this host, running or not, mounts writable."""
    mounts = [mount for row in rows if not row.worker for mount in row.mounts]
    return frozenset(
        source.path
        for source in unit.sources
        if any(writes_to(m, source, mountpoints.get(source.volume, "")) for m in mounts)
    )


@asynccontextmanager
async def staged(house: House, plan: WorkerPlan, trouble: list[str]) -> AsyncIterator[WorkerPlan]:
    """Our stage volume for the length of a block, if the plan asks for one.

    Gives the plan as it can be had: without our volume where Docker refuses to make it. ``trouble``
    takes that, and a volume that cannot be removed, which the next command tries again.
    """
    own = [stage for stage in plan.stages if stage.own]
    made: list[str] = []
    try:
        for stage in own:
            try:
                await _create(house, stage.source, plan.unit)
                made.append(stage.source)
            except EngineError as error:
                hint = f" ({error.hint})" if error.hint else ""
                trouble.append(f"no stage: {error.message}{hint}")
        kept = tuple(stage for stage in plan.stages if not stage.own or stage.source in made)
        yield msgspec.structs.replace(plan, stages=kept)
    finally:
        with anyio.CancelScope(shield=True), anyio.move_on_after(REMOVE_SECONDS):
            for name in made:
                try:
                    await house.engine.remove_stage(name)
                except EngineError as error:
                    trouble.append(f"{error.message}; the next command tries again")


async def _create(house: House, name: str, unit: str) -> None:
    labels = {STAGE_LABEL: unit, STATE_LABEL: house.identity}
    with anyio.CancelScope(shield=True):  # a cancelled create would leave one behind
        await house.engine.create_stage(name, labels)


class Swept(msgspec.Struct, frozen=True):
    """The stages that were removed, and why others could not be."""

    removed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What was removed, for people."""
        return ", ".join(self.removed)


async def sweep(engine: Engine, state: str) -> Swept:
    """Remove the stages that interrupted runs of this state folder left; needs the run lock.

    Never raises an error of Docker's: it is no reason to do anything else later.
    """
    removed: list[str] = []
    left: list[str] = []
    try:
        names = await engine.stages(state)
    except EngineError as error:
        return Swept(left=(error.message,))
    for name in names:
        try:
            await engine.remove_stage(name)
            removed.append(name)
        except EngineError as error:
            left.append(error.message)
    return Swept(tuple(removed), tuple(left))


def absent_stage(plan: WorkerPlan, error: EngineError) -> RunError | None:
    """What Docker's error says in better words, where a folder for stages is what is missing."""
    for stage in plan.stages:
        if stage.kind == "path" and error.message.endswith(f"no {stage.source} on Docker's host"):
            return absent(plan, stage)
    return None


def absent(plan: WorkerPlan, stage: StagePlace) -> RunError:
    """The operator names a folder that is not there."""
    return RunError(
        f"unit {plan.unit}: KOPIWATCH_STAGE_PATHS names {stage.source}, which is not on Docker's "
        "host",
        phase="check",
        reason="stage-path",
        hint="create that folder there, or take it out of the setting",
    )
