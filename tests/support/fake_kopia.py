"""A Kopia that hangs, dies and lies: a program around the real one, told by a file what to do.

:class:`FakeKopia` is the side of the tests. Run as a program, this file is what kopiwatch takes
for Kopia: ``fake_kopia.py FOLDER argument…``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

RULES = "rules.json"
GATED = ("read", "flush")


class FakeKopia:
    """``program`` stands in for Kopia; without rules it does what ``real`` does.

    Everything is in ``folder``, which must not lie below /mnt.
    """

    def __init__(self, folder: Path, real: str) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.program = folder / "kopia"
        (folder / "real").write_text(real)
        words = f"{sys.executable} -I -S {Path(__file__).absolute()} {folder}"
        self.program.write_text(f'#!/bin/sh\nexec {words} "$@"\n')
        self.program.chmod(0o755)
        self.clear()

    def rule(self, command: str, deed: str, *, at: str = "start", nth: int = 1) -> None:
        """What the ``nth`` run of a command from now on does (``snapshot create``, ``show`` …).

        ``at`` is when: ``start``, before anything; ``read`` and ``flush``, when the worker has
        opened the gate (the real Kopia never runs then, except for ``hold``, and there is no
        manifest); ``end``, when the real Kopia has ended well. ``deed`` is what:

        ``hold``     nothing until :meth:`release`, then on with the real one
        ``stubborn`` nothing for ever, also when it is asked to leave
        ``die``      SIGKILL
        ``fail``     exit 1, at ``end`` with a manifest
        ``silent``   exit 0 and print nothing
        ``garbage``  exit 0 and print what nobody understands
        ``phantom``  exit 0 and name the manifest that ``phantom`` was set to
        ``ungated``  as the real one, but without its gate (at ``start`` only)
        """
        (self.folder / "release").unlink(missing_ok=True)
        rules = json.loads((self.folder / RULES).read_text())
        rules.append({"command": command, "deed": deed, "at": at, "nth": nth})
        (self.folder / RULES).write_text(json.dumps(rules))

    def tell(self, manifest: object) -> None:
        """The manifest that a ``phantom`` names."""
        (self.folder / "phantom").write_text(json.dumps(manifest))

    def release(self) -> None:
        """Let what is held go on."""
        (self.folder / "release").touch()

    def clear(self) -> None:
        """As the real one from now on; what is held goes on."""
        self.release()
        for name in ("reached", "calls"):
            (self.folder / name).unlink(missing_ok=True)
        (self.folder / RULES).write_text("[]")

    @property
    def reached(self) -> int:
        """How many rules have come to their moment."""
        reached = self.folder / "reached"
        return len(reached.read_text()) if reached.exists() else 0


def main(folder: Path, arguments: list[str]) -> None:
    """Be Kopia."""
    real = (folder / "real").read_text()
    command = " ".join(word for word in arguments if not word.startswith("-"))
    rule = _rule(folder, command)
    if rule is None:
        os.execv(real, [real, *arguments])
    deed, at = rule["deed"], rule["at"]
    if deed == "ungated":
        _reach(folder)
        kept = [word for word in arguments if word != "--force-enable-actions"]
        os.execv(real, [real, *kept])
    if deed == "hold" and at in GATED:
        _between(folder, [real, *arguments], at)
    output = b""
    if at in GATED:
        _gate("before", "go")
    if at == "flush":
        _gate("after", "flush")
    if at == "end":
        done = subprocess.run([real, *arguments], stdout=subprocess.PIPE, check=False)
        output = done.stdout
        if done.returncode != 0:
            sys.exit(done.returncode)
    _reach(folder)
    _do(folder, deed, output)
    os.execv(real, [real, *arguments])


def _rule(folder: Path, command: str) -> dict[str, str] | None:
    """The rule for this call, if any; each call is counted."""
    rules = json.loads((folder / RULES).read_text())
    wanted = [each for each in rules if command.startswith(each["command"])]
    if not wanted:
        return None
    with (folder / "calls").open("a+") as calls:
        calls.write(f"{command}\n")
        calls.seek(0)
        earlier = [line for line in calls if line.startswith(wanted[0]["command"])]
    return next((each for each in wanted if each["nth"] == len(earlier)), None)


def _gate(say: str, hear: str) -> None:
    """Speak at the gate in the real Kopia's place."""
    gate = Path(os.environ["KOPIWATCH_GATE"])
    (gate / "said").write_text(f"{say}\n")
    with (gate / "word").open() as words:
        if words.readline().strip() != hear:
            sys.exit(1)


def _between(folder: Path, argv: list[str], at: str) -> None:
    """Run the real Kopia at a gate of our own, and pass its words on when it is time."""
    own = folder / f"gate-{time.monotonic_ns()}"
    own.mkdir()
    pipes = []
    for name in ("said", "word"):
        os.mkfifo(own / name)
        pipes.append(os.open(own / name, os.O_RDWR))
    said, word = pipes
    environment = os.environ | {"KOPIWATCH_GATE": str(own)}
    # Its descriptors, too: with them it inherits the lock.
    child = subprocess.Popen(argv, env=environment, close_fds=False)
    for say, hear, phase in (("before", "go", "read"), ("after", "flush", "flush")):
        os.read(said, 100)
        _gate(say, hear)
        if phase == at:
            _reach(folder)
            _hold(folder)
        os.write(word, f"{hear}\n".encode())
    sys.exit(child.wait())


def _reach(folder: Path) -> None:
    with (folder / "reached").open("a") as reached:
        reached.write(".")


def _hold(folder: Path) -> None:
    while not (folder / "release").exists():
        time.sleep(0.02)


def _do(folder: Path, deed: str, output: bytes) -> None:
    match deed:
        case "hold":
            _hold(folder)
        case "stubborn":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            while True:
                time.sleep(60)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
        case "fail":
            sys.stdout.buffer.write(output)
            sys.exit("something went wrong, says the test")
        case "silent":
            sys.exit(0)
        case "garbage":
            print("{[]}\x00 nonsense")
            sys.exit(0)
        case "phantom":
            print((folder / "phantom").read_text())
            sys.exit(0)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
