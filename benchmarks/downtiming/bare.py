"""Bare stop and start: the same levels, the same wait for health, and no backup in between.

Straight through Docker's API, as quick as a client can be: a process of the ``docker`` command for
each call would make the bare time longer, and any ratio to it look better.
"""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from support import docker

POLL_SECONDS = 0.05


class _Connection(http.client.HTTPConnection):
    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(docker.URL.removeprefix("unix://"))


def api(method: str, path: str, body: object = None) -> Any:
    """One call of Docker's API; what it answered, decoded if it is JSON."""
    connection = _Connection("docker")
    try:
        headers = {"Content-Type": "application/json"}
        text = None if body is None else json.dumps(body)
        connection.request(method, f"/v1.41/{path}", text, headers)
        answer = connection.getresponse()
        content = answer.read()
        assert answer.status < 400, content
        is_json = (answer.getheader("Content-Type") or "").startswith("application/json")
        return json.loads(content) if is_json and content else None
    finally:
        connection.close()


def wait_healthy(container: str) -> None:
    """Run the container's own health command until it says healthy."""
    command = api("GET", f"containers/{container}/json")["Config"]["Healthcheck"]["Test"][1]
    while True:
        order = {"Cmd": ["/bin/sh", "-c", command], "AttachStdout": True}
        made = api("POST", f"containers/{container}/exec", order)["Id"]
        api("POST", f"exec/{made}/start", {"Detach": False})
        if api("GET", f"exec/{made}/json")["ExitCode"] == 0:
            return
        time.sleep(POLL_SECONDS)


def bare(levels: list[list[str]], mode: str) -> dict[str, float]:
    """Seconds of holding level by level, starting in reverse, and being healthy again.

    ``levels`` are ids, in the order of stopping. A level starts when the one before is healthy, as
    its dependents ask for.
    """
    stop, start = ("stop", "start") if mode == "stop" else ("pause", "unpause")
    steps: dict[str, float] = {"stop": 0.0, "start": 0.0, "health": 0.0}

    def each(name: str, work: Callable[[str], object], containers: list[str]) -> None:
        begun = time.perf_counter()
        list(pool.map(work, containers))
        steps[name] += time.perf_counter() - begun

    def post(verb: str) -> Callable[[str], object]:
        return lambda container: api("POST", f"containers/{container}/{verb}")

    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda _: None, range(8)))  # its threads start now
        begun = time.perf_counter()
        if mode == "pause":  # nobody misses what is frozen: all at once
            levels = [[container for level in levels for container in level]]
        for level in levels:
            each("stop", post(stop), level)
        for level in reversed(levels):
            each("start", post(start), level)
            each("health", wait_healthy, level)
        return {"window": time.perf_counter() - begun, **steps}
