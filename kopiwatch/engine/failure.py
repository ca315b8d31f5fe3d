"""Where foreign exceptions become ours: one context manager for every call to Docker."""

from __future__ import annotations

import errno
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
import msgspec
from aiodocker.exceptions import DockerError

from kopiwatch.errors import (
    ContainerGone,
    EngineDenied,
    EngineError,
    EngineRefused,
    EngineUnreachable,
    ImageMissing,
)

CONNECT_FAILED = 900
"""The status that aiodocker invents when there was no connection at all."""
GONE_WORDS = ("no such container", "no container with")
"""How Docker (20.10 to 29) and Podman say it. Any other 404 may be a proxy or a wrong address, and
"it is gone" would make us forget a container that we hold down."""
IMAGE_WORDS = ("no such image", "image not known")

_SECTIONS = {
    "containers": "CONTAINERS",
    "exec": "EXEC",
    "volumes": "VOLUMES",
    "networks": "NETWORKS",
    "images": "IMAGES",
    "info": "INFO",
    "version": "VERSION",
    "events": "EVENTS",
}


class Attempt(msgspec.Struct, frozen=True):
    """One call, as errors speak of it.

    ``doing`` completes "cannot …"; ``where`` is the address of Docker, without secrets; ``path``
    has no API version in it. ``late`` is the error for a total timeout.
    """

    doing: str
    where: str
    method: str = "GET"
    path: str = ""
    late: type[EngineError] = EngineUnreachable


@contextmanager
def translated(attempt: Attempt) -> Iterator[None]:
    """Turn whatever aiodocker, aiohttp and the decoder raise into an EngineError of the right kind.

    Raises EngineUnreachable (EngineRefused where nobody listens), EngineDenied, ContainerGone,
    ImageMissing, or EngineError.
    """
    try:
        yield
    except DockerError as error:
        raise _from_docker(attempt, error) from error
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _from_connection(attempt, error) from error
    except msgspec.DecodeError as error:
        raise EngineError(
            f"cannot {attempt.doing}: the answer of {attempt.where} is not understood ({error})",
            hint="check that this address is a Docker (or Podman) API",
        ) from error


def proxy_switches(method: str, path: str) -> str:
    """The switches of the usual socket proxy (Tecnativa's) that let this call through."""
    section, *rest = path.strip("/").split("/")
    if section == "containers" and method != "GET" and rest[1:] in (["start"], ["stop"]):
        return f"ALLOW_{rest[1].upper()}=1 (or CONTAINERS=1 and POST=1)"
    switches = [f"{_SECTIONS[section]}=1"] if section in _SECTIONS else []
    if method != "GET":
        switches.append("POST=1")
    if rest[1:] == ["exec"]:
        switches.append("EXEC=1")
    return ", ".join(switches) or "this call"


def _from_docker(attempt: Attempt, error: DockerError) -> EngineError:
    """Docker answered, and the answer is no."""
    if error.status == CONNECT_FAILED:
        cause = error.__context__
        return _from_connection(attempt, cause if isinstance(cause, Exception) else error)
    words = str(error.message).strip()
    sentence = f"cannot {attempt.doing}: {words or f'status {error.status}'}"
    if error.status == 403:
        return EngineDenied(
            f"{sentence} (403)",
            hint="a socket proxy or an authorization plugin refuses this; a proxy of the usual "
            f"kind needs {proxy_switches(attempt.method, attempt.path)}",
        )
    if error.status == 404:
        low = words.lower()
        if any(part in low for part in GONE_WORDS):
            return ContainerGone(sentence)
        if any(part in low for part in IMAGE_WORDS):
            return ImageMissing(sentence, hint="pull or build the image on this host")
    return EngineError(sentence)


def _from_connection(attempt: Attempt, error: Exception) -> EngineError:
    """There was no answer, or only half of one."""
    if isinstance(error, TimeoutError) and not isinstance(error, aiohttp.ServerTimeoutError):
        return attempt.late(
            f"cannot {attempt.doing}: Docker at {attempt.where} did not answer in time",
            hint="look at the daemon's log; it may hang on storage or on a network file system",
        )
    cause = getattr(error, "os_error", None) or error
    number = getattr(cause, "errno", None)
    if number in (errno.EACCES, errno.EPERM):
        return EngineDenied(
            f"cannot {attempt.doing}: no permission for {attempt.where}",
            hint="run as root, as a member of the socket's group, or with userns_mode: host",
        )
    reason, hint = _reason(cause, number)
    kind = EngineRefused if number == errno.ECONNREFUSED else EngineUnreachable
    return kind(
        f"cannot {attempt.doing}: Docker does not answer at {attempt.where}: {reason}", hint=hint
    )


def _reason(cause: BaseException, number: int | None) -> tuple[str, str]:
    """Why there is no connection, and what to do about it."""
    match number:
        case errno.ENOENT:
            return "there is no such socket", (
                "start Docker, mount its socket into this container, or set DOCKER_HOST"
            )
        case errno.ECONNREFUSED:
            return "nobody listens there", (
                "start Docker; if it was restarted under a mounted socket, recreate this container "
                "(mount the socket's folder, or use a socket proxy, to avoid this)"
            )
        case errno.ENOTSOCK | errno.ENOTDIR:
            return "that is not a socket", "set DOCKER_HOST to the address of the daemon"
        case _:
            pass
    if isinstance(cause, ssl.SSLError):
        return f"TLS failed ({cause.reason or 'handshake'})", (
            "check DOCKER_TLS_VERIFY and the certificates in DOCKER_CERT_PATH"
        )
    if isinstance(cause, aiohttp.ServerTimeoutError):
        return "no answer in time", "check the address, the network and the daemon's load"
    if isinstance(cause, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "it closed the connection", "look whether the daemon was restarted"
    return str(cause) or type(cause).__name__, "check the address and that the daemon runs"
