"""A repository in memory, behind the Protocol of :mod:`kopiwatch.kopia.port`.

The contract suite holds it to what :class:`kopiwatch.kopia.repository.KopiaRepository` does.
"""

from __future__ import annotations

import base64
import itertools
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePosixPath

import anyio.to_thread
import msgspec

from kopiwatch.errors import (
    KopiwatchError,
    NotConnected,
    RepositoryError,
    RepositoryExists,
    RepositoryMismatch,
    RepositoryNotFound,
    RepositoryUnreachable,
    WrongPassword,
)
from kopiwatch.kopia import policy
from kopiwatch.kopia.answer import require_path, require_snapshots
from kopiwatch.kopia.argv import USER
from kopiwatch.kopia.outline import require_whole
from kopiwatch.kopia.port import Created, RestoreResult, WorkerFiles
from kopiwatch.kopia.record import (
    TAG,
    Capacity,
    ClientOptions,
    Directory,
    Entry,
    RepositoryStatus,
    Snapshot,
    SourceIdentity,
    Storage,
)
from kopiwatch.testing.kopia_contents import FakeContents, FakePlace, FakeState, digest

_numbers = itertools.count()
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class FakeRepository:
    """A repository that needs no Kopia.

    Without a ``place`` there is one with an empty repository in it, connected, with the host policy
    in order. ``calls`` lists the methods that were called, with their arguments. Make one fail
    with :meth:`fail`, look on with :meth:`hook`, put snapshots in with :meth:`add_snapshot`.
    """

    def __init__(
        self,
        place: FakePlace | None = None,
        *,
        host: str = "host",
        password: str | None = "password",  # noqa: S107 - it protects nothing
        state: FakeState | None = None,
    ) -> None:
        self.place = place or FakePlace()
        self.state = state or FakeState()
        self.calls: list[tuple[str, tuple[object, ...]]] = []
        self._host = host
        self._password = password
        self._failures: dict[str, list[KopiwatchError]] = {}
        self._hooks: dict[str, Callable[[], Awaitable[None]]] = {}
        self._serial = 0
        if place is None:
            self.place.contents = FakeContents(digest("repository"), password or "")
            self._adopt(self.place.contents)
            self.set_policy(policy.host_target(host), policy.HOST_POLICY)

    # -- for tests -----------------------------------------------------------------------------

    @property
    def contents(self) -> FakeContents:
        """What is in the repository."""
        if self.place.contents is None:
            raise ValueError("there is no repository in this place")
        return self.place.contents

    def fail(self, method: str, error: KopiwatchError, *, times: int = 1) -> None:
        """Let the next calls of a method raise an error, before they do anything."""
        if not hasattr(type(self), method):
            raise ValueError(f"a repository has no method {method!r}")
        self._failures.setdefault(method, []).extend([error] * times)

    def hook(self, method: str, action: Callable[[], Awaitable[None]]) -> None:
        """Await ``action`` whenever a method is called, before it does anything."""
        if not hasattr(type(self), method):
            raise ValueError(f"a repository has no method {method!r}")
        self._hooks[method] = action

    def set_policy(self, target: str, value: Mapping[str, object] | None) -> None:
        """Define (or remove) the policy of a target, as somebody else might."""
        if value is None:
            self.contents.policies.pop(target, None)
        else:
            self.contents.policies[target] = msgspec.json.decode(msgspec.json.encode(value))

    def add_snapshot(
        self,
        path: str,
        files: Mapping[str, bytes] | None = None,
        *,
        tags: Mapping[str, str] | None = None,
        start: datetime | None = None,
        incomplete: str = "",
        host: str = "",
        failed: int = 0,
        ignored: Mapping[str, int] | None = None,
    ) -> Snapshot:
        """Store a snapshot of ``kopiwatch@<host>:<path>``.

        ``files`` maps relative paths to content; a path that ends in ``/`` is an empty directory.
        ``tags`` by their short names. ``failed`` fatal entry errors are counted at the root;
        ``ignored`` ones at the directories (relative paths) that it names, and above them.
        """
        self._serial += 1
        start = start or _EPOCH + timedelta(minutes=self._serial)
        root = self.contents.store(PurePosixPath(path).name, dict(files or {}), dict(ignored or {}))
        if failed and root.summ:
            summary = msgspec.structs.replace(root.summ, num_failed=failed)
            root = msgspec.structs.replace(root, summ=summary)
        snapshot = Snapshot(
            id=digest(f"snapshot {self._serial} {path}")[:32],
            source=SourceIdentity(host or self.host, USER, path),
            start_time=start,
            end_time=start + timedelta(seconds=1),
            incomplete=incomplete,
            root_entry=root,
            tags={TAG + name: value for name, value in (tags or {}).items()},
        )
        self.contents.snapshots.append(snapshot)
        return snapshot

    # -- the Protocol --------------------------------------------------------------------------

    @property
    def host(self) -> str:
        """The host of our identity."""
        return self.state.host or self._host

    async def create(self) -> Created:
        """Make a repository in an empty place for a state that knows none."""
        await self._called("create")
        if self.state.unique_id:
            raise RepositoryExists(f"this state belongs to the repository {self.state.unique_id}")
        self._require_place()
        if self.place.contents is not None:
            raise RepositoryExists(f"there is a repository in {self.place.path} already")
        generated = self._password is None
        password = self._password or self.state.password or digest("generated")
        if generated:
            self.state.password = password
        self.place.contents = FakeContents(digest(f"repository {next(_numbers)}"), password)
        self._adopt(self.place.contents)
        return Created(self._status(), Path("/state/password") if generated else None)

    async def connect(self) -> RepositoryStatus:
        """Connect to what is there."""
        await self._called("connect")
        if self.state.unique_id and self.state.path != self.place.path:
            raise self._mismatch(self.place.path)
        contents = self._open()
        if self.state.unique_id and self.state.unique_id != contents.unique_id:
            raise self._mismatch(contents.unique_id)
        self._adopt(contents)
        return self._status()

    async def ensure_connected(self) -> None:
        """Connect if there is no connection."""
        await self._called("ensure_connected")
        if not self.state.connected:
            await self.connect()
        elif self.state.path != self.place.path:
            raise self._mismatch(self.place.path)

    async def status(self) -> RepositoryStatus:
        """Reachable, and the one we know."""
        await self._called("status")
        contents = self._connected()
        if contents.unique_id != self.state.unique_id:
            raise self._mismatch(contents.unique_id)
        return self._status()

    async def snapshots(self, source: str = "") -> tuple[Snapshot, ...]:
        """All snapshots of a source, or of all; oldest first per source."""
        await self._called("snapshots", source)
        found = self._connected().snapshots
        wanted = (s for s in found if not source or str(s.source) == source)
        return tuple(sorted(wanted, key=lambda s: (str(s.source), s.start_time)))

    async def directory(self, obj: str) -> Directory:
        """A directory object."""
        await self._called("directory", obj)
        attempt = f"reading the directory {obj}"
        require_path(obj, attempt)
        contents = self._connected()
        entry = contents.find(obj, attempt)
        if entry.obj not in contents.directories:
            raise RepositoryError(f"{attempt}: that is not a directory")
        return contents.directories[entry.obj]

    async def outline(self, snapshot: Snapshot) -> dict[str, Entry]:
        """What a snapshot holds, by path."""
        await self._called("outline", snapshot)
        attempt = f"reading the tree of the snapshot {snapshot.id}"
        require_snapshots([snapshot.id], attempt)
        contents = self._connected()
        found = contents.outline(snapshot.id, attempt)
        require_whole(found, snapshot, attempt)
        if snapshot.root_entry:
            contents.outlines[snapshot.root_entry.obj] = found
        return found

    async def outlined(self, root: str) -> dict[str, Entry] | None:
        """What was told of a root object before."""
        await self._called("outlined", root)
        return self._connected().outlines.get(root)

    async def content(self, obj: str) -> bytes:
        """The bytes of one file."""
        await self._called("content", obj)
        attempt = f"reading the file {obj}"
        require_path(obj, attempt)
        contents = self._connected()
        return contents.files[contents.find(obj, attempt).obj]

    async def ensure_policy(self, host: str) -> bool:
        """Write the host policy on drift only."""
        await self._called("ensure_policy", host)
        target = policy.host_target(host)
        if not policy.drift(self._connected().policies.get(target)):
            return False
        self.set_policy(target, policy.HOST_POLICY)
        return True

    async def check_policy(self, source: str) -> None:
        """Raise unless the policy in effect is exactly ours."""
        await self._called("check_policy", source)
        policies = self._connected().policies
        defined = (
            policy.DefinedPolicy(policy.PolicyTarget(to.host, to.user_name, to.path), value)
            for to, value in ((_identity(target), value) for target, value in policies.items())
        )
        policy.check_defined(defined, _identity(source))

    async def pin(self, snapshot: str, name: str, *, instead_of: str = "") -> None:
        """Pin a snapshot; its id changes."""
        await self._called("pin", snapshot, name, *([instead_of] if instead_of else []))
        attempt = f"pinning the snapshot {snapshot}"
        require_snapshots([snapshot], attempt)
        contents = self._connected()
        for index, old in enumerate(contents.snapshots):
            if old.id == snapshot:
                kept = {pin for pin in old.pins if pin != instead_of}
                pins = tuple(sorted(kept | {name}))
                if pins != old.pins:
                    contents.snapshots[index] = msgspec.structs.replace(
                        old, id=digest(f"{old.id} {name}")[:32], pins=pins
                    )
                return
        raise RepositoryError(f"{attempt}: no snapshots matched {snapshot}")

    async def move_history(self, source: str, target: str) -> None:
        """Give the snapshots of one source to another; their ids change."""
        await self._called("move_history", source, target)
        contents = self._connected()
        contents.snapshots = [
            msgspec.structs.replace(
                old, id=digest(f"{old.id} {target}")[:32], source=_identity(target)
            )
            if str(old.source) == source
            else old
            for old in contents.snapshots
        ]

    async def delete(self, snapshots: tuple[str, ...]) -> None:
        """Delete manifests, all or none."""
        if not snapshots:
            return
        await self._called("delete", snapshots)
        attempt = f"deleting {len(snapshots)} snapshots"
        require_snapshots(snapshots, attempt)
        contents = self._connected()
        unknown = set(snapshots) - {s.id for s in contents.snapshots}
        if unknown:
            raise RepositoryError(f"{attempt}: no snapshots matched {min(unknown)}")
        contents.snapshots = [s for s in contents.snapshots if s.id not in snapshots]

    async def restore(self, path: str, target: Path, *, timeout: timedelta | None) -> RestoreResult:
        """Write the files of a snapshot, or of a path in it."""
        await self._called("restore", path, target, timeout)
        attempt = f"restoring {path} into {target}"
        require_path(path, attempt)
        if not target.is_absolute():
            raise ValueError(f"{target} is not an absolute path")
        contents = self._connected()
        counts = [0, 0, 0]
        entry = contents.find(path, attempt)
        await anyio.to_thread.run_sync(contents.write, entry, target, counts)
        return RestoreResult(files=counts[0], directories=counts[1], symlinks=0, size=counts[2])

    async def worker_files(
        self, *, cache_dir: Path | str, storage_path: Path | str | None = None
    ) -> WorkerFiles:
        """Something that looks like Kopia's configuration and credential."""
        await self._called("worker_files", cache_dir, storage_path)
        self._connected()
        config = {
            "storage": {"type": "filesystem", "config": {"path": str(storage_path)}},
            "caching": {"cacheDirectory": f"{cache_dir}/{self.state.unique_id[:16]}"},
            "hostname": self.host,
            "username": USER,
        }
        password = self._password or self.state.password
        return WorkerFiles(msgspec.json.encode(config), base64.b64encode(password.encode()))

    # -- inside --------------------------------------------------------------------------------

    async def _called(self, method: str, *arguments: object) -> None:
        self.calls.append((method, arguments))
        if method in self._hooks:
            await self._hooks[method]()
        if self._failures.get(method):
            raise self._failures[method].pop(0)

    def _require_place(self) -> None:
        if not self.place.there:
            raise RepositoryUnreachable(f"{self.place.path} does not exist")

    def _open(self) -> FakeContents:
        self._require_place()
        if self.place.contents is None:
            raise RepositoryNotFound(f"there is no repository in {self.place.path}")
        if (self._password or self.state.password) != self.place.contents.password:
            raise WrongPassword("the repository refuses the password")
        return self.place.contents

    def _connected(self) -> FakeContents:
        if not self.state.connected:
            raise NotConnected("there is no connection to a repository")
        if self.state.path != self.place.path:
            raise self._mismatch(self.place.path)
        return self._open()

    def _mismatch(self, found: str) -> RepositoryMismatch:
        return RepositoryMismatch(
            f"this state belongs to the repository {self.state.unique_id} in {self.state.path}, "
            f"but KOPIWATCH_REPOSITORY leads to {found}"
        )

    def _adopt(self, contents: FakeContents) -> None:
        self.state.unique_id = contents.unique_id
        self.state.path = self.place.path
        self.state.host = self.host
        self.state.connected = True

    def _status(self) -> RepositoryStatus:
        return RepositoryStatus(
            unique_id=self.contents.unique_id,
            client=ClientOptions(hostname=self.host, username=USER),
            storage=Storage("filesystem", {"path": self.place.path}),
            volume=Capacity(capacity=10**12, available=10**11),
        )


def _identity(text: str) -> SourceIdentity:
    user, _, rest = text.partition("@")
    host, _, path = rest.partition(":")
    return SourceIdentity(host, user, path)
