"""A Docker whose calls fail as a test says: a proxy on a Unix socket in front of the daemon.

Everything passes, attached and hijacked streams and events included. Each connection carries one
request (``Connection: close`` is put in), so that a rule concerns exactly one call.
"""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Deed = Literal["error", "cut-before", "cut-after", "hold"]
REASONS = {404: "Not Found", 409: "Conflict", 500: "Internal Server Error", 503: "Unavailable"}
HOLD_SECONDS = 120
GONE = (OSError, TimeoutError)


@dataclass
class Rule:
    """What happens to calls of ``method`` whose path (without version and query) fits ``path``.

    ``deed``: ``error`` answers ``status``; ``cut-before`` and ``cut-after`` close the connection
    before the daemon hears of the call or when it has carried it out; ``hold`` keeps the call from
    the daemon until :meth:`release`. ``nth`` is the first call concerned, ``times`` how many are.
    ``reached`` is set when the first of them has come.
    """

    method: str
    path: str
    deed: Deed
    status: int = 500
    nth: int = 1
    times: int = 1
    seen: int = 0
    reached: threading.Event = field(default_factory=threading.Event)
    _go: threading.Event = field(default_factory=threading.Event)

    def takes(self, method: str, path: str) -> bool:
        """Count a call; whether it is one of those concerned."""
        if method != self.method or re.fullmatch(self.path, path) is None:
            return False
        self.seen += 1
        return self.nth <= self.seen < self.nth + self.times

    def wait(self) -> None:
        """Until released, or for as long as no test lasts."""
        self._go.wait(HOLD_SECONDS)

    def release(self) -> None:
        """Let the held calls pass, and all that follow."""
        self._go.set()


class DockerProxy:
    """Listens on the socket ``path`` in front of the daemon at ``url``."""

    def __init__(self, path: Path, url: str) -> None:
        self.url = f"unix://{path}"
        self._target = url.removeprefix("unix://")
        self._rules: list[Rule] = []
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(path))
        self._server.listen(64)
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._acceptor.start()

    def rule(self, method: str, path: str, deed: Deed, **more: int) -> Rule:
        """From now on; the first rule that fits counts."""
        made = Rule(method, path, deed, **more)
        with self._lock:
            self._rules.append(made)
        return made

    def clear(self) -> None:
        """No rules any more; what is held goes on."""
        with self._lock:
            rules, self._rules = self._rules, []
        for rule in rules:
            rule.release()

    def close(self) -> None:
        """Nobody is served any more."""
        self.clear()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._acceptor.join()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, suppress(*GONE):
            head, rest = _head(client)
            if not head:
                return
            method, path = _call(head)
            with self._lock:
                rule = next((each for each in self._rules if each.takes(method, path)), None)
            if rule is not None:
                rule.reached.set()
                if rule.deed == "hold":
                    rule.wait()
                    if _gone(client):
                        return
                elif rule.deed == "cut-before":
                    return
                elif rule.deed == "error":
                    client.sendall(_refusal(rule.status, f"{method} {path} fails, says the test"))
                    client.shutdown(socket.SHUT_WR)
                    _read_all(client)
                    return
            with socket.socket(socket.AF_UNIX) as daemon:
                daemon.connect(self._target)
                daemon.sendall(_one_request(head) + rest)
                cut = rule is not None and rule.deed == "cut-after"
                _relay(client, daemon, cut=cut)


def _head(client: socket.socket) -> tuple[bytes, bytes]:
    """The head of a request with its empty line, and what came after it; empty at the end."""
    got = b""
    while b"\r\n\r\n" not in got:
        block = client.recv(65536)
        if not block:
            return b"", b""
        got += block
    head, _, rest = got.partition(b"\r\n\r\n")
    return head + b"\r\n\r\n", rest


def _gone(client: socket.socket) -> bool:
    """Whether nobody waits for the answer any more."""
    try:
        return client.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _call(head: bytes) -> tuple[str, str]:
    method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ")
    return method, re.sub(r"^/v\d+\.\d+(?=/)", "", target.split("?")[0])


def _one_request(head: bytes) -> bytes:
    """The head, saying that nothing follows, unless the connection is to become something else."""
    lines = head.removesuffix(b"\r\n\r\n").split(b"\r\n")
    if any(line.lower().startswith(b"upgrade:") for line in lines):
        return head
    kept = [line for line in lines if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([*kept, b"Connection: close"]) + b"\r\n\r\n"


def _refusal(status: int, message: str) -> bytes:
    body = json.dumps({"message": message}).encode()
    head = (
        f"HTTP/1.1 {status} {REASONS[status]}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


def _relay(client: socket.socket, daemon: socket.socket, *, cut: bool) -> None:
    """Both ways until both have ended. ``cut``: only until the daemon begins to answer."""
    forth = threading.Thread(target=_pump, args=(client, daemon), daemon=True)
    forth.start()
    if cut:
        daemon.recv(1)
    else:
        _pump(daemon, client)
    for each in (client, daemon):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
    forth.join()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(*GONE):
        while block := source.recv(65536):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


def _read_all(client: socket.socket) -> None:
    with suppress(*GONE):
        while client.recv(65536):
            pass


@contextmanager
def docker_proxy(path: Path, url: str) -> Iterator[DockerProxy]:
    """A proxy that serves until the end of the block; ``path`` must be short."""
    made = DockerProxy(path, url)
    try:
        yield made
    finally:
        made.close()
