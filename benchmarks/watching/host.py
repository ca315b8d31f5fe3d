"""The Docker that is measured on: plain calls to it, the crowd on it, and a row of the table."""

from __future__ import annotations

import http.client
import json
import socket
import statistics
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from urllib.parse import quote

from support import docker, image
from support.own_docker import own_docker

from kopiwatch.units.label import ENABLE


class Host:
    """Plain calls to one Docker over its Unix socket: its command line takes longer to start.

    ``prefix`` begins the name of all that is made here, and is its instance of kopiwatch.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.prefix = f"kwbench-{uuid.uuid4().hex[:8]}"

    def call(self, method: str, path: str, body: object = None) -> bytes:
        """One request. Returns the answer's body."""
        connection = http.client.HTTPConnection("docker", timeout=120)
        with socket.socket(socket.AF_UNIX) as connection.sock:
            connection.sock.connect(self.url.removeprefix("unix://"))
            data = None if body is None else json.dumps(body)
            connection.request(method, path, data, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = answer.read()
        if answer.status >= 300:
            raise RuntimeError(f"{method} {path}: {answer.status} {content!r}")
        return content

    def create(self, name: str, *, labelled: bool) -> str:
        """Create a container and do not start it. Returns its id."""
        labels = {ENABLE: "true", "kopi.instance": self.prefix} if labelled else {}
        body = {
            "Image": image.BUSYBOX,
            "Cmd": ["/bin/sleep", "3600"],
            "Labels": {docker.LABEL: self.prefix} | labels,
            "StopTimeout": 0,
            "HostConfig": {"NetworkMode": "none"},
        }
        made = self.call("POST", f"/containers/create?name={self.prefix}-{name}", body)
        return str(json.loads(made)["Id"])

    def start(self, container: str) -> None:
        """Start a container that was created."""
        self.call("POST", f"/containers/{container}/start")

    def rename(self, container: str, name: str) -> None:
        """Give it another name: one event."""
        self.call("POST", f"/containers/{container}/rename?name={self.prefix}-{name}")

    def crowd(self, count: int) -> None:
        """Create others, which carry no label of ours."""
        begun = time.monotonic()
        with ThreadPoolExecutor(2) as pool:
            names = (f"other-{number}" for number in range(count))
            list(pool.map(lambda name: self.create(name, labelled=False), names))
        print(f"{f'{count} others created in':<44}{time.monotonic() - begun:>10.1f} s")

    def end(self) -> None:
        """Remove all that was made."""
        wanted = quote(json.dumps({"label": [f"{docker.LABEL}={self.prefix}"]}))
        rows = json.loads(self.call("GET", f"/containers/json?all=1&filters={wanted}"))
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda r: self.call("DELETE", f"/containers/{r['Id']}?force=1"), rows))


@contextmanager
def a_host(*, own: bool) -> Iterator[Host]:
    """The Docker to measure on, with busybox, and clean afterwards."""
    if not own:
        image.busybox()
        host = Host(docker.URL)
        try:
            yield host
        finally:
            host.end()
        return
    with own_docker() as daemon:
        daemon.start()
        daemon.import_image()
        host = Host(daemon.url)
        try:
            yield host
        finally:
            host.end()


def row(name: str, values: list[float], unit: str = "ms") -> str:
    """The least, the middle and the most of what was measured, in seconds."""
    low, middle, high = min(values), statistics.median(values), max(values)
    scale = 1000 if unit == "ms" else 1
    digits = 1 if unit == "ms" else 2
    numbers = "".join(f"{value * scale:>10.{digits}f}" for value in (low, middle, high))
    return f"{name:<44}{numbers} {unit}"
