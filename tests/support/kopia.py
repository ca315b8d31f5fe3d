"""The Kopia that tests run on, and places and states for it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import anyio
import msgspec
import pytest

from kopiwatch.config import Config, Secret
from kopiwatch.kopia import argv
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.repository import KopiaRepository

FILES = {
    "recipe/unit.json": b"{}",
    "volumes/db/a": b"content of a",
    "volumes/db/sub/b": b"content of b",
    "volumes/empty/": b"",
}


def find_kopia() -> str:
    """The real program: ``KOPIWATCH_KOPIA``, else ``kopia`` on PATH; without one the test fails.

    It fails and is not skipped: a green run must mean that the real thing was tried.
    """
    wanted = os.environ.get("KOPIWATCH_KOPIA") or "kopia"
    found = shutil.which(wanted)
    if found is None:
        pytest.fail(
            f"there is no Kopia to test with: {wanted!r} is no program. Set KOPIWATCH_KOPIA to one "
            "(scripts/test builds it from tools/kopia).",
            pytrace=False,
        )
    return str(Path(found).absolute())


class RealWorld:
    """Places and states in folders, and the real program."""

    def __init__(self, tmp_path: Path) -> None:
        self.path = tmp_path
        self.kopia = find_kopia()

    def mount(self, place: str) -> None:
        (self.path / place).mkdir()

    def empty(self, place: str) -> None:
        (self.path / place / "kopia").rename(self.path / f"{place}-aside")

    def bring_back(self, place: str) -> None:
        shutil.rmtree(self.path / place / "kopia", ignore_errors=True)
        (self.path / f"{place}-aside").rename(self.path / place / "kopia")

    def config(self, state: str, place: str, password: str | None) -> Config:
        return Config(
            state_dir=self.path / f"state-{state}",
            cache_dir=self.path / f"cache-{state}",
            repository=f"filesystem:{self.path / place}",
            password=Secret(password) if password else None,
            kopia=self.kopia,
        )

    def repository(self, state="one", *, place="disk", password="password", host="harbour"):
        return KopiaRepository(self.config(state, place, password), host=host)

    async def run(self, arguments, *, state="one", password="password", stdin="") -> bytes:
        """Kopia by hand, as somebody else would."""
        home = self.path / f"state-{state}" / "kopia"
        done = await anyio.run_process(
            [self.kopia, *argv.common(home / "repository.config", log_dir=home / "l"), *arguments],
            input=stdin.encode(),
            env={"KOPIA_PASSWORD": password, "KOPIA_CHECK_FOR_UPDATES": "false"},
        )
        return done.stdout

    async def snapshot(self, repository, path="shop", files=FILES, **tags) -> Snapshot:
        source = self.path / "mnt" / path
        for name, content in files.items():
            target = source / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                target.mkdir(exist_ok=True)
            else:
                target.write_bytes(content)
        made = argv.snapshot_argv("x", str(source), log_dir="x", tags=tags)
        made = made[made.index("snapshot") :]
        made.remove("--force-enable-actions")
        return msgspec.json.decode(await self.run(made), type=Snapshot)

    async def set_policy(self, repository, target, value) -> None:
        if value is None:
            await self.run(["policy", "delete", target])
        else:
            await self.run(["policy", "import"], stdin=json.dumps({target: value}))
