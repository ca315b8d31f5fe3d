"""Namespace access: the worker program in a private mount namespace of this host.

For plain local volumes and binds only: a volume with driver options is mounted by Docker while a
container uses it, and an empty folder otherwise, so it is refused here.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.abc
import anyio.to_thread
import msgspec
from anyio.streams.buffered import BufferedByteReceiveStream

from kopiwatch.backup.access import Places, Session, TreeEntry, WorkerPlan
from kopiwatch.backup.reach import unreachable
from kopiwatch.backup.stage import absent
from kopiwatch.backup.stray import RUN_VARIABLE, STATE_VARIABLE, end_marked
from kopiwatch.engine.port import Engine
from kopiwatch.errors import EngineError, RunError
from kopiwatch.task import unwrapped

PLACE = "/mnt/.kopiwatch"
WORKER_HINT = "set KOPIWATCH_WORKER_IMAGE to the kopiwatch image, whose workers reach every volume"
LINE_LIMIT = 64 * 1024 * 1024
GONE_SECONDS = 10.0


class HostPaths(msgspec.Struct, frozen=True):
    """Our own folders on this host. ``stage`` is an empty folder that serves as a mount point."""

    locks: Path
    cache: Path
    repository: Path | None
    stage: Path


class ProcessChannel:
    """The line protocol over a child process."""

    def __init__(self, process: anyio.abc.Process) -> None:
        assert process.stdin is not None  # noqa: S101 - pipes were asked for
        assert process.stdout is not None  # noqa: S101
        self._stdin = process.stdin
        self._lines = BufferedByteReceiveStream(process.stdout)
        self._errors = b""

    async def send(self, line: bytes) -> None:
        """Write one line."""
        try:
            await self._stdin.send(line + b"\n")
        except (anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
            raise EngineError("the worker is gone", tail=self.stderr()) from error

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield each line until the worker ends."""
        while True:
            try:
                yield await self._lines.receive_until(b"\n", LINE_LIMIT)
            except (anyio.IncompleteRead, anyio.BrokenResourceError, anyio.ClosedResourceError):
                return

    async def close(self) -> None:
        """Close standard input."""
        with contextlib.suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await self._stdin.aclose()

    def stderr(self) -> str:
        """The end of standard error so far."""
        return self._errors.decode(errors="replace")

    async def keep_errors(self, stream: anyio.abc.ByteReceiveStream) -> None:
        """Read standard error to its end, keeping the last 8 KiB."""
        async for block in stream:
            self._errors = (self._errors + block)[-8192:]


class NamespaceSession:
    """A worker process that runs."""

    def __init__(
        self, process: anyio.abc.Process, channel: ProcessChannel, mark: tuple[str, str]
    ) -> None:
        self._process = process
        self._mark = mark
        self.channel = channel

    async def destroy(self) -> None:
        """SIGKILL for all that carries our mark, until nothing is left of it.

        The worker is PID 1 of its own PID namespace: the kernel ends with it whatever is in there,
        an rclone that left its process group included.
        """
        try:
            await end_marked(self._mark)
        finally:
            # Not for what it is the parent of: that may hang in the kernel.
            with anyio.move_on_after(GONE_SECONDS):
                await self._process.wait()

    async def leave(self) -> None:
        """Ask it to leave, then make sure, cancelled or not. Raises EngineError if it cannot."""
        with anyio.CancelScope(shield=True):
            await self.channel.close()
            with anyio.move_on_after(GONE_SECONDS):
                await self._process.wait()
            await self.destroy()


class NamespaceAccess:
    """Starts worker processes on this host, for the state folder whose uuid is ``state``."""

    name = "namespace"

    def __init__(self, engine: Engine, *, state: str, paths: HostPaths, kopia: str) -> None:
        self._engine = engine
        self._state = state
        self._paths = paths
        self._kopia = kopia

    @property
    def places(self) -> Places:
        """Paths below the private ``/mnt``."""
        return Places(
            base=f"{PLACE}/run",
            cache=f"{PLACE}/cache",
            attributes=f"{PLACE}/attributes",
            locks=f"{PLACE}/locks",
            repository=f"{PLACE}/repository",
            kopia=f"{PLACE}/kopia",
        )

    def mark(self, plan: WorkerPlan) -> dict[str, str]:
        """What the environment of a worker and its Kopia carries, so that a sweep finds them."""
        return {RUN_VARIABLE: plan.run, STATE_VARIABLE: self._state}

    async def check(self, plan: WorkerPlan) -> None:
        """Root, unshare, an interpreter outside ``/mnt``, and sources that are plain folders."""
        if os.geteuid() != 0:
            raise self._refuse(
                plan, "reading volumes needs root", "run it as root, or " + WORKER_HINT
            )
        if shutil.which("unshare") is None:
            raise self._refuse(plan, "the program unshare is missing", "install util-linux")
        for path in (sys.executable, __file__):
            if await anyio.to_thread.run_sync(_below_mnt, path):
                raise self._refuse(
                    plan,
                    "kopiwatch is installed below /mnt, which a private namespace hides",
                    "install it elsewhere, or " + WORKER_HINT,
                )
        for entry in plan.entries:
            await self._host_path(plan, entry)
        for stage in plan.stages:
            if stage.kind == "path" and await unreachable(stage.source):
                raise absent(plan, stage)

    async def _host_path(self, plan: WorkerPlan, entry: TreeEntry) -> str:
        """The folder or file on this host that stands behind an entry."""
        if entry.kind == "path":
            path = entry.source
        else:
            volume = await self._engine.volume(entry.source)
            if volume is None:
                raise self._refuse(plan, f"volume {entry.source} does not exist any more", "")
            if volume.driver != "local" or volume.options:
                why = f"volume {volume.name} has driver options or a driver of its own"
                raise self._refuse(
                    plan, f"{why}, so its folder here is empty once its users stop", WORKER_HINT
                )
            path = volume.mountpoint
        if problem := await unreachable(path):
            raise self._refuse(
                plan,
                f"{path} cannot be read on this host: {problem}",
                "if Docker runs elsewhere or in a virtual machine, " + WORKER_HINT,
            )
        return path

    @staticmethod
    def _refuse(plan: WorkerPlan, why: str, hint: str) -> RunError:
        return RunError(f"unit {plan.unit}: {why}", phase="check", reason="access", hint=hint)

    @asynccontextmanager
    async def open(self, plan: WorkerPlan) -> AsyncIterator[Session]:
        """Start ``unshare`` and hand over the mount plan; on leaving everything is dead."""
        places = self.places
        mounts: list[dict[str, object]] = [
            _mount(str(self._paths.locks), places.locks, writable=True),
            _mount(str(self._paths.cache), places.cache, writable=True),
            _mount(plan.attributes, places.attributes, writable=True),
            _mount(self._kopia, places.kopia),
        ]
        if self._paths.repository is not None:
            mounts.append(_mount(str(self._paths.repository), places.repository, writable=True))
        for entry, target, writable in plan.mounts():
            mounts.append(_mount(await self._host_path(plan, entry), target, writable=writable))
        for beside in plan.besides:
            if not await unreachable(beside.host):
                mounts += [_mount(beside.host, beside.target) | {"optional": True}]
        order = {"stage": str(self._paths.stage), "mounts": mounts}
        program = Path(__file__).parent.parent / "worker" / "namespace.py"
        process = await anyio.open_process(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child=SIGKILL"),
                *(sys.executable, "-I", "-S", str(program)),
            ],
            env={"PATH": os.environ.get("PATH", os.defpath), **self.mark(plan)},
            start_new_session=True,
        )
        channel = ProcessChannel(process)
        session = NamespaceSession(process, channel, (RUN_VARIABLE, plan.run))
        with unwrapped():
            async with process, anyio.create_task_group() as tasks:
                assert process.stderr is not None  # noqa: S101 - a pipe was asked for
                tasks.start_soon(channel.keep_errors, process.stderr)
                try:
                    await channel.send(msgspec.json.encode(order))
                    yield session
                except BaseException as error:
                    try:
                        await session.leave()
                    except EngineError as second:
                        error.add_note(second.message)
                    raise
                else:
                    await session.leave()
                finally:
                    tasks.cancel_scope.cancel()


def _mount(source: str, target: str, *, writable: bool = False) -> dict[str, object]:
    return {"source": source, "target": target, "writable": writable}


def _below_mnt(path: str) -> bool:
    return Path("/mnt") in Path(path).resolve().parents
