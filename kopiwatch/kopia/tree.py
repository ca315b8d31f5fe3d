"""The parts of a stored tree, read back from the repository."""

from __future__ import annotations

from kopiwatch.kopia.port import Repository
from kopiwatch.kopia.record import Entry

RECIPE = "recipe"
ATTRIBUTES = "attributes"
"""The folder in the recipe where the lists of what Kopia does not keep stand, one per source."""
FOLDERS = ("volumes", "binds", "dumps")


async def parts(repository: Repository, root: str) -> dict[str, Entry]:
    """What a restore point holds, by path: ``recipe``, ``volumes/<name>``, ``binds/<slug>``, ….

    ``root`` is the tree's root object. Costs one launch of Kopia for the root and one for each of
    the folders that is there, less those that were read before; none if it was outlined before.
    Raises RepositoryError.
    """
    if (known := await repository.outlined(root)) is not None:
        return known
    found: dict[str, Entry] = {}
    for entry in (await repository.directory(root)).entries:
        if entry.name in FOLDERS and entry.type == "d":
            for child in (await repository.directory(entry.obj)).entries:
                found[f"{entry.name}/{child.name}"] = child
        else:
            found[entry.name] = entry
    return found
