"""Worker access: a short-lived container of our own image reaches every kind of volume.

The recipe, with each trap, is measured on Docker 20.10 (API 1.41): ``Mounts`` and never ``Binds``,
no copy-up, no ``VolumesFrom``, line protocol on attached standard input.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import msgspec

from kopiwatch.backup.access import Beside, Places, Session, TreeEntry, WorkerPlan
from kopiwatch.backup.stage import absent_stage
from kopiwatch.engine.port import Channel, Engine, WorkerMount, WorkerSpec
from kopiwatch.errors import EngineError, EngineUnreachable, ImageMissing, RunError
from kopiwatch.units.container import STATE_LABEL, WORKER_LABEL

ENTRYPOINT = ("python3", "-I", "-S", "/usr/local/lib/kopiwatch/kopiwatch/worker")
PLACE = "/kopiwatch"
CAPABILITIES = ("DAC_READ_SEARCH",)
STAGE_CAPABILITIES = (*CAPABILITIES, "DAC_OVERRIDE", "CHOWN", "FOWNER", "FSETID")
"""A stage is written with the owners and modes of its sources, setuid and setgid included."""


class OwnFolders(msgspec.Struct, frozen=True):
    """The folders that workers share with us, as Docker's host knows them.

    ``staging`` is the folder below which recipes lie. ``repository`` is None where the repository
    is not a folder of this host.
    """

    locks: str
    staging: str
    cache: str
    repository: str | None
    staging_here: Path


class WorkerSession:
    """A worker container that runs."""

    def __init__(self, engine: Engine, name: str, channel: Channel) -> None:
        self._engine = engine
        self._name = name
        self.channel = channel

    async def destroy(self) -> None:
        """Remove the container by force; Docker answers when its processes are gone."""
        await self._engine.remove_worker(self._name)


class WorkerAccess:
    """Starts worker containers from ``image`` for the state folder whose uuid is ``state``."""

    name = "worker"

    def __init__(
        self, engine: Engine, *, image: str, state: str, network: str, folders: OwnFolders
    ) -> None:
        self._engine = engine
        self._image = image
        self._state = state
        self._network = network
        self._folders = folders

    @property
    def places(self) -> Places:
        """Fixed paths inside the worker."""
        return Places(
            base="/run/kopiwatch",
            cache=f"{PLACE}/cache",
            attributes=f"{PLACE}/attributes",
            locks=f"{PLACE}/locks",
            repository=f"{PLACE}/repository",
            kopia="kopia",
        )

    def mark(self, plan: WorkerPlan) -> dict[str, str]:  # noqa: ARG002 - the port's signature
        """Nothing: the container's labels are the mark."""
        return {}

    async def check(self, plan: WorkerPlan) -> None:
        """The image is here and every volume exists (else Docker would create it, empty)."""
        await self._engine.image_id(self._image)
        for entry in plan.entries:
            if entry.kind == "volume" and await self._engine.volume(entry.source) is None:
                raise RunError(
                    f"unit {plan.unit}: volume {entry.source} does not exist any more",
                    phase="check",
                    reason="source-missing",
                    hint="recreate the containers of the unit, so that they no longer name it",
                )

    @asynccontextmanager
    async def open(self, plan: WorkerPlan) -> AsyncIterator[Session]:
        """Create, attach, start; force-remove on leaving."""
        spec = WorkerSpec(
            name=f"kopiwatch-worker-{plan.unit}-{plan.run}".lower(),
            image=await self._engine.image_id(self._image),
            entrypoint=ENTRYPOINT,
            labels={WORKER_LABEL: plan.run, STATE_LABEL: self._state},
            mounts=tuple(self._mounts(plan)),
            network=self._network,
            capabilities=STAGE_CAPABILITIES if plan.stages else CAPABILITIES,
        )
        try:
            async with AsyncExitStack() as stack:
                name, channel = await self._start(stack, spec, plan.besides)
                yield WorkerSession(self._engine, name, channel)
        except EngineError as error:
            if absent := absent_stage(plan, error):
                raise absent from error
            raise

    async def _start(
        self, stack: AsyncExitStack, spec: WorkerSpec, besides: tuple[Beside, ...]
    ) -> tuple[str, Channel]:
        """Start the worker, without those besides that Docker does not mount. Its name, channel.

        Docker names the one that is not there; for any other refusal all of them go. The name is
        another each time: an attempt that Docker has not answered may still become a container.
        """
        attempt = 0
        while True:
            tried = msgspec.structs.replace(
                spec,
                name=f"{spec.name}-{attempt}" if attempt else spec.name,
                mounts=(*spec.mounts, *(WorkerMount("bind", b.host, b.target) for b in besides)),
            )
            try:
                return tried.name, await stack.enter_async_context(self._engine.worker(tried))
            except (EngineUnreachable, ImageMissing):
                raise
            except EngineError as error:
                if not besides:
                    raise
                named = f"{error.message} "
                there = tuple(b for b in besides if f" {b.host} " not in named)
                besides = there if len(there) < len(besides) else ()
                attempt += 1

    def _mounts(self, plan: WorkerPlan) -> list[WorkerMount]:
        folders = self._folders
        places = self.places
        own = [
            (folders.locks, places.locks),
            (folders.cache, places.cache),
            (self._staged(plan.attributes), places.attributes),
        ]
        if folders.repository is not None:
            own.append((folders.repository, places.repository))
        mounts = [WorkerMount("bind", source, target, writable=True) for source, target in own]
        return mounts + [self._mount(*mount) for mount in plan.mounts()]

    def _mount(self, entry: TreeEntry, target: str, writable: bool) -> WorkerMount:
        if entry.kind == "volume":
            return WorkerMount("volume", entry.source, target, writable=writable)
        source = self._staged(entry.source) if entry.own else entry.source
        return WorkerMount("bind", source, target, writable=writable)

    def _staged(self, path: str) -> str:
        """A path of ours below the staging folder, as Docker's host knows it."""
        below = Path(path).relative_to(self._folders.staging_here)
        return f"{self._folders.staging}/{below}"
