"""A worker's program in memory: it plays Kopia at the gate, on a fake engine and repository.

Give :meth:`FakeProgram.script` to a :class:`kopiwatch.testing.engine.FakeEngine`. It follows the
protocol of :mod:`kopiwatch.worker.program` and puts a snapshot into the repository on ``flush``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from kopiwatch.testing.engine_worker import FakeWorker
from kopiwatch.testing.kopia import FakeRepository
from kopiwatch.testing.stage import FakeStage

Step = Literal[
    "start",
    "set-up",
    "survey",
    "files",
    "sync",
    "probe-stage",
    "pre-stage",
    "stage",
    "unstage",
    "launch",
    "go",
    "flush",
    "kill",
]


class FakeProgram:
    """Plays every worker of one engine.

    ``trees`` holds the files of a source by its path in the tree (``volumes/data``); a source that
    is mounted but not named has one file. ``host_files`` are files of Docker's host by their path
    there, for the recipe. ``ignored`` counts entry errors by source that the policy
    ignores; ``volatile`` are paths in the tree that lie in memory. ``found`` is what the walk tells
    of a source beside its size. ``stage`` plays its stage; ``hot_code`` is how a Kopia without a
    gate ends, and ``read_at`` what Kopia was told to read in the place of the live tree. ``at``
    lets a test act when a step is reached: the function gets the worker and says whether it has
    dealt with the step by itself.
    """

    def __init__(self, repository: FakeRepository) -> None:
        self.repository = repository
        self.trees: dict[str, dict[str, bytes]] = {}
        self.host_files: dict[str, bytes] = {}
        self.missing: set[str] = set()
        self.volatile: tuple[str, ...] = ()
        self.failed = 0
        self.ignored: dict[str, int] = {}
        self.found: dict[str, dict[str, object]] = {}
        self.killed = False
        self.steps: list[str] = []
        self.argv: list[str] = []
        self.stage = FakeStage()
        self.hot_code = 0
        self.read_at = ""
        self._at: dict[Step, Callable[[FakeWorker], bool]] = {}

    def at(self, step: Step, action: Callable[[FakeWorker], bool]) -> None:
        """Call ``action`` when this step is reached; True means that the step is done with."""
        self._at[step] = action

    def exits(self, step: Step, *, code: int = 1, errors: str = "") -> None:
        """Let Kopia end at this step instead of going on."""

        def leave(worker: FakeWorker) -> bool:
            self._say(worker, "exit", code=code, err=errors)
            return True

        self.at(step, leave)

    def hangs(self, step: Step) -> None:
        """Let nothing happen at this step."""
        self.at(step, lambda _: True)

    def script(self, worker: FakeWorker, line: bytes | None) -> None:
        """One order, as the engine passes it on; None when the worker starts."""
        order: dict[str, Any] = {"do": "start"} if line is None else json.loads(line)
        step = order["do"]
        self.steps.append(step)
        self.killed = self.killed or step == "kill"
        if not (step in self._at and self._at[step](worker)):
            self._answer(worker, step, order)

    def _answer(self, worker: FakeWorker, step: str, order: Mapping[str, Any]) -> None:
        if step == "start":
            self._say(worker, "hello", protocol=3)
        elif step == "set-up":
            volatile = [path for path in order["expect"] if path.endswith(self.volatile)]
            self._say(worker, "set-up", volatile=volatile)
        elif step == "sync":
            self._say(worker, "synced")
        elif step == "survey":
            self._say(worker, "surveyed", result=self._survey(order))
        elif step == "files":
            self._say(worker, "files", result=self._files(worker, order))
        elif step == "launch":
            self.argv = list(order["argv"])
            if "--force-enable-actions" in self.argv:
                self._say(worker, "ready")
            else:
                self._say(worker, "exit", code=self.hot_code, out=self._store(worker))
        elif step == "go":
            self.read_at = order.get("path", "")
            self._say(worker, "read")
        elif answer := self.stage.answer(order, self.trees):
            worker.say(json.dumps(answer).encode())
        elif step == "flush":
            self._say(worker, "exit", code=0, out=self._store(worker))
        elif step == "kill":
            self._say(worker, "exit", killed=True, code=-9)

    def drop(self, worker: FakeWorker, *, killed: bool = False) -> None:
        """Let room run out: the stage goes, and a Kopia that reads from it is killed first."""
        self.stage.held = {}
        self.stage.fails |= {"pre-stage": "dropped", "stage": "dropped"}
        if killed:
            self._say(worker, "exit", killed=True, code=-9)
        self._say(worker, "dropped", result={"free": 1 << 20, "reserve": 1 << 30})

    def _survey(self, order: Mapping[str, Any]) -> dict[str, object]:
        """Figures of the trees; everything is new, and nothing is written where ``into`` says."""
        found = []
        for source in order["sources"]:
            sizes = [len(content) for content in self._tree(source["name"]).values()]
            figures = {"files": len(sizes), "bytes": sum(sizes)}
            changed = {
                "changed_files": len(sizes),
                "changed_bytes": sum(sizes),
                "largest_changed": max(sizes, default=0),
            }
            given = self.found.get(source["name"], {})
            found.append({"path": source["name"], **figures, **changed, **given})
        return {"since": order["since"], "sources": found}

    def _tree(self, path: str) -> dict[str, bytes]:
        return self.trees.get(path, {"file": b"content"})

    def _files(self, worker: FakeWorker, order: Mapping[str, Any]) -> list[dict[str, object]]:
        """What the worker's own reader would find, as far as paths decide it."""
        mounted = {mount.target for mount in worker.spec.mounts}
        hosts = [host for host, point in order["roots"] if point in mounted]
        below = tuple(f"{folder}/" for folder in order["folders"])
        listed = [path for path in self.host_files if below and path.startswith(below)]
        return [self._file(path, hosts) for path in (*listed, *order["paths"])]

    def _file(self, path: str, hosts: list[str]) -> dict[str, object]:
        if not any(path == host or path.startswith(f"{host}/") for host in hosts):
            return {"path": path, "reason": "outside", "text": "it lies outside what may be read"}
        content = self.host_files.get(path)
        if content is None:
            return {"path": path, "reason": "missing", "text": "it is not there"}
        coded = base64.b64encode(content).decode()
        return {"path": path, "content": coded, "mode": 0o640, "uid": 1000, "gid": 1000, "mtime": 1}

    def _store(self, worker: FakeWorker) -> str:
        """Put what is mounted into the repository; returns Kopia's line."""
        root = next(a for a in self.argv if a.startswith("/mnt/"))
        held = self.stage.held if self.read_at and "/.hot/" not in root else {}
        tags = dict(
            argument.removeprefix("--tags=kopiwatch-").split(":", 1)
            for argument in self.argv
            if argument.startswith("--tags=kopiwatch-")
        )
        files: dict[str, bytes] = {}
        for mount in worker.spec.mounts:
            path = mount.target.removeprefix(root + "/")
            if mount.target.startswith(root + "/") and path not in self.missing:
                tree = held.get(path, self._tree(path))
                files |= {f"{path}/{name}": content for name, content in tree.items()}
                files.setdefault(f"{path}/", b"")
        snapshot = self.repository.add_snapshot(
            root, files, tags=tags, failed=self.failed, ignored=self.ignored
        )
        return msgspec.json.encode(snapshot).decode() + "\n"

    @staticmethod
    def _say(worker: FakeWorker, what: str, **fields: object) -> None:
        worker.say(json.dumps({"say": what, **fields}).encode())
