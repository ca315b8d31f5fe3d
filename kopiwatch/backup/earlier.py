"""The last good restore point of a unit, and a run's sources held against it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from kopiwatch.backup.plausible import Compared, Terms, changed, compare
from kopiwatch.backup.recipe import FILE
from kopiwatch.backup.result import SourceResult
from kopiwatch.backup.verdict import judge_source
from kopiwatch.errors import RepositoryError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.tree import RECIPE, parts


class StoredRecipe(msgspec.Struct, frozen=True):
    """What a stored recipe says of how its tree is to be judged."""

    unit: str
    expected: tuple[str, ...]
    plausibility: Terms = Terms()

    @property
    def names(self) -> tuple[str, ...]:
        """What the names of its volumes may begin with."""
        return tuple({self.unit, *self.plausibility.names})


def last_good(snapshots: Iterable[Snapshot]) -> Snapshot | None:
    """The newest complete one, accepted ones included."""
    complete = (snapshot for snapshot in snapshots if snapshot.complete)
    return max(complete, key=lambda snapshot: snapshot.start_time, default=None)


async def held_against(
    repository: Repository,
    sources: Iterable[SourceResult],
    terms: Terms,
    last: Snapshot | None,
) -> Compared:
    """What a run stored, compared with the last good point. Raises RepositoryError."""
    now = tuple(sources)
    if last is None:
        return Compared(now)
    before = await stored_sources(repository, last)
    gone, new = changed(now, before)
    # Its recipe is another launch of Kopia, so only if a volume may have got another name.
    names = (await stored_recipe(repository, last)).names if gone and new else ()
    return compare(now, before, terms, names)


async def stored_sources(repository: Repository, snapshot: Snapshot) -> dict[str, SourceResult]:
    """What a manifest holds of each source, by path. Raises RepositoryError."""
    root = snapshot.root_entry.obj if snapshot.root_entry else ""
    tree = await parts(repository, root) if root else {}
    return {path: judge_source(path, entry) for path, entry in tree.items()}


async def stored_recipe(repository: Repository, snapshot: Snapshot) -> StoredRecipe:
    """The recipe in a manifest's tree. Raises RepositoryError if there is none to be read."""
    root = snapshot.root_entry.obj if snapshot.root_entry else ""
    content = await repository.content(f"{root}/{RECIPE}/{FILE}")
    try:
        return msgspec.json.decode(content, type=StoredRecipe)
    except msgspec.MsgspecError as error:
        raise RepositoryError(
            f"the recipe in the snapshot {snapshot.id} cannot be read: {error}"
        ) from error
