"""The worker program as a process of its own."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from pathlib import Path

PROGRAM = Path(__file__).parents[2] / "kopiwatch" / "worker"


class WorkerProcess:
    """The worker program, its orders and its answers."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def order(self, do: str, **fields: object) -> None:
        self.process.stdin.write(json.dumps({"do": do, **fields}).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, say: str) -> dict:
        line = self.process.stdout.readline()
        assert line, "the worker ended"
        said = json.loads(line)
        assert said["say"] == say, said
        return said

    def hear_any(self) -> dict:
        return json.loads(self.process.stdout.readline())

    def set_up(self, **fields: object) -> None:
        self.hear("hello")
        order = {
            "base": str(self.folder / "base"),
            "files": {"repository.config": base64.b64encode(b"{}").decode()},
            "expect": [],
            "sources": [],
            "probe": [str(self.folder)],
            "lock": str(self.folder / "kopia.lock"),
            "owner": '{"pid": 1}',
        }
        self.order("set-up", **(order | fields))

    def launch(self, script: str) -> None:
        self.order("launch", argv=["/bin/sh", "-c", script], env={"PATH": os.environ["PATH"]})

    def ask(self, do: str, say: str, **fields: object) -> dict:
        """Give an order and wait for its answer."""
        self.order(do, **fields)
        return self.hear(say)

    def end(self) -> None:
        """End it, without a word."""
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()
