"""The daemon of a site as a process: its port, its log, its metrics."""

from __future__ import annotations

import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client.parser import text_string_to_metric_families

from support.site import COMMAND, Site, wait_until


class Sidecar:
    """``kopiwatch run`` of one site."""

    def __init__(self, site: Site) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.site = site
        self.log_file = site.folder / f"log-{self.port}"
        environment = site.environment | {"KOPIWATCH_LISTEN": f"127.0.0.1:{self.port}"}
        with self.log_file.open("w") as log:
            self.process = subprocess.Popen(
                [COMMAND, "run"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def get(self, path: str) -> tuple[int, str]:
        """Status and body; 0 while nobody listens."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()
        except OSError:
            return 0, ""

    def metric(self, name: str, **labels: str) -> float | None:
        """One sample; None while there is none."""
        status, body = self.get("/metrics")
        if status != 200:
            return None
        for family in text_string_to_metric_families(body):
            for sample in family.samples:
                if sample.name == f"kopiwatch_{name}" and labels.items() <= sample.labels.items():
                    return sample.value
        return None

    def wait_ready(self) -> None:
        wait_until(lambda: self.get("/readyz")[0] == 200 or self._dead(), "the daemon is ready", 60)

    def wait_until(self, fact: Callable[[], bool], what: str, seconds: float = 20) -> None:
        """As the function of that name; the log is part of what is told when it fails."""
        try:
            wait_until(fact, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def wait_metric(self, value: float, name: str, seconds: float = 30, **labels: str) -> None:
        wait_until(
            lambda: self.metric(name, **labels) == value or self._dead(),
            f"{name}{labels} is {value}",
            seconds,
        )

    def _dead(self) -> bool:
        assert self.process.poll() is None, f"the daemon has died:\n{self.log}"
        return False

    def stop(self, number: int = signal.SIGTERM, seconds: float = 60) -> int:
        """Signal it and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def sidecar(site: Site) -> Iterator[Sidecar]:
    """A daemon that is ready, and ended at the end."""
    made = Sidecar(site)
    try:
        made.wait_ready()
        yield made
    finally:
        if made.process.poll() is None:
            made.process.terminate()
            try:
                made.process.wait(60)
            except subprocess.TimeoutExpired:
                made.process.kill()
                made.process.wait()
