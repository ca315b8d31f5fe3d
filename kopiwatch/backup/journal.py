"""The journal: what we hold down and have not yet brought back, one file per unit.

It is on disk before the first stop (design, promise 1), and a run's entry stays until its members
run again and its verdict is durable in the repository. Whoever holds the run lock replays it.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from kopiwatch.durable import remove_durably, write_durably
from kopiwatch.errors import ConfigError, RunError
from kopiwatch.units.order import How


class Held(msgspec.Struct, frozen=True):
    """One member that ran before and that we hold: stopped or paused, as ``how`` says.

    ``project``, ``service`` and ``number`` are its Compose identity, empty for stand-alone
    containers: they find its successor if somebody recreates it meanwhile. ``level`` is its place
    in the order of starts, 0 first. ``await_healthy`` names ids that must be healthy before it
    starts. ``healthy_before`` says whether its health check passed; only then it must pass again.
    ``start_timeout`` and ``stop_timeout`` (after which Docker kills it) are seconds. ``started_at``
    (UTC) is since when it ran as we held it: another time means that somebody took over, unless its
    restart policy started it since, which shows in a count higher than ``restarts``. ``shaky`` says
    that it restarted over and over before, so that it need not run on afterwards.
    """

    id: str
    name: str
    project: str
    service: str
    number: str
    how: How
    level: int
    await_healthy: tuple[str, ...]
    healthy_before: bool
    start_timeout: float
    stop_timeout: float
    started_at: datetime | None = None
    shaky: bool = False
    restarts: int = 0


class Journal(msgspec.Struct, frozen=True):
    """What one run of one unit owes.

    ``members`` is what we hold down; empty when all of them run again. ``source`` is the
    repository's name for the unit (``user@host:path``), so that whoever settles the run later
    finds its manifests. ``judged`` says that the verdict is durable; until then ``reason`` is why
    the run was no success, empty for one that did not live to know.
    """

    unit: str
    run: str
    since: datetime
    source: str
    members: tuple[Held, ...]
    judged: bool = False
    reason: str = ""

    @property
    def settled(self) -> bool:
        """Nothing is owed any more."""
        return not self.members and self.judged


class JournalStore:
    """The folder of journals. Each call ends on the disk, off the event loop."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _path(self, unit: str) -> Path:
        return self.folder / f"{unit}.json"

    async def write(self, journal: Journal) -> None:
        """Put a journal on the disk, or remove it when it is settled.

        Not to be interrupted: on return it is durable, or an error says that it is not. Raises
        RunError when the disk does not take it; the run must not stop anything then.
        """
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(self._write, journal)

    def _write(self, journal: Journal) -> None:
        try:
            if journal.settled:
                remove_durably(self._path(journal.unit))
            else:
                self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_durably(self._path(journal.unit), msgspec.json.encode(journal))
        except OSError as error:
            raise RunError(
                f"cannot write the journal of unit {journal.unit}: {error.strerror}",
                phase="stop",
                reason="journal",
                hint=f"make room and check permissions in {self.folder}",
            ) from error

    async def read(self, unit: str) -> Journal | None:
        """The journal of one unit, or None. Raises RunError when it cannot be read."""
        return await anyio.to_thread.run_sync(self._read, unit)

    def _read(self, unit: str) -> Journal | None:
        path = self._path(unit)
        try:
            return msgspec.json.decode(path.read_bytes(), type=Journal)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            raise RunError(
                f"the journal {path} cannot be read: {error}",
                phase="check",
                reason="journal",
                hint=f"see that the containers of unit {unit} run, then remove the file",
            ) from error

    async def units(self) -> tuple[str, ...]:
        """The units that have a journal, readable or not. Raises ConfigError."""
        return await anyio.to_thread.run_sync(self._units)

    def _units(self) -> tuple[str, ...]:
        try:
            names = os.listdir(self.folder)  # noqa: PTH208 - names are all that is wanted
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise ConfigError(
                f"the journals in {self.folder} cannot be read: {error.strerror}",
                hint="run it as the user that runs kopiwatch, usually root",
            ) from error
        return tuple(sorted(name.removesuffix(".json") for name in names if name.endswith(".json")))
