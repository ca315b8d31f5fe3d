"""How often Kopia is launched, for what, and how long it runs: told by a wrapper around it."""

from __future__ import annotations

import os
import shlex
from collections import defaultdict
from pathlib import Path

WRAPPER = """\
#!/bin/sh
begun=$(date +%s%N)
{kopia} "$@"
code=$?
echo "$begun $(date +%s%N) $*" >>{log}
exit $code
"""


class Launches:
    """A wrapper to be named as the Kopia program. It sees what this host starts, no container."""

    def __init__(self, folder: Path, kopia: str) -> None:
        self.program = folder / "counted-kopia"
        self.log = folder / "launches"
        text = WRAPPER.format(kopia=shlex.quote(kopia), log=shlex.quote(str(self.log)))
        self.program.write_text(text)
        self.program.chmod(0o755)

    def forget(self) -> None:
        """Begin to count anew."""
        self.log.unlink(missing_ok=True)

    def seconds(self) -> dict[str, list[float]]:
        """The time of each launch since, by the command's words."""
        found: dict[str, list[float]] = defaultdict(list)
        for line in self.log.read_text().splitlines() if self.log.exists() else ():
            begun, ended, *words = line.split(" ")
            plain = [word for word in words if not word.startswith("-")]
            command = " ".join(plain[: 1 if plain[:1] == ["show"] else 2]) or words[0]
            found[command].append((int(ended) - int(begun)) / 1e9)
        return dict(found)


def find_program(name: str) -> str:
    """The program that the variable names, else the name itself."""
    return os.environ.get("KOPIWATCH_KOPIA", name)
