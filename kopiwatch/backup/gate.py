"""Kopia at the gate, seen from the run: set up, ready, go, read, flush, exit, or kill."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

import anyio
import msgspec
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from kopiwatch.backup.access import Session
from kopiwatch.backup.survey import Survey, SurveyOrder
from kopiwatch.errors import BusyError, EngineError, EngineUnreachable, RunError
from kopiwatch.kopia.port import WorkerFiles
from kopiwatch.task import deadline, unwrapped
from kopiwatch.words import size

PROTOCOL = 3
CONFIG_NAME = "repository.config"
PASSWORD_NAME = "repository.config.kopia-password"  # noqa: S105 - a file's name
ERRANDS = ("surveyed",)
"""Words of work that goes on beside the orders: they may come at any time."""
KILL_SECONDS = 10.0
DESTROY_SECONDS = 20.0


class Said(msgspec.Struct, frozen=True):
    """One line that the worker said. ``at`` is seconds since the epoch, by the worker's clock."""

    say: Literal[
        "hello",
        "alive",
        "set-up",
        "surveyed",
        "synced",
        "probed",
        "pre-staged",
        "staged",
        "unstaged",
        "dropped",
        "ready",
        "read",
        "exit",
        "error",
        "gate",
        "files",
    ]
    at: float = 0.0
    reason: str = ""
    text: str = ""
    code: int | None = None
    killed: bool = False
    remains: bool = False
    out: str = ""
    err: str = ""
    protocol: int = 0
    volatile: tuple[str, ...] = ()
    result: msgspec.Raw = msgspec.Raw(b"null")


class SetUp(msgspec.Struct, frozen=True):
    """What the worker needs before Kopia can start. ``owner`` is the text for the Kopia lock.

    ``expect`` are all paths of the tree, ``sources`` those of the unit's own data.
    """

    base: str
    files: WorkerFiles
    expect: tuple[str, ...]
    sources: tuple[str, ...]
    probe: tuple[str, ...]
    lock: str
    owner: str


class Launch(msgspec.Struct, frozen=True):
    """Kopia's argv (program first) and its whole environment."""

    argv: tuple[str, ...]
    env: dict[str, str]


class Dropped(msgspec.Struct, frozen=True):
    """Why the worker deleted a stage: the bytes that it found free, and those that must be."""

    free: int = 0
    reserve: int = 0


class GatedKopia:
    """Drives one Kopia through its gate. Each step raises RunError with a reason of its own.

    ``remains`` says what a :meth:`kill` could not get rid of; empty for nothing. ``lost`` says that
    it may even live on: what it stores later must not count. ``dropped`` says that the worker has
    given up its stage for want of room, in words; empty while it has not.
    """

    def __init__(self, unit: str, session: Session, heard: MemoryObjectReceiveStream[Said]) -> None:
        self._unit = unit
        self._session = session
        self._heard = heard
        self._running = False
        self._errands: dict[str, Said] = {}
        self.remains = ""
        self.lost = False
        self.dropped = ""

    async def listen(self, send: MemoryObjectSendStream[Said]) -> None:
        """Pass on what the worker says, until it ends."""
        async with send:
            async for line in self._session.channel.lines():
                try:
                    said = msgspec.json.decode(line, type=Said)
                except msgspec.MsgspecError as error:
                    said = Said("error", reason="protocol", text=f"strange words: {error}")
                if said.say != "alive":
                    await send.send(said)

    async def _next(self, phase: str) -> Said:
        """The next word, but for those of errands, which come in between: they are put by."""
        while (said := await self._receive(phase)).say in ERRANDS:
            self._errands[said.say] = said
        return said

    async def _errand(self, word: str, phase: str) -> Said:
        """The word of an errand, heard already or still to come."""
        while word not in self._errands:
            said = await self._receive(phase)
            if said.say not in ERRANDS:
                raise self._left(said, phase)
            self._errands[said.say] = said
        return self._errands.pop(word)

    def _left(self, said: Said, phase: str) -> RunError:
        return RunError(
            f"unit {self._unit}: Kopia left its gate: {said.text or said.err or said.say}",
            phase=phase,
            reason="gate",
        )

    async def _receive(self, phase: str) -> Said:
        try:
            while (said := await self._heard.receive()).say == "dropped":
                self._note_dropped(said)
        except anyio.EndOfStream as error:
            raise self._lost(phase) from error
        if said.say == "exit":
            self._running = False
        if said.say == "error":
            if said.reason == "busy":
                raise BusyError(f"another Kopia is at work: {said.text}")
            raise RunError(
                f"unit {self._unit}: {said.text}",
                phase=phase,
                reason=f"worker-{said.reason}",
                hint=_HINTS.get(said.reason, ""),
            )
        return said

    def _note_dropped(self, said: Said) -> None:
        told = msgspec.json.decode(said.result, type=Dropped)
        self.dropped = (
            f"only {size(told.free)} were free on its file system, and applications need that room"
        )

    async def ask(self, do: str, phase: str, wanted: str, **fields: object) -> msgspec.Raw:
        """Give an order and wait for its answer ``wanted``; its result. Raises RunError."""
        await self._order(do, phase, **fields)
        said = await self._next(phase)
        if said.say != wanted:
            raise self._left(said, phase)
        return said.result

    async def _order(self, do: str, phase: str, **fields: object) -> None:
        try:
            await self._session.channel.send(msgspec.json.encode({"do": do, **fields}))
        except EngineUnreachable:
            raise
        except EngineError as error:
            raise self._lost(phase) from error

    def _lost(self, phase: str) -> RunError:
        # Silence is no proof of death: a Kopia that was launched still counts as running.
        return RunError(
            f"unit {self._unit}: the worker ended without a word",
            phase=phase,
            reason="worker-lost",
            tail=self._session.channel.stderr(),
        )

    async def set_up(self, set_up: SetUp) -> tuple[str, ...]:
        """Hand over the secrets; the worker proves its mounts and takes the Kopia lock.

        Returns those of the expected paths that lie in memory, as a tmpfs does.
        """
        hello = await self._next("check")
        if hello.say != "hello" or hello.protocol != PROTOCOL:
            raise RunError(
                f"unit {self._unit}: the worker speaks protocol {hello.protocol}, not {PROTOCOL}",
                phase="check",
                reason="worker",
                hint="the worker image must be of this kopiwatch's version",
            )
        files = {CONFIG_NAME: set_up.files.config, PASSWORD_NAME: set_up.files.password}
        await self._order(
            "set-up",
            "check",
            base=set_up.base,
            files={name: base64.b64encode(data).decode() for name, data in files.items()},
            expect=set_up.expect,
            sources=set_up.sources,
            probe=set_up.probe,
            lock=set_up.lock,
            owner=set_up.owner,
        )
        return (await self._next("check")).volatile

    async def sync(self, paths: tuple[str, ...], phase: str) -> None:
        """Let the kernel write what it holds of these paths' file systems."""
        await self.ask("sync", phase, "synced", paths=paths)

    async def begin_survey(self, order: SurveyOrder) -> None:
        """Let the worker walk the sources while other things are done; see :meth:`surveyed`."""
        await self._order("survey", "ready", **msgspec.structs.asdict(order))

    async def surveyed(self) -> Survey:
        """Wait for the end of the walk: the lists are written, and these are its figures."""
        said = await self._errand("surveyed", "ready")
        try:
            return msgspec.json.decode(said.result, type=Survey)
        except msgspec.MsgspecError as error:
            raise RunError(
                f"unit {self._unit}: strange words of the worker: {error}",
                phase="ready",
                reason="worker-protocol",
                hint=_HINTS["protocol"],
            ) from error

    async def files(self, **order: object) -> bytes:
        """Let the worker read files of Docker's host; what it found, as JSON."""
        return bytes(await self.ask("files", "check", "files", **order))

    async def launch(self, launch: Launch) -> Said:
        """Start Kopia and wait until it stands at the gate, or has ended (``exit``)."""
        self._running = True
        await self._order("launch", "ready", argv=launch.argv, env=launch.env)
        return await self._next("ready")

    async def warm(self, launch: Launch) -> Said:
        """Run a Kopia that knows no gate to its end (``exit``): the hot pass."""
        self._running = True
        await self._order("launch", "hot", argv=launch.argv, env=launch.env)
        return await self._next("hot")

    def check_waiting(self, phase: str = "ready") -> None:
        """Raise RunError if Kopia has said something since ``ready``: then it waits no more.

        That a stage was dropped is no word of Kopia's; :attr:`dropped` knows it then.
        """
        try:
            while (said := self._heard.receive_nowait()).say == "dropped":
                self._note_dropped(said)
        except anyio.WouldBlock:
            return
        except anyio.EndOfStream as error:
            raise self._lost(phase) from error
        raise self._left(said, phase)

    async def read(self) -> Said:
        """Open the gate and wait until everything is read, or Kopia has ended (``exit``)."""
        await self._order("go", "read")
        return await self._next("read")

    async def read_staged(self, root: str) -> None:
        """Open the gate for a stage; what follows is all for :meth:`finish`.

        Raises RunError if the stage was dropped while Kopia stood at its gate: nobody killed it
        then, and it would take what is left for the whole. The worker refuses that, too.
        """
        self.check_waiting("flush")
        if self.dropped:
            raise self._stage_dropped("before it was read")
        await self._order("go", "flush", path=root, stage=True)

    async def flush(self) -> None:
        """Let Kopia write the rest and the manifest, now that the containers are up again."""
        await self._order("flush", "flush")

    async def finish(self) -> Said:
        """Wait for Kopia's end."""
        said = await self._next("flush")
        while said.say != "exit":
            if said.say == "read":
                await self.flush()  # a stage is read when nobody is down any more
            said = await self._next("flush")
        if said.killed and not self.dropped:
            await self._why_killed()
        if said.killed and self.dropped:
            raise self._stage_dropped("while it was read")
        return said

    def _stage_dropped(self, when: str) -> RunError:
        return RunError(
            f"unit {self._unit}: its stage was dropped {when}: {self.dropped}",
            phase="flush",
            reason="stage-dropped",
            hint=_HINTS["dropped"],
        )

    async def _why_killed(self) -> None:
        """Wait for what the worker says right after it has killed Kopia by itself."""
        with anyio.move_on_after(KILL_SECONDS):
            async for said in self._heard:
                if said.say == "dropped":
                    self._note_dropped(said)
                    return

    async def kill(self) -> None:
        """SIGKILL, confirmed: on return no Kopia of this worker writes any more.

        A worker that does not confirm within 10 s is destroyed with all that it started, for which
        it has 20 s: containers that are down wait for this. Never raises an error of ours: what is
        left then hangs in the kernel on a dead disk, and ``remains`` says so.
        """
        if not self._running:
            return
        self._running = False
        with anyio.move_on_after(KILL_SECONDS):
            if await self._confirmed():
                return
        try:
            with deadline(DESTROY_SECONDS, lambda: EngineError("it does not end on SIGKILL")):
                await self._session.destroy()
        except EngineError as error:
            self.remains = f"the worker of this run is left behind: {error.message}"
            self.lost = True

    async def _confirmed(self) -> bool:
        """Order the kill and wait for its confirmation; False when the worker is gone."""
        try:
            await self._order("kill", "read")
            while (said := await self._heard.receive()).say != "exit":
                pass
        except (RunError, EngineError, anyio.EndOfStream, anyio.ClosedResourceError):
            return False
        if said.remains:
            self.remains = (
                f"Kopia was killed, but hangs on a dead disk or network mount ({REMAINS})"
            )
        return True


REMAINS = "its worker is left behind until that answers"
_HINTS = {
    "stuck": "a disk or network mount below a source does not answer; see `dmesg` on the host",
    "probe": "check owner and permissions of that folder, and free space on its disk",
    "missing": "a source vanished while the worker started; see `docker ps` and `docker volume ls`",
    "no-data": "leave that bind mount out: name its destination in kopi.exclude",
    "own": "the path leads to the backups by a symbolic link; leave it out with kopi.exclude",
    "attributes": "make room on the disk of the state folder, and see that it can be written",
    "dropped": "make room there, or use kopi.strategy=gate",
    "launch": "the worker image must hold Kopia",
    "protocol": "the worker image must be of this kopiwatch's version",
    "mount": "namespace access needs root with CAP_SYS_ADMIN; or set KOPIWATCH_WORKER_IMAGE",
}


@asynccontextmanager
async def gated(unit: str, session: Session) -> AsyncIterator[GatedKopia]:
    """A :class:`GatedKopia` that listens while the block runs."""
    send, heard = anyio.create_memory_object_stream[Said](64)
    kopia = GatedKopia(unit, session, heard)
    with heard, send, unwrapped():
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kopia.listen, send)
            yield kopia
            tasks.cancel_scope.cancel()
