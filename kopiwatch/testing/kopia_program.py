"""A program that can stand in kopia's place: it obeys rules, and knows the simplest commands.

Started by the launcher that :mod:`kopiwatch.testing.kopia_fake` writes, as
``python kopia_program.py FOLDER ARGUMENTS…``. ``FOLDER`` holds ``rules.json`` (what to do instead
of the real thing), ``calls.jsonl`` (a line per start) and nothing else; the repository's state is
``fake.json`` beside its marker file, so that it goes where its disk goes. Standard library only,
for it is started often.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

MARKER = "kopia.repository.f"
VERSION = "0.23.1 build: fake from: kopiwatch"


def main() -> int:
    """Record the call, follow the first rule that fits, else behave like Kopia."""
    folder, arguments = Path(sys.argv[1]), sys.argv[2:]
    words = " ".join(a for a in arguments if not a.startswith("--"))
    flags = dict(a[2:].partition("=")[::2] for a in arguments if a.startswith("--"))
    _record(folder / "calls.jsonl", arguments)
    for rule in json.loads((folder / "rules.json").read_text()):
        if rule["match"] in " ".join(arguments):
            return _follow(rule)
    if "version" in flags:
        print(VERSION)
        return 0
    return Program(words.split(" "), flags).run()


def _record(path: Path, arguments: list[str]) -> None:
    call = {
        "argv": arguments,
        "env": dict(os.environ),
        "pid": os.getpid(),
        "fds": _inherited(),
    }
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(call) + "\n")


def _inherited() -> list[str]:
    """The files that are open besides the three standard streams."""
    found = []
    for entry in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            if int(entry.name) > 2:
                found.append(str(entry.readlink()))
    return sorted(found)


def _follow(rule: dict[str, Any]) -> int:
    if rule.get("ignore_term"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    for _ in range(rule.get("children", 0)):
        # In a process group of its own, as Kopia starts rclone, and deaf to SIGTERM.
        subprocess.Popen(
            ["/bin/sh", "-c", "trap '' TERM; while :; do sleep 1; done"],
            process_group=0,
        )
    if flood := rule.get("flood", 0):
        # In turns, so that a reader of only one of the two pipes would wait for ever.
        for _ in range(flood // 65536):
            os.write(1, b"o" * 65536)
            os.write(2, b"e" * 65535 + b"\n")
    sys.stdout.write(rule.get("stdout", ""))
    sys.stderr.write(rule.get("stderr", ""))
    sys.stdout.flush()
    sys.stderr.flush()
    if rule.get("read_stdin"):
        sys.stdout.write(sys.stdin.read())
    if rule.get("hang"):
        while True:
            time.sleep(60)
    if number := rule.get("signal", 0):
        os.kill(os.getpid(), number)
    return int(rule.get("code", 0))


class Program:
    """The commands that are imitated, as far as kopiwatch looks at them."""

    def __init__(self, words: list[str], flags: dict[str, str]) -> None:
        self.words = words
        self.flags = flags
        self.config = Path(flags.get("config-file", "repository.config"))

    def run(self) -> int:
        """Run the command that the words name."""
        name = "_".join(self.words[:2])
        command = getattr(self, name, None) or getattr(self, self.words[0], None)
        if command is None:
            _die(f'kopia: error: expected command but got "{self.words[0]}", try --help')
        command()
        return 0

    # -- the storage ---------------------------------------------------------------------------

    def _password(self) -> str:
        given = os.environ.get("KOPIA_PASSWORD")
        if not given:
            _die("open repository: get password: password prompt error: inappropriate ioctl")
        return given.strip()

    def _load(self, path: Path) -> dict[str, Any]:
        if not path.is_dir():
            _die(f"cannot open storage: cannot access storage path: stat {path}: no such file")
        if not (path / MARKER).exists():
            _die("unable to read format blob: error getting kopia.repository blob: BLOB not found")
        data: dict[str, Any] = json.loads((path / "fake.json").read_text())
        if data["password"] != hashlib.sha256(self._password().encode()).hexdigest():
            _die("open repository: unable to create format manager: invalid repository password")
        return data

    def _opened(self) -> tuple[Path, dict[str, Any], dict[str, Any]]:
        if not self.config.exists():
            _die("open repository: repository is not connected.")
        config = json.loads(self.config.read_text())
        path = Path(config["storage"]["config"]["path"])
        return path, self._load(path), config

    def _save(self, path: Path, data: dict[str, Any]) -> None:
        (path / "fake.json").write_text(json.dumps(data))

    def _connect(self, path: Path) -> None:
        config = {
            "storage": {"type": "filesystem", "config": {"path": str(path)}},
            "caching": {"cacheDirectory": self.flags["cache-directory"]},
            "hostname": self.flags["override-hostname"],
            "username": self.flags["override-username"],
        }
        self.config.write_text(json.dumps(config))

    # -- commands ------------------------------------------------------------------------------

    def repository_create(self) -> None:
        """``repository create filesystem``."""
        path = Path(self.flags["path"])
        if any(path.iterdir()):
            _die("unable to get repository storage: found existing data in storage location")
        digest = hashlib.sha256(self._password().encode()).hexdigest()
        data = {
            "unique_id": os.urandom(32).hex(),
            "password": digest,
            "policies": {},
            "snapshots": [],
        }
        self._save(path, data)
        (path / MARKER).write_text("{}")
        self._connect(path)

    def repository_connect(self) -> None:
        """``repository connect filesystem``; a failure removes the configuration, as Kopia does."""
        path = Path(self.flags["path"])
        try:
            self._load(path)
        except SystemExit:
            self.config.unlink(missing_ok=True)
            raise
        self._connect(path)

    def repository_status(self) -> None:
        """``repository status --json``."""
        _, data, config = self._opened()
        _show(
            {
                "uniqueIDHex": data["unique_id"],
                "clientOptions": {"hostname": config["hostname"], "username": config["username"]},
                "storage": config["storage"],
                "volume": {"capacity": 10**12, "available": 10**11},
            }
        )

    def policy_import(self) -> None:
        """``policy import`` from standard input."""
        path, data, _ = self._opened()
        data["policies"].update(json.load(sys.stdin))
        self._save(path, data)

    def policy_list(self) -> None:
        """``policy list --json``."""
        rows = []
        for target, policy in self._opened()[1]["policies"].items():
            user, _, rest = target.partition("@")
            host, _, below = rest.partition(":")
            at = {"userName": user, "host": host, "path": below}
            rows.append({"id": _hash(target), "target": at, **policy})
        _show(rows)

    def snapshot_list(self) -> None:
        """``snapshot list --json [SOURCE]``."""
        found = self._opened()[1]["snapshots"]
        wanted = " ".join(self.words[2:])
        _show([s for s in found if not wanted or _source(s["source"]) == wanted])

    def snapshot_create(self) -> None:
        """``snapshot create PATH``, through the actions of the host policy; counts only."""
        path, data, config = self._opened()
        source = {
            "host": config["hostname"],
            "userName": config["username"],
            "path": self.words[2],
        }
        begin = datetime.now(UTC)
        actions = data["policies"].get(f"kopiwatch@{config['hostname']}", {}).get("actions", {})
        place = self.words[2]
        if "force-enable-actions" in self.flags:
            place = _act(actions.get("beforeSnapshotRoot"), essential=True) or place
        files = [p for p in Path(place).rglob("*") if p.is_file()]
        summary = {
            "size": sum(p.stat().st_size for p in files),
            "files": len(files),
            "numFailed": 0,
        }
        if "force-enable-actions" in self.flags:
            _act(actions.get("afterSnapshotRoot"), essential=False)
        manifest = {
            "id": os.urandom(16).hex(),
            "source": source,
            "startTime": begin.isoformat(),
            "endTime": datetime.now(UTC).isoformat(),
            "rootEntry": {"name": "", "type": "d", "obj": f"k{_hash(begin)}", "summ": summary},
            "tags": dict([("tag:" + self.flags["tags"]).rsplit(":", 1)])
            if "tags" in self.flags
            else {},
        }
        data["snapshots"].append(manifest)
        self._save(path, data)
        _show(manifest)

    def snapshot_pin(self) -> None:
        """``snapshot pin ID --add=NAME``."""
        path, data, _ = self._opened()
        for snapshot in self._chosen(data, self.words[2:3]):
            snapshot["id"] = _hash(snapshot["id"])
            snapshot.setdefault("pins", []).append(self.flags["add"])
        self._save(path, data)

    def snapshot_delete(self) -> None:
        """``snapshot delete ID… --delete``."""
        path, data, _ = self._opened()
        gone = [s["id"] for s in self._chosen(data, self.words[2:])]
        if "delete" in self.flags:
            data["snapshots"] = [s for s in data["snapshots"] if s["id"] not in gone]
            self._save(path, data)

    def _chosen(self, data: dict[str, Any], ids: list[str]) -> list[dict[str, Any]]:
        for wanted in ids:
            if wanted not in [s["id"] for s in data["snapshots"]]:
                _die(f"no snapshots matched {wanted}")
        return [s for s in data["snapshots"] if s["id"] in ids]


def _act(action: dict[str, Any] | None, *, essential: bool) -> str:
    """Run an action; the path that it wants to be read instead, or nothing."""
    if action is None:
        return ""
    done = subprocess.run([action["path"], *action["args"]], stdout=subprocess.PIPE, check=False)
    if essential and done.returncode:
        _die(f"upload error: exit status {done.returncode}")
    said = dict(line.partition("=")[::2] for line in done.stdout.decode().splitlines())
    return str(said.get("KOPIA_SNAPSHOT_PATH", ""))


def _source(source: dict[str, str]) -> str:
    return f"{source['userName']}@{source['host']}:{source['path']}"


def _show(value: object) -> None:
    print(json.dumps(value))


def _hash(value: object) -> str:
    return hashlib.sha256(str(value).encode()).hexdigest()[:32]


def _die(text: str) -> NoReturn:
    print(text, file=sys.stderr)
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
