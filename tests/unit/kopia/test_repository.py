"""The repository on a Kopia that hangs, dies and lies."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest

from kopiwatch.config import Config, Secret
from kopiwatch.errors import (
    ConfigError,
    KopiaTimeout,
    NotConnected,
    RepositoryError,
    RepositoryFull,
    RepositoryMismatch,
)
from kopiwatch.kopia import repository as module
from kopiwatch.kopia.process import Kopia
from kopiwatch.kopia.repository import KopiaRepository
from kopiwatch.testing.kopia_fake import FakeKopia, Rule

pytestmark = pytest.mark.anyio


@pytest.fixture
def fake(tmp_path):
    return FakeKopia(tmp_path / "fake")


@pytest.fixture
def config(tmp_path, fake):
    (tmp_path / "disk").mkdir()
    return Config(
        state_dir=tmp_path / "state",
        cache_dir=tmp_path / "cache",
        repository=f"filesystem:{tmp_path}/disk",
        password=Secret("geheim"),
        kopia=str(fake.path),
    )


@pytest.fixture
def at():
    """What time it is for the repository."""
    return [datetime(2026, 1, 1, tzinfo=UTC)]


@pytest.fixture
async def repository(config, tmp_path, at):
    kopia = Kopia(config.kopia, home=tmp_path / "state" / "kopia", grace=0.3)
    made = KopiaRepository(config, host="harbour", kopia=kopia, now=lambda: at[0])
    await made.create()
    return made


def files(folder: Path) -> dict[str, bytes]:
    """Everything but the lock, whose text changes with its holder."""
    found = (p for p in folder.rglob("*") if p.is_file() and p.suffix != ".lock")
    return {str(p.relative_to(folder)): p.read_bytes() for p in found}


async def test_every_call_holds_the_lock_and_no_secret_in_its_arguments(repository, fake):
    """All but the question for the version."""
    await repository.ensure_policy("harbour")
    await repository.check_policy("kopiwatch@harbour:/mnt/shop")
    await repository.snapshots()
    calls = [call for call in fake.calls() if call.argv != ("--version",)]
    assert len(calls) == 6
    for call in calls:
        assert any(fd.endswith("/locks/kopia.lock") for fd in call.fds)
        assert "geheim" not in " ".join(call.argv)
        assert "--no-auto-maintenance" in call.argv


async def test_deleting_nothing_starts_nothing(repository, fake):
    """An empty list of ids is no question for Kopia."""
    before = len(fake.calls())
    await repository.delete(())
    assert len(fake.calls()) == before


async def test_policies_that_were_just_read_are_not_read_again(repository, fake, at):
    """As long as they are new, nobody has written them meanwhile, and they were good."""
    source = "kopiwatch@harbour:/mnt/shop"

    def asked():
        return len([call for call in fake.calls() if "list" in call.argv])

    assert await repository.ensure_policy("harbour")
    assert asked() == 1
    await repository.check_policy(source)
    assert asked() == 2, "it was written since it was read"
    at[0] += module.JUST_READ / 2
    await repository.check_policy(source)
    assert asked() == 2
    at[0] += module.JUST_READ / 2
    await repository.check_policy(source)
    assert asked() == 3, "what it was then is too long ago"
    assert not await repository.ensure_policy("harbour")
    await repository.check_policy(source)
    assert asked() == 4


async def test_policies_that_were_not_good_are_read_again_at_once(repository, fake):
    """Whoever has put them right need not wait."""
    await repository.ensure_policy("harbour")
    source = "kopiwatch@elsewhere:/mnt/shop"

    def asked():
        return len([call for call in fake.calls() if "list" in call.argv])

    before = asked()
    for number in (1, 2):
        with pytest.raises(RepositoryError):
            await repository.check_policy(source)
        assert asked() == before + number


async def test_hanging_storage_ends_at_the_deadline(repository, fake, monkeypatch):
    """And the next call finds the lock free."""
    monkeypatch.setattr(module, "READ_SECONDS", 0.5)
    fake.tell(Rule("repository status", hang=True, children=1, ignore_term=True))
    with pytest.raises(KopiaTimeout, match="opening the repository"):
        await repository.status()
    fake.tell()
    monkeypatch.undo()
    await repository.status()


@pytest.mark.parametrize("output", ["", "[]\n[]", "null", "Enter password to open repository: "])
async def test_success_without_an_answer_is_a_failure(repository, fake, output):
    """Exit code 0 proves nothing; a failed list is not an empty list."""
    fake.tell(Rule("snapshot list", stdout=output))
    with pytest.raises(RepositoryError, match="listing snapshots"):
        await repository.snapshots()


async def test_restore_that_says_nothing_is_a_failure(repository, fake, tmp_path):
    """The line with the counts is the only proof that there is."""
    fake.tell(Rule("snapshot restore"))
    with pytest.raises(RepositoryError, match="does not say"):
        await repository.restore("0" * 32, tmp_path / "out", timeout=None)
    with pytest.raises(ValueError, match="absolute"):
        await repository.restore("0" * 32, Path("out"), timeout=None)


async def test_connection_of_somebody_else_is_a_mismatch(repository, config):
    """A configuration that was changed by hand would write under another identity."""
    path = config.state_dir / "kopia" / "repository.config"
    changed = json.loads(path.read_text()) | {"hostname": "other"}
    path.write_text(json.dumps(changed))
    with pytest.raises(RepositoryMismatch, match="kopiwatch@other"):
        await repository.status()


@pytest.mark.parametrize("word", ["repository connect", "repository status"])
async def test_failed_connect_leaves_everything_as_it_was(repository, config, fake, word):
    """Whichever of its steps fails, the old connection stands, byte for byte."""
    before = files(config.state_dir)
    fake.tell(Rule(word, stderr="write: no space left on device", code=1))
    with pytest.raises(RepositoryFull):
        await repository.connect()
    assert files(config.state_dir) == before
    fake.tell()
    await repository.status()


async def test_cancelled_connect_leaves_everything_as_it_was(repository, config, fake):
    """A signal in the middle is no reason to lose the connection."""
    before = files(config.state_dir)
    fake.tell(Rule("repository connect", hang=True))
    with anyio.move_on_after(0.5):
        await repository.connect()
    assert files(config.state_dir) == before


async def test_password_is_on_disk_before_a_repository_is_made_with_it(config, fake, tmp_path):
    """If the machine dies in the middle, what was made can still be opened."""
    fake.tell(Rule("repository create", signal=9))
    config = Config(
        state_dir=config.state_dir,
        cache_dir=config.cache_dir,
        repository=config.repository,
        kopia=config.kopia,
    )
    repository = KopiaRepository(config, host="harbour")
    with pytest.raises(RepositoryError, match="SIGKILL"):
        await repository.create()
    password = (config.state_dir / "password").read_text().strip()
    (call,) = [c for c in fake.calls() if "create" in c.argv]
    assert call.env["KOPIA_PASSWORD"] == password
    # Nothing was made, so the next attempt begins at the same place with the same password.
    assert list((tmp_path / "disk").iterdir()) == []
    fake.tell()
    created = await repository.create()
    assert created.password_file == config.state_dir / "password"
    assert (config.state_dir / "password").read_text().strip() == password


async def test_lost_configuration_is_made_again_and_a_lost_record_is_not_guessed(
    repository, config
):
    """ensure_connected needs both; the record says which repository it must be."""
    (config.state_dir / "kopia" / "repository.config").unlink()
    with pytest.raises(NotConnected):
        await repository.status()
    await repository.ensure_connected()
    await repository.status()
    (config.state_dir / "repository.json").write_text("rubbish")
    with pytest.raises(RepositoryError, match="damaged"):
        await repository.ensure_connected()


@pytest.mark.parametrize("host", ["", "a b@c", "x/y", " pad"])
async def test_host_that_cannot_be_one_is_refused_before_anything_is_made(config, host, tmp_path):
    """The name is part of every identity."""
    with pytest.raises(ConfigError, match="host name"):
        await KopiaRepository(config, host=host).create()
    assert list((tmp_path / "disk").iterdir()) == []


async def test_missing_password_is_a_configuration_error(config):
    """Only the first creation makes one."""
    bare = Config(
        state_dir=config.state_dir,
        cache_dir=config.cache_dir,
        repository=config.repository,
        kopia=config.kopia,
    )
    with pytest.raises(ConfigError, match="no repository password"):
        await KopiaRepository(bare, host="harbour").connect()
    assert not (config.state_dir / "password").exists()
