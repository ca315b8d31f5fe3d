"""A fake ``kopia`` executable for tests of processes; it runs ``kopia_program.py`` beside it."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path

import msgspec

from kopiwatch.testing import kopia_program


class Rule(msgspec.Struct, frozen=True):
    """What the fake does instead of the real thing when its arguments contain ``match``.

    It prints ``stdout`` and ``stderr`` and exits with ``code``; before that it may write ``flood``
    bytes to each of both pipes, start ``children`` that ignore SIGTERM in process groups of their
    own, echo its standard input, ``hang`` for ever, ignore SIGTERM, or die by a ``signal``.
    """

    match: str = ""
    stdout: str = ""
    stderr: str = ""
    code: int = 0
    flood: int = 0
    children: int = 0
    read_stdin: bool = False
    hang: bool = False
    ignore_term: bool = False
    signal: int = 0


class Call(msgspec.Struct, frozen=True):
    """One start of the fake: its arguments, environment, PID, and the files it inherited."""

    argv: tuple[str, ...]
    env: dict[str, str]
    pid: int
    fds: tuple[str, ...]


class FakeKopia:
    """Writes the executable ``<folder>/kopia``; name it in ``KOPIWATCH_KOPIA`` or Config.kopia.

    Without rules it imitates version, ``repository create|connect|status``, ``policy
    import|list|show`` and ``snapshot create|list|pin|delete``, gate included.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.path = folder / "kopia"
        self.tell()
        program = shlex.quote(str(Path(kopia_program.__file__)))
        self.path.write_text(
            f"#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {program} "
            f'{shlex.quote(str(folder))} "$@"\n'
        )
        self.path.chmod(0o700)

    def tell(self, *rules: Rule) -> None:
        """From now on follow these rules, the first that fits; none means: behave."""
        (self._folder / "rules.json").write_bytes(msgspec.json.encode(rules))

    def calls(self) -> list[Call]:
        """Every start so far, oldest first."""
        try:
            lines = (self._folder / "calls.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return []
        return [msgspec.convert(json.loads(line), Call) for line in lines]
