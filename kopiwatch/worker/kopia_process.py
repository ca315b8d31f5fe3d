"""The Kopia process of a worker, and its gate."""

from __future__ import annotations

import os
import select
import signal
import subprocess

from kopiwatch.worker.speech import READ_BYTES, Refused

TYPE_CHECKING = False  # typing is imported by type checkers only: start-up time
if TYPE_CHECKING:
    from typing import IO

KEEP_ERROR_BYTES = 16 * 1024
KEEP_OUTPUT_BYTES = 4 * 1024 * 1024


class Kopia:
    """The one Kopia process of this worker, and the FIFOs of its gate."""

    def __init__(self, argv: list[str], env: dict[str, str], gate: str, lock: int) -> None:
        self.said_path = os.path.join(gate, "said")
        self.word_path = os.path.join(gate, "word")
        os.makedirs(gate, mode=0o700, exist_ok=True)
        for path in (self.said_path, self.word_path):
            if not os.path.exists(path):
                os.mkfifo(path, 0o600)
        # Both ends held open, so that neither the gate nor we ever block in open().
        self.said = os.open(self.said_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.word = os.open(self.word_path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.heard = b""
        self.output = b""
        self.errors = b""
        self.killed = False
        try:
            self.process = subprocess.Popen(
                argv,
                env={**env, "KOPIWATCH_GATE": gate},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                pass_fds=(lock,),
            )
        except OSError as error:
            raise Refused("launch", f"{argv[0]}: {error.strerror}") from error
        assert self.process.stdout is not None  # noqa: S101 - PIPE was asked for
        assert self.process.stderr is not None  # noqa: S101
        self.stdout = self.process.stdout
        self.stderr = self.process.stderr
        for stream in (self.stdout, self.stderr):
            os.set_blocking(stream.fileno(), False)
        self.pidfd = os.pidfd_open(self.process.pid)

    def hear(self) -> list[str]:
        """Return the words that the gate has said since the last call."""
        try:
            self.heard += os.read(self.said, READ_BYTES)
        except BlockingIOError:
            return []
        *words, self.heard = self.heard.split(b"\n")
        return [word.decode(errors="replace") for word in words]

    def open_gate(self, word: str) -> None:
        """Let Kopia read (``go``), or write (``flush``)."""
        os.write(self.word, word.encode() + b"\n")

    def drain(self, stream: IO[bytes]) -> bool:
        """Take what a pipe holds; False at its end."""
        try:
            block = os.read(stream.fileno(), READ_BYTES)
        except BlockingIOError:
            return True
        if stream is self.stdout:
            self.output = (self.output + block)[-KEEP_OUTPUT_BYTES:]
        else:
            self.errors = (self.errors + block)[-KEEP_ERROR_BYTES:]
        return bool(block)

    def kill(self) -> None:
        """SIGKILL, and nothing gentler: a polite Kopia saves half a snapshot and calls it rc 0."""
        self.killed = True
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def ended(self, seconds: float) -> bool:
        """Whether it has ended, or does within so many seconds."""
        return self.pidfd in select.select([self.pidfd], [], [], seconds)[0]

    def reap(self) -> dict[str, object]:
        """Wait for the process, take the rest of its output, and tell how it ended."""
        code = self.process.wait()
        self.kill_remains()
        for stream in (self.stdout, self.stderr):
            while True:
                before = len(self.output) + len(self.errors)
                if not self.drain(stream) or len(self.output) + len(self.errors) == before:
                    break
        return {
            "code": code,
            "killed": self.killed,
            "out": self.output.decode(errors="replace"),
            "err": self.errors.decode(errors="replace"),
        }

    def kill_remains(self) -> None:
        """End what Kopia left behind (a gate, an rclone): nothing may outlive it."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass
