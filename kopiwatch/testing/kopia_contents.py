"""What the fake repository of :mod:`kopiwatch.testing.kopia` is about: contents, place, state."""

from __future__ import annotations

import hashlib
from pathlib import Path

from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.outline import total
from kopiwatch.kopia.record import Directory, Entry, Snapshot, Summary
from kopiwatch.kopia.tree import FOLDERS


class FakeContents:
    """What is in a fake repository: all of it may be looked at and changed by a test."""

    def __init__(self, unique_id: str, password: str) -> None:
        self.unique_id = unique_id
        self.password = password
        self.policies: dict[str, dict[str, object]] = {}
        self.snapshots: list[Snapshot] = []
        self.directories: dict[str, Directory] = {}
        self.files: dict[str, bytes] = {}
        self.outlines: dict[str, dict[str, Entry]] = {}

    def store(self, name: str, files: dict[str, bytes], ignored: dict[str, int]) -> Entry:
        """Store a directory called ``name``; returns its entry.

        ``files`` maps relative paths to content; a path that ends in ``/`` is an empty directory.
        ``ignored`` are the errors that directories (relative paths) count; ``""`` is this one.
        """
        children: list[Entry] = []
        names = sorted({path.partition("/")[0] for path in files} - {""})
        for child in names:
            if child in files:
                obj = digest(files[child].hex() + " file")[:32]
                self.files[obj] = files[child]
                children.append(Entry(name=child, type="f", size=len(files[child]), obj=obj))
            else:
                prefix = f"{child}/"
                below = {
                    p.removeprefix(prefix): c for p, c in files.items() if p.startswith(prefix)
                }
                errors = {
                    p.removeprefix(prefix): n
                    for p, n in ignored.items()
                    if f"{p}/".startswith(prefix) and p != child
                }
                if child in ignored:
                    errors[""] = ignored[child]
                children.append(self.store(child, below, errors))
        summaries = [c.summ for c in children if c.summ]
        plain = [c for c in children if c.type == "f"]
        summary = Summary(
            size=sum(c.size for c in plain) + sum(s.size for s in summaries),
            files=len(plain) + sum(s.files for s in summaries),
            dirs=1 + sum(s.dirs for s in summaries),
            num_ignored_errors=ignored.get("", 0) + sum(s.num_ignored_errors for s in summaries),
        )
        obj = "k" + digest(repr(children))[:32]
        self.directories[obj] = Directory("kopia:directory", tuple(children), summary)
        return Entry(name=name, type="d", mode="0755", obj=obj, summ=summary)

    def find(self, path: str, attempt: str) -> Entry:
        """The entry at a path (``object/name/…``, or a snapshot's id in place of the object).

        Raises RepositoryError, which says what was attempted, if there is none.
        """
        first, *parts = path.rstrip("/").split("/")
        entry = Entry(name="", obj=first)
        for snapshot in self.snapshots:
            if snapshot.id == first and snapshot.root_entry:
                entry = snapshot.root_entry
        for part in parts:
            entries = self.directories.get(entry.obj, Directory("")).entries
            entry = next((e for e in entries if e.name == part), Entry(name="", obj=""))
        if entry.obj not in self.directories and entry.obj not in self.files:
            raise RepositoryError(f"{attempt}: content {path} not found: object not found")
        return entry

    def outline(self, snapshot: str, attempt: str) -> dict[str, Entry]:
        """The parts of a snapshot's tree, by path.

        Raises RepositoryError, which says what was attempted, if there is no such snapshot, and for
        a file in its root, which Kopia would restore instead of telling of it.
        """
        found: dict[str, Entry] = {}
        for top in self.directories[self.find(snapshot, attempt).obj].entries:
            if top.type != "d":
                raise RepositoryError(f"{attempt}: {top.name} is not a directory")
            inner = self.directories[top.obj].entries
            if top.name in FOLDERS:
                found |= {f"{top.name}/{entry.name}": entry for entry in inner}
            else:
                found[top.name] = Entry(top.name, "d", summ=total(inner))
        return found

    def write(self, entry: Entry, target: Path, counts: list[int]) -> None:
        """Write what an entry stands for to ``target``.

        ``counts`` takes how many files, directories and bytes that were. Blocks.
        """
        if entry.obj in self.files:
            content = self.files[entry.obj]
            target.write_bytes(content)
            counts[0] += 1
            counts[2] += len(content)
            return
        target.mkdir(parents=True, exist_ok=True)
        counts[1] += 1
        for child in self.directories[entry.obj].entries:
            self.write(child, target / child.name, counts)


class FakePlace:
    """A storage: one that is unmounted is not ``there``; one without ``contents`` is empty."""

    def __init__(self, path: str = "/repository/kopia", *, there: bool = True) -> None:
        self.path = path
        self.there = there
        self.contents: FakeContents | None = None


class FakeState:
    """What survives a process: the repository that is known, and whether we are connected."""

    def __init__(self) -> None:
        self.unique_id = ""
        self.path = ""
        self.host = ""
        self.password = ""
        self.connected = False


def digest(text: str) -> str:
    """Something that looks like the ids that Kopia makes of content."""
    return hashlib.sha256(text.encode()).hexdigest()
