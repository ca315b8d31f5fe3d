"""What the recipe says of a dump: enough to feed it back without the labels of its member."""

from __future__ import annotations

import msgspec

from kopiwatch.backup.dump.client import CLIENTS
from kopiwatch.units.dump import DumpEngine, places
from kopiwatch.units.unit import Unit


class DumpRecord(msgspec.Struct, frozen=True):
    """One dump. ``path`` is its place in the tree, ``member`` the container's name.

    ``service`` and ``number`` are its Compose identity, empty outside Compose. ``user`` and
    ``database`` are empty where the member's environment says it; ``file`` is SQLite's file in the
    container. ``feed`` is a shell command that takes the dump back by standard input inside the
    member; empty where that is no matter of one command.
    """

    path: str
    engine: DumpEngine
    member: str
    service: str
    number: str
    format: str
    user: str = ""
    database: str = ""
    file: str = ""
    feed: str = ""


def records(unit: Unit) -> tuple[DumpRecord, ...]:
    """The dumps of a unit, by their place."""
    asked = [(m.container, m.settings.dump) for m in unit.members if m.settings.dump is not None]
    where = places(asked)
    found = [
        DumpRecord(
            path=where[container.id],
            engine=dump.engine,
            member=container.name,
            service=container.service,
            number=container.number,
            format=CLIENTS[dump.engine].format,
            user=dump.user,
            database=dump.database,
            file=dump.path,
            feed=CLIENTS[dump.engine].feed,
        )
        for container, dump in asked
    ]
    return tuple(sorted(found, key=lambda record: record.path))
