"""``kopiwatch healthcheck``.

Started every minute by Docker, so it imports nothing that it does not need.
"""

from __future__ import annotations

import os
import socket
import sys

import click

from kopiwatch.config import load
from kopiwatch.daemon import SOCKET

TIMEOUT_SECONDS = 5.0


@click.command(epilog="\b\nExample:\n  kopiwatch healthcheck && echo alive")
def healthcheck() -> None:
    """Exit 0 if the daemon of this state folder is alive, else 1. For Docker's HEALTHCHECK."""
    place = load(os.environ).state_dir / SOCKET
    try:
        answer = ask(str(place), "/healthz")
    except OSError as error:
        sys.stderr.write(f"error: no daemon answers at {place}: {error.strerror or error}\n")
        raise SystemExit(1) from None
    healthy = answer.startswith(b"HTTP/1.1 200 ")
    sys.stdout.write("alive\n" if healthy else answer.decode(errors="replace"))
    raise SystemExit(0 if healthy else 1)


def ask(path: str, what: str) -> bytes:
    """The answer to one GET over a Unix socket, head and body. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(TIMEOUT_SECONDS)
        connection.connect(path)
        request = f"GET {what} HTTP/1.1\r\nHost: daemon\r\nConnection: close\r\n\r\n"
        connection.sendall(request.encode())
        answer = b""
        while chunk := connection.recv(4096):
            answer += chunk
    return answer
