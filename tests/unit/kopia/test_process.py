"""Starting Kopia, ending Kopia, and believing it as little as possible."""

from __future__ import annotations

import os
import time
from pathlib import Path

import anyio
import pytest

from kopiwatch.config import Secret
from kopiwatch.errors import (
    KopiaMissing,
    KopiaTimeout,
    NotConnected,
    RepositoryError,
    WrongPassword,
)
from kopiwatch.kopia import process as module
from kopiwatch.kopia.lock import FileLock, holder
from kopiwatch.kopia.process import Kopia
from kopiwatch.testing.kopia_fake import FakeKopia, Rule

SECRET = Secret("geheim+1")


@pytest.fixture
def fake(tmp_path):
    return FakeKopia(tmp_path / "fake")


@pytest.fixture
def kopia(fake, tmp_path):
    ours = {"PATH": os.environ["PATH"], "KOPIWATCH_PASSWORD": "x"}
    return Kopia(str(fake.path), home=tmp_path / "home", ours=ours, grace=0.3)


def session_of(pid: int) -> list[int]:
    """What lives of the process that led a session, by its own look at /proc."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == pid and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


async def until_started(fake: FakeKopia, children: int) -> int:
    with anyio.fail_after(10):
        while True:
            calls = await anyio.to_thread.run_sync(fake.calls)
            if calls and len(session_of(calls[0].pid)) > children:
                return calls[0].pid
            await anyio.sleep(0.02)


@pytest.mark.anyio
async def test_call_gives_output_and_inherits_only_what_it_should(kopia, fake, tmp_path):
    """Arguments as they are, standard input, an environment of ours, a lock; no more."""
    fake.tell(Rule(read_stdin=True, stderr="noise\n"))
    async with FileLock(tmp_path / "kopia.lock").hold() as lock:
        done = await kopia.run(
            ["policy", "import", "--x=a b"],
            attempt="trying",
            timeout=10,
            password=SECRET,
            stdin=b"input",
            pass_fds=[lock.fileno()],
        )
    assert (done.stdout, done.stderr) == (b"input", "noise\n")
    (call,) = fake.calls()
    assert call.argv == ("policy", "import", "--x=a b")
    assert call.env["KOPIA_PASSWORD"] == "geheim+1"
    assert call.env["HOME"] == str(tmp_path / "home")
    assert set(call.env) <= {
        *("PATH", "HOME", "LANG", "TZ", "TMPDIR", "PWD", "SHLVL", "_", "KOPIA_PASSWORD"),
        *module.environment({}, home=tmp_path),
    }
    assert [fd for fd in call.fds if fd.endswith(".lock")] == [str(tmp_path / "kopia.lock")]


@pytest.mark.anyio
async def test_secret_is_in_no_argument_and_in_no_text_that_comes_back(kopia, fake, caplog):
    """A Kopia that prints its password is quoted with stars; nothing is logged either."""
    caplog.set_level("DEBUG")
    fake.tell(Rule(stderr="password geheim+1 or geheim%2B1 or Z2VoZWltKzE= is bad\n", code=1))
    with pytest.raises(RepositoryError) as caught:
        await kopia.run(["x"], attempt="trying", timeout=10, password=SECRET)
    error = caught.value
    assert "password *** or *** or *** is bad" in error.message
    assert error.tail == "password *** or *** or *** is bad"
    assert "geheim" not in " ".join([*fake.calls()[0].argv, caplog.text, repr(error)])


@pytest.mark.anyio
async def test_password_that_is_a_usual_word_does_not_hide_the_reason(kopia, fake):
    """Failures are told apart before anything is masked."""
    fake.tell(Rule(stderr="open repository: invalid repository password\n", code=1))
    with pytest.raises(WrongPassword) as caught:
        await kopia.run(["x"], attempt="trying", timeout=10, password=Secret("password"))
    assert caught.value.tail == "open repository: invalid repository ***"


@pytest.mark.anyio
async def test_secret_is_not_cut_in_two_by_the_limit_of_what_is_kept(kopia, fake, monkeypatch):
    """What is kept of standard error begins with a whole line."""
    monkeypatch.setattr(module, "STDERR_KEPT_BYTES", 29)
    fake.tell(Rule(stderr="x" * 40 + "geheim+1\n" + "y" * 25, code=1))
    with pytest.raises(RepositoryError) as caught:
        await kopia.run(["x"], attempt="trying", timeout=10, password=SECRET)
    assert caught.value.tail == "y" * 25


@pytest.mark.anyio
async def test_both_pipes_flooded_do_not_stop_anybody(kopia, fake):
    """Both are read at the same time; of standard error only the end is kept."""
    size = 8 * 1024 * 1024
    fake.tell(Rule(flood=size, stderr="the end\n"))
    done = await kopia.run(["x"], attempt="trying", timeout=15)
    assert done.stdout == b"o" * size
    assert done.stderr.endswith("the end\n")
    assert len(done.stderr) <= 2 * module.STDERR_KEPT_BYTES


@pytest.mark.anyio
async def test_endless_output_is_an_error_not_a_full_memory(kopia, fake, monkeypatch):
    """More than any answer can be ends the call."""
    monkeypatch.setattr(module, "STDOUT_LIMIT_BYTES", 1024 * 1024)
    fake.tell(Rule(flood=4 * 1024 * 1024, hang=True))
    with pytest.raises(RepositoryError, match="printed more than 1048576 bytes"):
        await kopia.run(["x"], attempt="trying", timeout=15)


@pytest.mark.anyio
async def test_input_that_nobody_reads_is_no_failure_of_its_own(kopia, fake):
    """The exit code says what went wrong."""
    fake.tell(Rule(stderr="open repository: repository is not connected.\n", code=1))
    with pytest.raises(NotConnected):
        await kopia.run(["x"], attempt="trying", timeout=15, stdin=b"x" * 4 * 1024 * 1024)


@pytest.mark.anyio
@pytest.mark.parametrize("ignore_term", [False, True])
async def test_deadline_ends_kopia_and_all_that_it_started(kopia, fake, tmp_path, ignore_term):
    """SIGTERM, then SIGKILL; children in process groups of their own as well; the lock is free."""
    fake.tell(Rule(hang=True, children=2, ignore_term=ignore_term, stderr="working\n"))
    lock_file = tmp_path / "kopia.lock"
    begin = time.monotonic()
    with pytest.raises(KopiaTimeout, match="within 1 seconds") as caught:
        async with FileLock(lock_file).hold() as lock:
            await kopia.run(["x"], attempt="trying", timeout=1, pass_fds=[lock.fileno()])
    assert time.monotonic() - begin < 8
    assert caught.value.tail == "working"
    assert session_of(fake.calls()[0].pid) == []
    assert holder(lock_file) is None


@pytest.mark.anyio
async def test_cancellation_ends_kopia_and_its_grandchildren(kopia, fake):
    """When the cancelled call returns, nothing of it is alive."""
    fake.tell(Rule(hang=True, children=2, ignore_term=True))
    async with anyio.create_task_group() as tasks:

        async def call() -> None:
            await kopia.run(["x"], attempt="trying", timeout=None)

        tasks.start_soon(call)
        pid = await until_started(fake, children=2)
        tasks.cancel_scope.cancel()
    assert session_of(pid) == []


@pytest.mark.anyio
async def test_child_that_outlives_a_good_kopia_is_ended(kopia, fake, monkeypatch):
    """It holds the pipes, and it would hold the lock."""
    monkeypatch.setattr(module, "DRAIN_SECONDS", 0.3)
    fake.tell(Rule(children=1, stdout="{}"))
    done = await kopia.run(["x"], attempt="trying", timeout=15)
    assert done.stdout == b"{}"
    assert session_of(fake.calls()[0].pid) == []


@pytest.mark.anyio
async def test_killed_kopia_is_named_by_its_signal(kopia, fake):
    """The kernel kills when memory is short."""
    fake.tell(Rule(signal=9))
    with pytest.raises(RepositoryError, match="SIGKILL"):
        await kopia.run(["x"], attempt="trying", timeout=10)


@pytest.mark.anyio
async def test_missing_kopia_says_how_to_get_it(tmp_path):
    """No program, no executable, no traceback."""
    (tmp_path / "text").write_text("#!/nowhere/interpreter\n")
    (tmp_path / "text").chmod(0o700)
    for program in ("no-such-kopia", str(tmp_path / "none"), str(tmp_path / "text")):
        with pytest.raises(KopiaMissing) as caught:
            await Kopia(program, home=tmp_path).run(["x"], attempt="trying", timeout=5)
        assert "kopia.io" in caught.value.hint


@pytest.mark.anyio
async def test_version_is_asked_once_for_each_program_file(kopia, fake):
    """A new file is asked again."""
    assert await kopia.version() == "0.23.1"
    assert await kopia.version() == "0.23.1"
    assert len(fake.calls()) == 1
    await anyio.to_thread.run_sync(lambda: os.utime(fake.path, (1, 1)))
    await kopia.version()
    assert len(fake.calls()) == 2
    assert "KOPIA_PASSWORD" not in fake.calls()[0].env


@pytest.mark.anyio
async def test_other_version_is_a_warning_and_none_is_not_kopia(kopia, fake, caplog):
    """0.23 is what is known; a program that tells no version is something else."""
    fake.tell(Rule("--version", stdout="0.99.0 build: x from: y\n"))
    assert await kopia.version() == "0.99.0"
    assert "0.99.0" in caplog.text
    await anyio.to_thread.run_sync(lambda: os.utime(fake.path, (2, 2)))
    fake.tell(Rule("--version", stdout="something else\n"))
    with pytest.raises(KopiaMissing, match="not Kopia"):
        await kopia.version()
