"""Names of places in a unit's tree, and how paths on Docker's host relate.

Every name is a single path component and no two things get the same one: what a name cannot hold
is percent-encoded, the percent sign included.
"""

from __future__ import annotations

import hashlib
import posixpath
import re

COMPONENT_LIMIT = 200
"""The longest component that we write, in bytes; Linux takes 255."""


def volume_place(name: str) -> str:
    """Where the volume ``name`` lies: ``volumes/shop_db``."""
    return f"volumes/{_component(_escape(name, ':/'))}"


def anonymous_place(owner: str, destination: str) -> str:
    """Where an anonymous volume lies: by who mounts it, and where (``volumes/web:%2Fdata``).

    Its own name changes whenever the container is made anew, so it is no identity.
    """
    inner = f"{_escape(owner, ':/')}:{_escape(destination, '/')}"
    return f"volumes/{_component(inner)}"


def bind_place(host_path: str) -> str:
    """Where a bind mount of ``host_path`` (absolute) lies: ``binds/srv~www`` for ``/srv/www``."""
    inner = _escape(host_path.removeprefix("/"), "~").replace("/", "~")
    return f"binds/{_component(inner)}"


def dump_place(owner: str, engine: str, extension: str) -> str:
    """Where the dump of a database lies: ``dumps/db.postgres.sql``."""
    inner = f"{_escape(owner, '/')}.{engine}.{extension}"
    return f"dumps/{_component(inner)}"


def clean(path: str) -> str:
    """The same path without doubled or trailing slashes; ``..`` stays, a link may hide there."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    return "/" + "/".join(parts)


def inside(path: str, folder: str) -> bool:
    """Whether ``path`` is ``folder`` or lies in it, by the text of both."""
    path, folder = normal(path), normal(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def overlap(one: str, other: str) -> bool:
    """Whether what is written below one of these paths can be seen below the other."""
    return inside(one, other) or inside(other, one)


def normal(path: str) -> str:
    """The path with ``..`` resolved by its text alone."""
    return posixpath.normpath("/" + path.lstrip("/"))


def _escape(text: str, reserved: str) -> str:
    pattern = f"[%\\x00-\\x1f\\x7f{re.escape(reserved)}]"
    return re.sub(pattern, lambda match: f"%{ord(match[0]):02X}", text)


def _component(name: str) -> str:
    """``name``, escaped already, as something that a file system takes."""
    if name in ("", ".", ".."):
        # "%" and a letter outside A-F never come from escaping, so nothing else gets this name.
        return f"%n{len(name)}"
    whole = name.encode("utf-8", "surrogatepass")
    if len(whole) <= COMPONENT_LIMIT:
        return name
    head = whole[: COMPONENT_LIMIT - 40].decode("utf-8", "ignore")
    digest = hashlib.sha256(whole).hexdigest()[:32]
    return f"{head}%h{digest}"
