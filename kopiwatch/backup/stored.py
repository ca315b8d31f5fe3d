"""What a run has stored, read back from the repository: Kopia's word alone is not enough."""

from __future__ import annotations

from kopiwatch.backup.earlier import held_against
from kopiwatch.backup.plausible import Compared, Terms
from kopiwatch.backup.verdict import judge_source
from kopiwatch.errors import RunError
from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Snapshot
from kopiwatch.kopia.tree import RECIPE, parts
from kopiwatch.units.unit import Unit


async def confirm(
    repository: Repository, snapshot: Snapshot, *, unit: str, source: str, run: str
) -> tuple[Snapshot, ...]:
    """The manifest that Kopia named is in the repository; returns all that ``source`` has there.

    Raises RunError if it is not, RepositoryError if the repository cannot be listed.
    """
    found = await repository.snapshots(source)
    if (snapshot.id, run) not in {(each.id, each.tag("run")) for each in found}:
        raise RunError(
            f"unit {unit}: Kopia named a snapshot that is not in the repository",
            phase="verify",
            reason="no-manifest",
        )
    return found


async def read_back(
    repository: Repository, snapshot: Snapshot, unit: Unit, terms: Terms, last: Snapshot | None
) -> Compared:
    """What the tree holds of each expected source, beside what the last good one holds.

    ``last`` is that restore point, None where there is none. Raises RepositoryError.
    """
    root = snapshot.root_entry.obj if snapshot.root_entry else ""
    tree = await parts(repository, root) if root else {}
    results = (
        judge_source(path, tree.get(path))
        for path in (RECIPE, *(source.path for source in unit.sources))
    )
    return await held_against(repository, results, terms, last)
