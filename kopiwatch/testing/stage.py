"""The worker's stage in memory, as :mod:`kopiwatch.worker.staging` speaks of it."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

Trees = dict[str, dict[str, bytes]]


class FakeStage:
    """What can be staged, and what is. A test sets the first and looks at the second.

    ``reflinks`` says whether sources can be cloned; ``refused`` are paths (``volumes/data``) that
    cannot, all the same. ``free`` and ``total`` are bytes. ``fails`` names an order that answers
    with an error of this reason. ``parts`` are the paths that were staged last, by how; ``held`` is
    what was staged of them.
    """

    def __init__(self) -> None:
        self.reflinks = True
        self.refused: set[str] = set()
        self.writable = True
        self.free = 100 << 30
        self.total = 200 << 30
        self.fails: dict[str, str] = {}
        self.parts: dict[str, str] = {}
        self.reserve = 0
        self.folder = ""
        self.held: Trees = {}
        self.orders: list[str] = []

    def answer(self, order: Mapping[str, Any], trees: Trees) -> dict[str, Any] | None:
        """What is said to an order of the stage; None for any other order."""
        do = order["do"]
        if do not in ("probe-stage", "pre-stage", "stage", "unstage"):
            return None
        self.orders.append(do)
        if do in self.fails:
            return {"say": "error", "reason": self.fails[do], "text": f"{do}: {self.fails[do]}"}
        if do == "probe-stage":
            return {"say": "probed", "result": self._probe(order)}
        if do == "unstage":
            self.held = {}
            return {"say": "unstaged", "result": {"files": 0, "bytes": 0, "seconds": 0.0}}
        if "parts" in order:
            self.parts = {part["target"]: part["how"] for part in order["parts"]}
            self.reserve = order["reserve"]
            self.folder = order["stage"]
        default = {"file": b"content"}
        self.held = {path: copy.copy(trees.get(path, default)) for path in self.parts}
        files = sum(len(tree) for tree in self.held.values())
        figures = {"files": files, "bytes": 0, "fresh": files, "seconds": 0.0}
        return {"say": "pre-staged" if do == "pre-stage" else "staged", "result": figures}

    def _probe(self, order: Mapping[str, Any]) -> dict[str, Any]:
        sources = []
        for source in order["sources"]:
            path = "/".join(source["path"].split("/")[-2:])
            clonable = self.reflinks and path not in self.refused
            why = "" if clonable else "Operation not supported"
            sources.append({"path": source["path"], "clonable": clonable, "why": why})
        found = {"free": self.free, "total": self.total, "sources": sources}
        usable = {"writable": self.writable, "why": "" if self.writable else "Read-only"}
        return {"stages": [{"stage": stage, **usable, **found} for stage in order["stages"]]}
