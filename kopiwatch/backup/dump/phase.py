"""The phase *dumps*: each database is dumped by its own client, while everything runs."""

from __future__ import annotations

import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path

import anyio
import anyio.to_thread

from kopiwatch.backup.course import Course
from kopiwatch.backup.dump.client import CLIENTS, dump_argv, kill_argv
from kopiwatch.backup.dump.file import LOOK, RESERVE_BYTES, DumpFile
from kopiwatch.backup.dump.password import password_of
from kopiwatch.backup.hook import CUT_CHARACTERS, shown
from kopiwatch.config import Secret
from kopiwatch.engine.port import Inspected
from kopiwatch.errors import EngineError, EngineUnreachable, KopiwatchError, RunError, StillRunning
from kopiwatch.kopia.failure import masker
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Snapshot
from kopiwatch.units.container import Container
from kopiwatch.units.dump import DumpSettings, places
from kopiwatch.units.unit import Unit
from kopiwatch.words import size

FOLDER = "dumps"
GROWTH = 1.2
"""A dump may be so much larger than the last one before the room is too small for it."""
STARTING_SECONDS = 5.0
"""A server that says that it is starting up is asked once more after this."""
KILL_TIMEOUT = timedelta(seconds=10)
TAIL_BYTES = 4096
_PID = re.compile(rb"\Akopiwatch-pid ([0-9]+)\n")


class Complaints:
    """The errors that a command prints: the end of them, and the PID that its first line holds.

    ``mask`` takes secrets out of them: they go into logs and the history.
    """

    def __init__(self, mask: Callable[[str], str] = str) -> None:
        self._mask = mask
        self._head = b""
        self._kept = bytearray()

    def add(self, piece: bytes) -> None:
        """More of it."""
        self._head = (self._head + piece)[:64] if len(self._head) < 64 else self._head
        self._kept += piece
        del self._kept[:-TAIL_BYTES]

    @property
    def pid(self) -> int | None:
        """The process inside the container, None while it has not said so."""
        found = _PID.match(self._head)
        return int(found[1]) if found else None

    @property
    def text(self) -> str:
        """What it said, without our own line, fit to be stored and shown."""
        words = bytes(self._kept)
        if len(words) == TAIL_BYTES:
            words = words.partition(b"\n")[2] or words[CUT_CHARACTERS:]  # half a secret may lead
        return shown(_PID.sub(b"", words).decode(errors="replace").strip(), self._mask)


class Dumps:
    """The dumps of one run of one unit. ``folder`` is for them alone, and gone after the run."""

    def __init__(
        self,
        course: Course,
        unit: Unit,
        *,
        environ: Mapping[str, str] = os.environ,
        reserve: int = RESERVE_BYTES,
    ) -> None:
        self._course = course
        self._unit = unit
        self._environ = environ
        self._reserve = reserve
        self._house = course.house
        self.folder = self._house.state.staging / unit.name / FOLDER
        self._asked: list[tuple[Container, DumpSettings]] = [
            (m.container, m.settings.dump) for m in unit.members if m.settings.dump is not None
        ]
        self._places = places(self._asked)
        self._passwords: dict[str, bytes] = {}

    @property
    def mount(self) -> str:
        """What the worker is to have at ``dumps``: our folder, or empty where nothing is dumped."""
        return str(self.folder) if self._asked else ""

    async def prepare(self, inspected: Iterable[Inspected], last: Snapshot | None) -> None:
        """In the phase *check*: members run, passwords are at hand, there is room.

        ``last`` is the last good restore point, whose dumps tell how much room it takes.
        """
        await self.clear()
        if not self._asked:
            return
        known = {each.id: each for each in inspected}
        for container, dump in self._asked:
            now = known[container.id]
            if not now.running or now.paused:
                state = "paused" if now.paused else "not running"
                raise self._refusal(
                    container,
                    dump,
                    f"is not possible: the container is {state}",
                    "dump-not-running",
                    f"start it, or take kopi.dump from {container.name}",
                    phase="check",
                )
            password, fault = await anyio.to_thread.run_sync(
                password_of, dump, self._environ, self._house.state.path
            )
            if fault:
                raise self._refusal(
                    *(container, dump, f"has no password: {fault}", "dump-password"),
                    "see kopi.dump.password_env and .password_file in labels.md",
                    phase="check",
                )
            self._passwords[container.id] = password
        expected = await dump_bytes(self._house.repository, last)
        await self._require_room(sum(expected.get(place, 0) for place in self._places.values()))

    async def take(self) -> None:
        """Dump one database after the other. Raises RunError for the first that is not whole."""
        if not self._asked:
            return
        with self._course.timed("dumps"):
            for container, dump in self._asked:
                began = self._house.clock.seconds()
                taken = await self._one(container, dump)
                seconds = self._house.clock.seconds() - began
                what = f"dumped {container.name} ({dump.engine}): {size(taken)} in {seconds:.1f} s"
                self._course.say("dump", what)

    async def clear(self) -> None:
        """Remove what is staged, finished or not."""
        await anyio.to_thread.run_sync(lambda: shutil.rmtree(self.folder, ignore_errors=True))

    async def _require_room(self, last: int) -> None:
        needed = int(last * GROWTH) + self._reserve
        try:
            await anyio.to_thread.run_sync(make_private, self.folder)
            status = await anyio.to_thread.run_sync(os.statvfs, self.folder)
        except OSError as error:
            raise RunError(
                f"unit {self._unit.name}: {self.folder} cannot be used: {error.strerror}",
                phase="check",
                reason="dump-space",
                hint="dumps are staged there; check its permissions and its disk",
            ) from error
        free = status.f_bavail * status.f_frsize
        if free < needed:
            raise RunError(
                f"unit {self._unit.name}: the disk of {self.folder} has {size(free)} free, and the "
                f"dumps of {self._names} need about {size(needed)}",
                phase="check",
                reason="dump-space",
                hint="make room there, or put KOPIWATCH_STATE_DIR on a larger disk",
            )

    @property
    def _names(self) -> str:
        return ", ".join(container.name for container, _ in self._asked)

    async def _one(self, container: Container, dump: DumpSettings) -> int:
        """Dump one database into its file; a server that is only starting up gets a second try."""
        name = self._places[container.id].removeprefix(f"{FOLDER}/")
        end = f"\nkopiwatch-end {secrets.token_hex(16)}\n"
        what = self._what(container, dump)
        file = DumpFile(self.folder / name, what, end.encode(), reserve=self._reserve)
        limit = self._house.clock.seconds() + dump.timeout.total_seconds()
        mask = self._mask(self._passwords[container.id])
        try:
            complaints = Complaints(mask)
            code = await self._attempt(
                container, dump, file, end=end, limit=limit, complaints=complaints
            )
            if code and any(word in complaints.text for word in CLIENTS[dump.engine].starting):
                await self._house.clock.sleep(STARTING_SECONDS)
                complaints = Complaints(mask)
                code = await self._attempt(
                    container, dump, file, end=end, limit=limit, complaints=complaints
                )
            if code:
                raise self._refusal(
                    *(container, dump, _ended(code, complaints.text), "dump-failed", LOOK),
                    tail=complaints.text,
                )
            await file.finish(CLIENTS[dump.engine].check)
            return file.size
        finally:
            with anyio.CancelScope(shield=True):
                await file.close()

    def _mask(self, password: bytes) -> Callable[[str], str]:
        """Takes our own secrets and this password out of a text: clients repeat what they got."""
        given = masker([Secret(password.decode("utf-8", "surrogateescape"))])
        return lambda text: given(self._house.mask(text))

    async def _attempt(
        self,
        container: Container,
        dump: DumpSettings,
        file: DumpFile,
        *,
        end: str,
        limit: float,
        complaints: Complaints,
    ) -> int:
        """Run it once; its exit code. However it is left, nothing of it runs on."""
        await file.open()
        password = self._passwords[container.id]
        try:
            return await self._house.engine.exec_stream(
                container.id,
                dump_argv(dump, end, with_password=bool(password)),
                out=file.take,
                err=complaints.add,
                stdin=password + b"\n" if password else b"",
                timeout=timedelta(seconds=max(1.0, limit - self._house.clock.seconds())),
            )
        except BaseException as error:
            await self._kill(container, complaints.pid)
            if isinstance(error, StillRunning):
                raise self._refusal(
                    container,
                    dump,
                    f"has not ended within {dump.timeout} (kopi.dump.timeout)",
                    "dump-timeout",
                    "see what holds it up inside the container, or give it more time",
                    tail=complaints.text,
                ) from error
            if isinstance(error, EngineError) and not isinstance(error, EngineUnreachable):
                raise self._refusal(
                    *(container, dump, f"was cut off: {error.message}", "dump-cut"),
                    error.hint or f"docker logs {container.name} shows whether it stopped",
                    tail=complaints.text,
                ) from error
            raise

    async def _kill(self, container: Container, pid: int | None) -> None:
        """End what still runs inside the member, as far as it can be reached."""
        if pid is None:
            return
        with anyio.CancelScope(shield=True), anyio.move_on_after(2 * KILL_TIMEOUT.total_seconds()):
            try:
                await self._house.engine.exec(container.id, kill_argv(pid), timeout=KILL_TIMEOUT)
            except KopiwatchError as error:
                self._course.say(
                    "dump", f"the dump of {container.name} may still run in it: {error.message}"
                )

    def _what(self, container: Container, dump: DumpSettings) -> str:
        return f"unit {self._unit.name}: the dump of {container.name} ({dump.engine})"

    def _refusal(
        self,
        container: Container,
        dump: DumpSettings,
        why: str,
        reason: str,
        hint: str,
        *,
        phase: str = "dumps",
        tail: str = "",
    ) -> RunError:
        what = self._what(container, dump)
        return RunError(f"{what} {why}", phase=phase, reason=reason, hint=hint, tail=tail)


def _ended(code: int, words: str) -> str:
    """Why a dump failed, in one line: its exit code and the last thing it said."""
    last = words.splitlines()[-1].strip()[:300] if words else ""
    why = f"failed with exit code {code}"
    if code == 137:
        why += " (killed: the container was stopped, or its memory ran out)"
    elif code in (126, 127) and not words.startswith("none of"):
        why += " (it needs a shell and the database's own client in the container)"
    return f"{why}: {last}" if last else why


async def dump_bytes(repository: Repository, snapshot: Snapshot | None) -> dict[str, int]:
    """The size of each dump in a restore point, by path. Raises RepositoryError."""
    root = snapshot.root_entry.obj if snapshot and snapshot.root_entry else ""
    if not root:
        return {}
    for entry in (await repository.directory(root)).entries:
        if entry.name == FOLDER and entry.type == "d":
            inner = await repository.directory(entry.obj)
            return {f"{FOLDER}/{child.name}": child.size for child in inner.entries}
    return {}


def sweep(staging: Path) -> None:
    """Remove the dumps that runs left which were killed; needs the run lock. Never raises."""
    for folder in staging.glob(f"*/{FOLDER}"):
        shutil.rmtree(folder, ignore_errors=True)
