"""Database dumps: what the labels of a member ask for, and where it lies in the unit's tree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from typing import Literal

import msgspec

from kopiwatch.units.container import Container
from kopiwatch.units.place import dump_place

DumpEngine = Literal["postgres", "mysql", "mariadb", "mongodb", "redis", "sqlite", "command"]
PREFIX = "kopi.dump"

EXTENSIONS: dict[DumpEngine, str] = {
    "postgres": "sql",
    "mysql": "sql",
    "mariadb": "sql",
    "mongodb": "archive",
    "redis": "rdb",
    "sqlite": "db",
    "command": "dump",
}
"""What a dump's name ends with, by engine."""

_IDLE: dict[DumpEngine, tuple[str, ...]] = {
    "redis": ("database",),
    "sqlite": ("user", "database", "password_env", "password_file"),
    "command": ("user", "database"),
}
"""What an engine has no use for. Whoever gives it expects something that will not happen."""


class DumpSettings(msgspec.Struct, frozen=True):
    """What one member is to be asked for.

    ``path`` is SQLite's file in the container, ``command`` the argv of the engine ``command``.
    ``user`` and ``database`` empty: what the container's environment says. ``password_env`` and
    ``password_file`` name a variable or a file of the sidecar; the password itself is nowhere here.
    """

    engine: DumpEngine
    path: str = ""
    command: tuple[str, ...] = ()
    user: str = ""
    database: str = ""
    timeout: timedelta = timedelta(hours=1)
    password_env: str = ""
    password_file: str = ""


def read_settings(values: Mapping[str, object]) -> DumpSettings | None:
    """The dump that these typed values by label ask for; None without ``kopi.dump``."""
    asked = values.get(PREFIX)
    if not isinstance(asked, str):
        return None
    engine, _, path = asked.partition(":")
    rest = {
        name.removeprefix(f"{PREFIX}."): value
        for name, value in values.items()
        if name.startswith(f"{PREFIX}.")
    }
    return msgspec.convert({"engine": engine, "path": path, **rest}, DumpSettings)


def faults(values: Mapping[str, object], own: Iterable[str]) -> Iterator[tuple[str, str, str]]:
    """What does not fit together: the label, the reason, and what to do.

    ``own`` are the labels that stand on the container itself: what a profile says to many may be
    of no use to some.
    """
    dump, own = read_settings(values), set(own)
    given = {name.removeprefix(f"{PREFIX}.") for name in own if name.startswith(f"{PREFIX}.")}
    if dump is None:
        for name in sorted(given - {"timeout"}):
            yield f"{PREFIX}.{name}", "says how to dump, and nothing is dumped", f"add {PREFIX}"
        return
    if dump.engine == "command" and not dump.command:
        yield PREFIX, "does not say which command", f"add {PREFIX}.command"
    if dump.engine != "command" and "command" in given:
        reason = f"is not run with {PREFIX}={dump.engine}"
        yield f"{PREFIX}.command", reason, f"set {PREFIX} to 'command', or remove it"
    for name in _IDLE.get(dump.engine, ()):
        if name in given:
            yield f"{PREFIX}.{name}", f"has no meaning with {PREFIX}={dump.engine}", "remove it"
    if dump.password_env and dump.password_file:
        reason = f"says where the password is, and so does {PREFIX}.password_file"
        yield f"{PREFIX}.password_env", reason, "keep one of them"
    if dump.password_env.upper().startswith(("KOPIWATCH_", "KOPIA_")):
        reason = "names a variable of kopiwatch itself, which is given to no container"
        yield f"{PREFIX}.password_env", reason, "put the database's password into one of its own"


def places(dumps: Iterable[tuple[Container, DumpSettings]]) -> dict[str, str]:
    """Where each member's dump lies in the tree, by the container's id.

    By the Compose service, which outlives the container, where that says which member is meant,
    with its number where the service is scaled; else by the container's name.
    """
    wanted = [(each, dump) for each, dump in dumps]
    services = Counter((each.service, dump.engine) for each, dump in wanted)
    numbered = Counter((each.service, each.number, dump.engine) for each, dump in wanted)
    found = {}
    for container, dump in wanted:
        service, number = container.service, container.number
        owner = container.name
        if service and services[service, dump.engine] == 1:
            owner = service
        elif service and number and numbered[service, number, dump.engine] == 1:
            owner = f"{service}-{number}"
        found[container.id] = dump_place(owner, dump.engine, EXTENSIONS[dump.engine])
    taken = Counter(found.values())
    for container, dump in wanted:
        if taken[found[container.id]] > 1:  # a service called like a container
            extension = EXTENSIONS[dump.engine]
            found[container.id] = dump_place(f"{container.name}:", dump.engine, extension)
    return found
