"""Who needs whom on a host: Compose's ``depends_on``, shared namespaces, ``volumes_from``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from kopiwatch.units.container import DEPENDS_LABEL, Container

HEALTHY = "service_healthy"
_CONDITIONS = ("service_started", HEALTHY, "service_completed_successfully")


class Namespaces(msgspec.Struct, frozen=True):
    """What only inspecting a container tells about what it shares.

    ``pid_mode`` and ``ipc_mode`` as Docker writes them (``container:<id or name>``, ``host``,
    empty); ``volumes_from`` holds ``<id or name>[:ro|:rw]``.
    """

    pid_mode: str = ""
    ipc_mode: str = ""
    volumes_from: tuple[str, ...] = ()


class Link(msgspec.Struct, frozen=True):
    """``dependent`` (an id) needs ``needed``: it starts after it and stops before it.

    A ``peer`` lives in something that ``needed`` owns, and cannot outlive it: who owns stops only
    after all peers have. ``healthy`` asks that ``needed`` be healthy first. ``why`` completes
    "dependent …", with the other's name to follow.
    """

    dependent: str
    needed: str
    why: str
    peer: bool = False
    healthy: bool = False


class Network(msgspec.Struct, frozen=True):
    """All containers of a host and the links between them; ``warnings`` by a container's id."""

    containers: dict[str, Container]
    links: tuple[Link, ...]
    warnings: dict[str, tuple[str, ...]]

    def needs(self) -> dict[str, list[Link]]:
        """The links by dependent."""
        found: dict[str, list[Link]] = defaultdict(list)
        for link in self.links:
            found[link.dependent].append(link)
        return found


def network(
    containers: Iterable[Container], namespaces: Mapping[str, Namespaces] | None = None
) -> Network:
    """The links between ``containers``; ``namespaces`` by id, for those that were inspected."""
    rows = sorted(containers, key=lambda row: (row.name, row.id))
    reading = _Reading(rows, namespaces or {})
    links = dict.fromkeys(link for row in rows for link in reading.links_of(row))
    warnings = {key: tuple(lines) for key, lines in reading.warnings.items()}
    return Network({row.id: row for row in rows}, tuple(links), warnings)


class _Reading:
    def __init__(self, rows: list[Container], namespaces: Mapping[str, Namespaces]) -> None:
        self.by_id = {row.id: row for row in rows}
        self.by_name = {row.name: row for row in rows}
        self.by_service: dict[tuple[str, str], list[Container]] = defaultdict(list)
        for row in rows:
            if row.project and row.service and not row.oneoff and not row.worker:
                self.by_service[row.project, row.service].append(row)
        self.namespaces = namespaces
        self.warnings: dict[str, list[str]] = defaultdict(list)

    def links_of(self, row: Container) -> Iterator[Link]:
        """What ``row`` needs."""
        yield from self.depends_on(row)
        shared = self.namespaces.get(row.id, Namespaces())
        for mode, why in (
            (row.network_mode, "shares the network of"),
            (shared.pid_mode, "shares the processes of"),
            (shared.ipc_mode, "shares the memory of"),
        ):
            kind, _, reference = mode.partition(":")
            if kind == "container":
                yield from self.peer(row, reference, why)
        for entry in shared.volumes_from:
            reference, _, option = entry.partition(":")
            # Who only reads another's volumes is no reason for downtime.
            yield from self.peer(row, reference, "has the volumes of", peer="ro" not in option)

    def peer(
        self, row: Container, reference: str, why: str, *, peer: bool = True
    ) -> Iterator[Link]:
        """The link to whom a namespace belongs; an owner that is gone is worth a warning."""
        owner = self.resolve(reference)
        if owner is None:
            shown = reference[:12] or "nobody"
            self.warnings[row.id].append(f"{row.name} {why} {shown}, which does not exist any more")
        else:
            yield Link(row.id, owner.id, why, peer=peer)

    def resolve(self, reference: str) -> Container | None:
        """The container of this id, name, or beginning of an id."""
        name = reference.removeprefix("/")
        found = self.by_id.get(reference) or self.by_name.get(name)
        if found is None and len(reference) >= 12:
            hits = [row for key, row in self.by_id.items() if key.startswith(reference)]
            found = hits[0] if len(hits) == 1 else None
        return found

    def depends_on(self, row: Container) -> Iterator[Link]:
        """Compose's label: ``service:condition:restart`` by comma, in old versions ``service``."""
        text = row.labels.get(DEPENDS_LABEL, "").strip()
        if row.oneoff or not text:
            return
        for part in text.split(","):
            service, *options = part.strip().split(":")
            condition = options[0] if options else ""
            if not service or len(options) > 2 or (condition and condition not in _CONDITIONS):
                self.warnings[row.id].append(
                    f"{row.name}: {part.strip()!r} in {DEPENDS_LABEL} is not understood"
                )
            for needed in self.by_service.get((row.project, service), ()):
                healthy = condition == HEALTHY
                yield Link(row.id, needed.id, "depends on", healthy=healthy)
