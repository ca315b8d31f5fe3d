"""Graph arithmetic for order: levels, cycles, reach. Nodes are ids, edges go to what is needed."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

Needs = Mapping[str, Collection[str]]


def reach(start: Iterable[str], needs: Needs, *, stop: Collection[str] = ()) -> set[str]:
    """Everything that ``start`` needs, directly or not; nodes in ``stop`` are not passed through.

    A start node is itself part of the answer only if a path leads back to it.
    """
    found: set[str] = set()
    pending = [needed for node in start for needed in needs.get(node, ())]
    while pending:
        node = pending.pop()
        if node not in found:
            found.add(node)
            if node not in stop:
                pending.extend(needs.get(node, ()))
    return found


def cycle(nodes: Iterable[str], needs: Needs) -> tuple[str, ...]:
    """One cycle through one of ``nodes``, each id once, or ``()``; always the same for an input."""
    for start in sorted(nodes):
        came: dict[str, str] = {}
        pending = [start]
        while pending:
            node = pending.pop(0)
            for needed in sorted(needs.get(node, ())):
                if needed == start:
                    path = [node]
                    while path[-1] != start:
                        path.append(came[path[-1]])
                    return tuple(reversed(path))
                if needed not in came:
                    came[needed] = node
                    pending.append(needed)
    return ()


def sequence(nodes: Collection[str], needs: Needs, key: Callable[[str], Any]) -> list[str]:
    """The nodes one by one, each after what it needs, else by ``key``; cycles come last."""
    missing = {node: {n for n in needs.get(node, ()) if n in nodes} for node in nodes}
    ready = [(key(node), node) for node in nodes if not missing[node]]
    heapq.heapify(ready)
    order: list[str] = []
    while ready:
        _, done = heapq.heappop(ready)
        order.append(done)
        for node, needed in missing.items():
            if done in needed:
                needed.discard(done)
                if not needed:
                    heapq.heappush(ready, (key(node), node))
    rest = set(nodes).difference(order)
    return order + sorted(rest, key=lambda node: (key(node), node))


def levels(nodes: Collection[str], needs: Needs) -> tuple[tuple[str, ...], ...]:
    """Levels in which to start ``nodes``: each as early as what it needs allows.

    What lies on a cycle, or behind one, shares the last level: there is no right order for it.
    """
    rest = set(nodes)
    found: list[tuple[str, ...]] = []
    while rest:
        ready = {node for node in rest if not rest.intersection(needs.get(node, ()))}
        level = ready or rest
        found.append(tuple(sorted(level)))
        rest = rest - level
    return tuple(found)
