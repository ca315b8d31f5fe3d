"""The rounds: bare, a run with nothing changed, bare, a run with 1 % changed."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field

from support.site import Site

from downtiming.bare import bare
from downtiming.stack import Stack

WINDOW = ("stop", "read", "start", "health")
Round = dict[str, float]


@dataclass
class Rounds:
    """What was measured: per kind of run its figures in seconds, by name, one for each round.

    ``window`` is the downtime, of all units together; ``ratio`` that beside the bare one of just
    before; ``processor`` the processor time of what this host started for it (with worker access
    not Kopia's own, which runs in a container).
    """

    first: list[Round] = field(default_factory=list)
    bare: list[Round] = field(default_factory=list)
    unchanged: list[Round] = field(default_factory=list)
    changed: list[Round] = field(default_factory=list)

    def kinds(self) -> Iterator[tuple[str, list[Round]]]:
        """Those that were measured, in the order of the table."""
        for name in ("bare", "first", "unchanged", "changed"):
            if found := getattr(self, name):
                yield name, found


def measure(site: Site, stack: Stack, mode: str, rounds: int) -> Rounds:
    """All rounds of one stack."""
    found = Rounds()
    stack.wait()
    found.first.append(run(site, stack, without(stack, mode)))
    for _ in range(rounds):
        for kind in (found.unchanged, found.changed):
            found.bare.append(without(stack, mode))
            if kind is found.changed:
                stack.change()
            kind.append(run(site, stack, found.bare[-1]))
    return found


def without(stack: Stack, mode: str) -> Round:
    """Bare, unit by unit."""
    stack.wait()
    total: Round = {}
    for levels in stack.units.values():
        for name, seconds in bare(levels, mode).items():
            total[name] = total.get(name, 0.0) + seconds
    stack.wait()
    return total


def run(site: Site, stack: Stack, beside: Round) -> Round:
    """One backup of all units."""
    before = _processor()
    answer = json.loads(site.ok("backup", *stack.units, "--json", timeout=1200))
    total: Round = {"processor": _processor() - before}
    for each in answer["runs"]:
        assert each["verdict"] == "success", each
        total["window"] = total.get("window", 0.0) + each["window"]
        for phase in each["phases"]:
            name = phase["phase"]
            total[name] = total.get(name, 0.0) + phase["seconds"]
    total["ratio"] = total["window"] / beside["window"]
    # What no phase of the window covers: journals, and asking Docker who runs.
    total["between"] = total["window"] - sum(total.get(name, 0.0) for name in WINDOW)
    return total


def _processor() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
