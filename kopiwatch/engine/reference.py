"""Names and ids as they stand in the path of a call to Docker."""

from __future__ import annotations

import re
from urllib.parse import quote

from kopiwatch.errors import ContainerGone, EngineError

_FULL_ID = re.compile(r"[0-9a-f]{64}")
_CONTAINER = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")


def container_path(container: str) -> str:
    """``containers/<id or name>``.

    Raises ContainerGone for what no container can be called: an empty name in a path would ask for
    the list instead, and a name with slashes for something else.
    """
    name = container.removeprefix("/")
    if not _CONTAINER.fullmatch(name):
        raise ContainerGone(f"there is no container {container!r}: that is not a container's name")
    return f"containers/{name}"


def shown(container: str) -> str:
    """A container as sentences name it: its name, or the first 12 digits of its id."""
    return container[:12] if _FULL_ID.fullmatch(container) else container


def image_path(reference: str) -> str:
    """``images/<reference>/json``. Raises EngineError for an empty reference."""
    if not reference.strip("/. "):
        raise EngineError("no image is named")
    return f"images/{quote(reference, safe='/:@')}/json"


def named_path(collection: str, name: str) -> str | None:
    """``volumes/<name>`` or ``networks/<name>``; None for a name that nothing can have."""
    if not name.strip("/. "):
        return None
    return f"{collection}/{quote(name, safe='')}"
