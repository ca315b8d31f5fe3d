"""What a run has stored, read back from the repository: Kopia's word alone is not enough."""

from __future__ import annotations

from collections.abc import Mapping

from kopiwatch.backup.earlier import held_against
from kopiwatch.backup.plausible import Compared, Terms
from kopiwatch.backup.verdict import judge_source
from kopiwatch.errors import KopiaTimeout, RepositoryError, RepositoryUnreachable, RunError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Entry, Snapshot
from kopiwatch.kopia.tree import RECIPE, parts
from kopiwatch.units.unit import Unit


async def read_back(
    repository: Repository, snapshot: Snapshot, *, unit: str, source: str, run: str
) -> dict[str, Entry]:
    """What the tree of the snapshot that Kopia named holds, by path: it is in the repository.

    One launch of Kopia leads through the manifest to the parts. Where that tells nothing, the
    snapshots are listed and the tree is read folder by folder. Raises RunError if there is no such
    manifest, RepositoryError if the repository cannot be read.
    """
    if (str(snapshot.source), snapshot.tag("run")) == (source, run):
        try:
            return await repository.outline(snapshot)
        except (RepositoryUnreachable, KopiaTimeout):
            raise
        except RepositoryError:
            pass  # the long way says what is wrong, if anything is
    await _confirm(repository, snapshot, unit=unit, source=source, run=run)
    root = snapshot.root_entry.obj if snapshot.root_entry else ""
    return await parts(repository, root) if root else {}


async def _confirm(
    repository: Repository, snapshot: Snapshot, *, unit: str, source: str, run: str
) -> None:
    found = await repository.snapshots(source)
    if (snapshot.id, run) not in {(each.id, each.tag("run")) for each in found}:
        raise RunError(
            f"unit {unit}: Kopia named a snapshot that is not in the repository",
            phase="verify",
            reason="no-manifest",
        )


async def compare(
    repository: Repository,
    tree: Mapping[str, Entry],
    unit: Unit,
    terms: Terms,
    last: Snapshot | None,
) -> Compared:
    """What a tree holds of each expected source, beside what the last good one holds.

    ``last`` is that restore point, None where there is none. Raises RepositoryError.
    """
    results = (
        judge_source(path, tree.get(path))
        for path in (RECIPE, *(source.path for source in unit.sources))
    )
    return await held_against(repository, results, terms, last)
