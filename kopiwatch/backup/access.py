"""Reaching the data: one Protocol, two ways (worker container, private mount namespace)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager
from typing import Literal, Protocol

import msgspec

from kopiwatch.engine.port import Channel

EntryKind = Literal["volume", "path"]


class TreeEntry(msgspec.Struct, frozen=True):
    """One part of a unit's tree: ``path`` below the unit's root, and what stands behind it.

    ``source`` is a volume's name, or a path: on Docker's host for ``bind`` entries, our own for the
    recipe (``own`` is true then).
    """

    path: str
    kind: EntryKind
    source: str
    own: bool = False


class StagePlace(msgspec.Struct, frozen=True):
    """A place where a stage can be made, writable for the worker.

    ``source`` is a volume's name or a path of Docker's host; ``mount`` is where that is mounted,
    and ``root`` the staged tree's root in it. ``name`` is what people know it by. Our ``own``
    volume is removed after the run, with all that is in it.
    """

    name: str
    kind: EntryKind
    source: str
    mount: str
    root: str
    own: bool = False


class Beside(msgspec.Struct, frozen=True):
    """A place on Docker's host that a worker may read beside the tree: a folder or a file.

    ``host`` is its path there, ``target`` where the worker has it, below ``/mnt``. One that is not
    there, or cannot be mounted, is left out without a word: the worker then sees no ``target``.
    """

    host: str
    target: str


class WorkerPlan(msgspec.Struct, frozen=True):
    """What a worker is to have in front of it. ``root`` is the unit's root, below ``/mnt``.

    ``attributes`` is the folder of ours, inside the recipe's, that the worker may write lists to.
    ``hot`` is where the same tree is mounted once more, for the hot pass; empty for nowhere.
    ``written`` are the paths of the entries that somebody can write to: all others are mounted into
    each of the ``stages``, too, so that a staged tree is complete.
    ``besides`` never decide over a run: see :class:`Beside`.
    """

    run: str
    unit: str
    root: str
    entries: tuple[TreeEntry, ...]
    attributes: str
    hot: str = ""
    stages: tuple[StagePlace, ...] = ()
    written: frozenset[str] = frozenset()
    besides: tuple[Beside, ...] = ()

    def mounts(self) -> Iterator[tuple[TreeEntry, str, bool]]:
        """All mounts below ``/mnt``: what, where, and whether writable. Outer ones come first."""
        for entry in self.entries:
            yield entry, f"{self.root}/{entry.path}", False
            if self.hot:
                yield entry, f"{self.hot}/{entry.path}", False
        for stage in self.stages:
            yield TreeEntry("", stage.kind, stage.source), stage.mount, True
            for entry in self.entries:
                if entry.path not in self.written:
                    yield entry, f"{stage.root}/{entry.path}", False


class Places(msgspec.Struct, frozen=True):
    """Where things are from a worker's point of view (absolute paths).

    ``base`` is a tmpfs for what is secret; ``repository`` is the filesystem repository's folder;
    ``attributes`` is where the lists of attributes are written.
    """

    base: str
    cache: str
    attributes: str
    locks: str
    repository: str
    kopia: str


class Session(Protocol):
    """A worker that runs."""

    @property
    def channel(self) -> Channel:
        """Its line protocol."""

    async def destroy(self) -> None:
        """End it and all that it started by force; returns when it is gone."""


class Access(Protocol):
    """One way to reach the data."""

    @property
    def name(self) -> str:
        """``worker`` or ``namespace``."""

    @property
    def places(self) -> Places:
        """Where things are for its workers."""

    def mark(self, plan: WorkerPlan) -> dict[str, str]:
        """Variables for Kopia's environment by which a later sweep recognises it."""

    async def check(self, plan: WorkerPlan) -> None:
        """Refuse what this way cannot reach, before anything is touched.

        Raises RunError that names the source and the way out.
        """

    def open(self, plan: WorkerPlan) -> AbstractAsyncContextManager[Session]:
        """A worker with the plan's tree mounted read-only; on leaving it is gone.

        Raises RunError or EngineError when it cannot be had.
        """
