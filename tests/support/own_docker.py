"""A Docker daemon of a test's own, which may be stopped, killed and started again.

It runs in a network namespace of its own (a second daemon would take the first one's bridge away),
with a containerd of its own, in one folder. Containers must use the network ``none``.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support import image

CONTAINERD = """\
version = 2
disabled_plugins = ["io.containerd.grpc.v1.cri"]
"""


class OwnDocker:
    """One daemon. ``folder`` holds all of it; its path is short, for the sockets in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self._containerd: subprocess.Popen[bytes] | None = None
        self._dockerd: subprocess.Popen[bytes] | None = None
        (folder / "containerd.toml").write_text(CONTAINERD)

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def running(self) -> bool:
        return self._dockerd is not None and self._dockerd.poll() is None

    def start(self, *, live_restore: bool = False) -> None:
        """Start the daemon and wait until it answers."""
        assert not self.running
        if self._containerd is None:
            self._start_containerd()
        (self.folder / "daemon.json").write_text(json.dumps({"live-restore": live_restore}))
        self._dockerd = self._spawn(
            "unshare",
            "--net",
            "dockerd",
            f"--config-file={self.folder}/daemon.json",
            f"--containerd={self.folder}/containerd.sock",
            f"--data-root={self.folder}/data",
            f"--exec-root={self.folder}/run/docker",
            f"--pidfile={self.folder}/docker.pid",
            f"--host={self.url}",
        )
        self._wait(self._answers, "dockerd answers")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the daemon."""
        assert self._dockerd is not None
        self._dockerd.send_signal(number)

    def wait(self, seconds: float = 60) -> None:
        """Wait until the daemon has ended."""
        assert self._dockerd is not None
        self._dockerd.wait(seconds)

    def crash(self) -> None:
        """SIGKILL for all of it at once, its containers included, as when the power fails."""
        assert self._containerd is not None
        assert self._dockerd is not None
        for process in (self._dockerd, self._containerd):
            process.kill()
            process.wait()
        self._containerd = None
        self._end_the_rest()

    def call(self, *args: str, data: bytes | None = None) -> str:
        """Run ``docker …`` on it; what it printed, stripped. Raises RuntimeError."""
        done = subprocess.run(
            ["docker", "--host", self.url, *args],
            input=data,
            stdin=subprocess.DEVNULL if data is None else None,
            capture_output=True,
            env={**os.environ, "DOCKER_CONTEXT": ""},
            timeout=60,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"docker {' '.join(args[:3])} …: {done.stderr.decode()}")
        return done.stdout.decode().strip()

    def run(self, name: str, *options: str) -> str:
        """Create and start a container that does nothing. Returns its id."""
        given = ("--detach", "--network=none", "--stop-timeout=0", "--name", name, *options)
        return self.call("run", *given, image.BUSYBOX, "/bin/sleep", "3600")

    def empty(self) -> None:
        """Remove all containers."""
        if found := self.call("ps", "--all", "--quiet").split():
            self.call("rm", "--force", *found)

    def import_image(self) -> None:
        """Bring busybox in."""
        self.call("import", "--change", "ENV PATH=/bin", "-", image.BUSYBOX, data=image._root())

    def end(self) -> None:
        """Remove everything it ever made."""
        if not self.running and self._containerd is not None:
            self.start()  # only it can remove what outlived it
        if self.running:
            self.empty()
            self.signal(signal.SIGTERM)
            self.wait()
        if self._containerd is not None:
            self._containerd.terminate()
            self._containerd.wait(30)
        self._end_the_rest()
        with Path("/proc/self/mountinfo").open() as lines:
            points = [line.split()[4] for line in lines]
        for point in sorted(points, reverse=True):
            if point.startswith(f"{self.folder}/"):
                subprocess.run(["umount", "--lazy", point], check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _end_the_rest(self) -> None:
        """A daemon that was killed while it started a container forgets its shim."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if f"{self.folder}/".encode() in (process / "cmdline").read_bytes():
                    lists = (process / "task").glob("*/children")
                    children = [number for each in lists for number in each.read_text().split()]
                    for number in (*children, process.name):
                        os.kill(int(number), signal.SIGKILL)

    def _start_containerd(self) -> None:
        self._containerd = self._spawn(
            "containerd",
            "--log-level=warn",
            f"--config={self.folder}/containerd.toml",
            f"--root={self.folder}/containerd",
            f"--state={self.folder}/run/containerd",
            f"--address={self.folder}/containerd.sock",
        )
        self._wait((self.folder / "containerd.sock").is_socket, "containerd listens")

    def _spawn(self, *argv: str) -> subprocess.Popen[bytes]:
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        with suppress(RuntimeError):
            self.call("version")
            return True
        return False

    def _wait(self, fact: object, what: str) -> None:
        assert callable(fact)
        end = time.monotonic() + 60
        while not fact():
            log = (self.folder / "log").read_text()[-2000:]
            assert time.monotonic() < end, f"waited in vain until {what}:\n{log}"
            time.sleep(0.05)


@contextmanager
def own_docker() -> Iterator[OwnDocker]:
    """A daemon that has not been started yet, and leaves nothing behind."""
    daemon = OwnDocker(Path(tempfile.mkdtemp(prefix="kw-own-", dir="/var/tmp")))
    try:
        yield daemon
    finally:
        daemon.end()
