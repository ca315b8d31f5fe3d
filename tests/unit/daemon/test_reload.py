"""Reading the configuration again: a good one counts at once, a bad one changes nothing."""

from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.to_thread import run_sync as in_thread
from support.desk_world import desk_world

from kopiwatch.config import load
from kopiwatch.daemon.reload import Reloader
from kopiwatch.errors import ConfigError

pytestmark = pytest.mark.anyio


class Reloading:
    """A reloader on a real file, which begins with ``schedule = "@daily"``."""

    def __init__(self, world, file: Path) -> None:
        self.world, self.desk = world, world.desk
        self.file = anyio.Path(file)
        self.environment = {
            "KOPIWATCH_CONFIG": str(file),
            "KOPIWATCH_STATE_DIR": str(world.config.state_dir),
            "KOPIWATCH_CACHE_DIR": str(world.config.cache_dir),
            "KOPIWATCH_REPOSITORY": world.config.repository,
            "KOPIWATCH_PASSWORD": "secret",
        }
        self.applied = 0
        self.certificates = 0
        self.bad_certificate = False
        self.desk.config = load(self.environment)
        self.reloader = Reloader(
            self.desk, partial(load, self.environment), self.reload_tls, self.apply
        )

    async def reload_tls(self) -> None:
        self.certificates += 1
        if self.bad_certificate:
            raise ConfigError("the certificate is empty")

    async def apply(self) -> None:
        self.applied += 1

    async def write(self, text: str) -> None:
        """Another file in its place, as editors and Docker put it there."""
        beside = self.file.with_suffix(".new")
        await beside.write_text(text)
        await beside.rename(self.file)

    def said(self) -> list[tuple[str, object]]:
        """What was said of it since the last time: sentence and level."""
        told = list(zip(self.world.said.of("reload"), self.world.said.facts, strict=True))
        self.world.said.events.clear()
        self.world.said.facts.clear()
        return [(message, facts.get("level", "info")) for message, facts in told]


@pytest.fixture
async def here(tmp_path, monkeypatch):
    file = anyio.Path(tmp_path / "config.toml")
    await file.write_text('schedule = "@daily"\n')
    monkeypatch.setitem(os.environ, "KOPIWATCH_CONFIG", str(file))
    async with desk_world(tmp_path, monkeypatch) as world:
        yield await in_thread(Reloading, world, Path(file))


async def test_file_that_is_the_same_is_not_read_again(here):
    """Nor is anything said, however often it is looked at."""
    await here.reloader.look()
    await here.reloader.look()
    assert (here.said(), here.applied, here.certificates) == ([], 0, 0)


async def test_changed_file_counts_at_once(here):
    """What changed is named, the units are looked at again, and that is all for this state."""
    await here.write('schedule = "@hourly"\n')
    await here.reloader.look()
    assert here.desk.config.schedule == "@hourly"
    assert here.said() == [
        (f"{here.file} has changed: reading it again", "info"),
        ("configuration read: changed: schedule", "info"),
    ]
    assert here.applied == 1
    await here.reloader.look()
    assert (here.said(), here.applied) == ([], 1)


async def test_invalid_file_keeps_the_old_configuration_loudly(here):
    """An error that names the problem; shown until a good one was read."""
    await here.write("schedul = 1\n")
    await here.reloader.look()
    assert here.desk.config.schedule == "@daily"
    message, level = here.said()[-1]
    assert message.startswith("the old configuration still counts: ")
    assert "schedul" in message
    assert level == "error"
    assert "schedul" in here.desk.config_error
    assert here.applied == 0
    await here.write('schedule = "@hourly"\n')
    await here.reloader.look()
    assert (here.desk.config.schedule, here.desk.config_error) == ("@hourly", "")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"schedule = ", b"[[[[", b"\x00"])
async def test_file_that_is_no_text_or_no_toml_keeps_the_old_configuration(here, content):
    """Half of a file that is being written ends nothing."""
    await here.file.write_bytes(content)
    await here.reloader.look()
    assert here.desk.config.schedule == "@daily"
    assert here.desk.config_error


async def test_file_that_vanished_is_no_empty_configuration(here):
    """It was named: without it the old one counts; when it is back, it is read."""
    await here.file.unlink()
    await here.reloader.look()
    assert here.desk.config.schedule == "@daily"
    assert here.desk.config_error
    await here.write('schedule = "@daily"\n')
    await here.reloader.look()
    assert here.desk.config_error == ""


async def test_what_is_bound_at_the_start_stays_and_is_named(here):
    """The rest of the new configuration counts."""
    here.environment |= {"KOPIWATCH_LOG_LEVEL": "debug", "KOPIWATCH_INSTANCE": "other"}
    await here.write('schedule = "@hourly"\n')
    await here.reloader.now()
    config = here.desk.config
    assert (config.schedule, config.log_level, config.instance) == ("@hourly", "info", "default")
    assert here.said()[0] == (
        "a new value of instance, log_level counts after a restart only",
        "warning",
    )


async def test_reading_again_without_a_change_says_so(here):
    """SIGHUP gets an answer, certificates are read, and the units are left alone."""
    await here.reloader.now()
    assert here.said() == [("configuration read: nothing changed", "info")]
    assert (here.certificates, here.applied) == (1, 0)


async def test_certificate_that_cannot_be_used_keeps_the_old_configuration(here):
    """Both or none: half a change is not what somebody meant."""
    here.bad_certificate = True
    await here.write('schedule = "@hourly"\n')
    await here.reloader.look()
    assert here.desk.config.schedule == "@daily"
    assert here.desk.config_error == "the certificate is empty"
