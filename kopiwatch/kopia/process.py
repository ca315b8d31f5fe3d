"""The one place in the main process that starts the kopia program."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from subprocess import DEVNULL, PIPE

import anyio
import anyio.abc
import anyio.to_thread
import msgspec

from kopiwatch.config import Secret
from kopiwatch.errors import KopiaMissing, KopiaTimeout, RepositoryError
from kopiwatch.kopia.environment import environment
from kopiwatch.kopia.failure import INSTALL_HINT, classify, last_lines, masker

GRACE_SECONDS = 10.0
"""From SIGTERM to SIGKILL."""

KILL_SECONDS = 10.0
"""How long a killed process group may take to be gone; longer means stuck in the kernel."""

DRAIN_SECONDS = 5.0
"""How long the pipes may stay open after Kopia itself has left (a child of its holds them)."""

STDOUT_LIMIT_BYTES = 256 * 1024 * 1024
"""A list of 2,000 snapshots is 1.4 MB; more than this is no answer that we asked for."""

STDERR_KEPT_BYTES = 64 * 1024

SUPPORTED = (0, 23)
"""Measured with 0.23.1: major and minor version that the hidden options are known for."""

_log = logging.getLogger("kopiwatch.kopia")
_versions: dict[tuple[str, int], str] = {}


class Finished(msgspec.Struct, frozen=True):
    """What a call that exited 0 left.

    ``stdout`` and ``stderr`` (its end) are to be parsed and may hold anything; ``tail`` is the
    masked end of standard error, to be shown. ``seconds`` is wall time.
    """

    stdout: bytes
    stderr: str
    tail: str
    seconds: float


class Kopia:
    """The kopia program.

    ``program`` is a name or a path; ``home`` a folder of ours that stands for its home directory;
    ``ours`` is the environment of which a little is passed on (default: the process's own).
    """

    def __init__(
        self,
        program: str,
        *,
        home: Path,
        ours: Mapping[str, str] | None = None,
        grace: float = GRACE_SECONDS,
    ) -> None:
        self._program = program
        self._home = home
        self._ours = os.environ if ours is None else ours
        self._grace = grace

    def path(self) -> str:
        """The absolute path of the program. Raises KopiaMissing."""
        found = shutil.which(self._program, path=self._ours.get("PATH"))
        if found is None:
            raise KopiaMissing(f"there is no program {self._program!r} to run", hint=INSTALL_HINT)
        return str(Path(found).absolute())

    async def run(
        self,
        arguments: Sequence[str],
        *,
        attempt: str,
        timeout: float | None,
        password: Secret | None = None,
        stdin: bytes = b"",
        pass_fds: Sequence[int] = (),
        secrets: Sequence[Secret] = (),
    ) -> Finished:
        """Start Kopia once and wait for its end.

        ``attempt`` says in words what this is for; ``timeout`` is seconds until it is ended
        (SIGTERM, later SIGKILL, of everything that it started). ``pass_fds`` are inherited, which
        keeps a lock for as long as anything of it lives. ``password`` goes through the environment
        and is masked in all that comes back, like the other ``secrets``.

        However this ends, by cancellation too, nothing that was started is alive afterwards.

        Raises the RepositoryError that the exit code and the output stand for, KopiaTimeout, and
        KopiaMissing.
        """
        mask = masker([*secrets, *([password] if password else [])])
        path = await anyio.to_thread.run_sync(self.path)
        env = environment(self._ours, home=self._home, password=password)
        started = time.monotonic()
        try:
            # Shielded, for a process that nobody holds yet cannot be ended by anybody.
            with anyio.CancelScope(shield=True):
                process = await anyio.open_process(
                    [path, *arguments],
                    stdin=PIPE if stdin else DEVNULL,
                    stdout=PIPE,
                    stderr=PIPE,
                    env=env,
                    start_new_session=True,
                    pass_fds=pass_fds,
                )
        except OSError as error:
            raise KopiaMissing(
                f"{path} cannot be run: {error.strerror}", hint=INSTALL_HINT
            ) from error
        call = _Call(process, stdin)
        try:
            with anyio.move_on_after(timeout) as deadline:
                await call.finish()
            in_time = not deadline.cancelled_caught
        finally:
            with anyio.CancelScope(shield=True):
                survivors = await _end(process, self._grace)
                await _close(process, wait=not survivors)
        seconds = time.monotonic() - started
        stderr = call.stderr()
        tail = last_lines(mask(stderr))
        code = process.returncode
        _log.debug("kopia %s", arguments, extra={"action": "kopia", "code": code, "secs": seconds})
        if survivors:
            raise RepositoryError(
                f"{attempt}: Kopia does not end; these processes are stuck: "
                + ", ".join(map(str, survivors)),
                hint="A hanging storage keeps them in the kernel; it must answer or be unmounted.",
                tail=tail,
            )
        if not in_time:
            raise KopiaTimeout(
                f"{attempt}: no answer within {timeout:g} seconds; Kopia was ended",
                hint="The repository's storage may be unreachable or very slow.",
                tail=tail,
            )
        if call.overflow:
            raise RepositoryError(
                f"{attempt}: Kopia printed more than {STDOUT_LIMIT_BYTES} bytes and was ended",
                tail=tail,
            )
        if code != 0:
            raise classify(stderr, -1 if code is None else code, attempt=attempt, mask=mask)
        return Finished(call.stdout(), stderr, tail, seconds)

    async def version(self) -> str:
        """Kopia's version, such as ``0.23.1``; warns once if it is not a supported one.

        Asked once per program file and process. Raises KopiaMissing if it tells no version.
        """
        path = await anyio.to_thread.run_sync(self.path)
        key = (path, (await anyio.Path(path).stat()).st_mtime_ns)
        if key not in _versions:
            answer = await self.run(["--version"], attempt="asking Kopia its version", timeout=30)
            text = answer.stdout.decode(errors="replace") + answer.stderr
            match = re.search(r"\bv?(\d+)\.(\d+)\.(\d+)", text)
            if match is None:
                raise KopiaMissing(f"{path} is not Kopia: it tells no version", hint=INSTALL_HINT)
            _versions[key] = ".".join(match.groups())
            if (int(match[1]), int(match[2])) != SUPPORTED:
                _log.warning(
                    "Kopia %s is not one that kopiwatch was tested with (0.23)",
                    _versions[key],
                    extra={"action": "kopia-version", "path": path},
                )
        return _versions[key]


class _Call:
    """The pipes of one process, served at the same time so that none can fill up."""

    def __init__(self, process: anyio.abc.Process, stdin: bytes) -> None:
        self._process = process
        self._stdin = stdin
        self._stdout: list[bytes] = []
        self._stdout_size = 0
        self._stderr = bytearray()
        self._stderr_cut = False
        self.overflow = False

    async def finish(self) -> None:
        """Wait for the process; its pipes get a little longer, for a child may hold them open."""
        async with anyio.create_task_group() as group:
            group.start_soon(self._feed)
            group.start_soon(self._read_stdout)
            group.start_soon(self._read_stderr)
            await self._process.wait()
            group.cancel_scope.deadline = anyio.current_time() + DRAIN_SECONDS

    async def _feed(self) -> None:
        pipe = self._process.stdin
        if pipe is None:
            return
        # Kopia may leave without reading; its exit code says why.
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await pipe.send(self._stdin)
        with suppress(anyio.BrokenResourceError, anyio.ClosedResourceError):
            await pipe.aclose()

    async def _read_stdout(self) -> None:
        pipe = self._process.stdout
        if pipe is None:
            return
        async for chunk in pipe:
            self._stdout_size += len(chunk)
            if self._stdout_size > STDOUT_LIMIT_BYTES:
                self.overflow = True
                self._stdout.clear()
                _signal_group(self._process.pid, signal.SIGKILL)
                return
            self._stdout.append(chunk)

    async def _read_stderr(self) -> None:
        pipe = self._process.stderr
        if pipe is None:
            return
        async for chunk in pipe:
            self._stderr += chunk
            if len(self._stderr) > 2 * STDERR_KEPT_BYTES:
                del self._stderr[:-STDERR_KEPT_BYTES]
                self._stderr_cut = True

    def stdout(self) -> bytes:
        return b"".join(self._stdout)

    def stderr(self) -> str:
        """The end of standard error; from a whole line on, so that no secret is cut in two."""
        raw = bytes(self._stderr)
        if self._stderr_cut:
            raw = raw.partition(b"\n")[2] or raw.partition(b"\r")[2]
        return raw.decode(errors="replace")


async def _end(process: anyio.abc.Process, grace: float) -> list[int]:
    """End everything of the session that ``process`` leads; the PIDs that would not go."""
    if process.returncode is None:
        _signal_group(process.pid, signal.SIGTERM)
        with anyio.move_on_after(grace):
            await process.wait()
    # What is left by now, such as rclone in a process group of its own, is not asked again.
    end = anyio.current_time() + KILL_SECONDS
    while True:
        living = await anyio.to_thread.run_sync(_living, process.pid)
        if process.returncode is None:
            _signal_group(process.pid, signal.SIGKILL)
            with anyio.move_on_after(KILL_SECONDS):
                await process.wait()
        if not living:
            return []
        if anyio.current_time() > end:
            return living
        for pid in living:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await anyio.sleep(0.02)


async def _close(process: anyio.abc.Process, *, wait: bool) -> None:
    """Give the pipes back. A process that is stuck in the kernel is not waited for again."""
    if wait:
        await process.aclose()
        return
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            await pipe.aclose()


def _signal_group(leader: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, number)


def _living(session: int) -> list[int]:
    """The processes of a session that still run, from /proc (Linux, proc(5) field 6).

    Not by ``kill(-group, 0)``: that counts zombies, which stay for ever below a PID 1 that does
    not reap, and it misses children in a process group of their own.
    """
    found = []
    try:
        entries = [entry for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    except OSError:
        return []
    for entry in entries:
        try:
            stat = (entry / "stat").read_bytes()
        except OSError:
            continue
        # The name in parentheses may hold anything, so count from its end.
        fields = stat.rpartition(b")")[2].split()
        if len(fields) > 3 and fields[0] not in (b"Z", b"X") and int(fields[3]) == session:
            found.append(int(entry.name))
    return found
