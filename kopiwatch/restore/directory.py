"""Restoring into a directory: the whole tree of a point, or chosen volumes of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch.errors import RepositoryFull, RunError, UsageError
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.port import Repository, RestoreResult
from kopiwatch.kopia.record import Entry
from kopiwatch.kopia.tree import RECIPE
from kopiwatch.kopia.tree import parts as parts_of
from kopiwatch.restore.point import Point, ensure_complete, part

UNIT_FILE = "unit.json"


class Expected(msgspec.Struct, frozen=True):
    """The part of a recipe that says what its tree must contain."""

    expected: tuple[str, ...]
    warnings: tuple[str, ...] = ()


class Restored(msgspec.Struct, frozen=True):
    """What was written, and where. ``size`` is bytes, as the repository counts them."""

    unit: str
    run: str
    snapshot: str
    target: str
    parts: tuple[str, ...]
    files: int
    directories: int
    symlinks: int
    size: int


class Plan(msgspec.Struct, frozen=True):
    """What a restore would do: which parts of which point go where."""

    point: Point
    target: Path
    parts: tuple[str, ...]
    files: int
    size: int
    warnings: tuple[str, ...] = ()


async def plan(repository: Repository, point: Point, target: Path, volumes: Iterable[str]) -> Plan:
    """Look at the stored tree and choose what to restore.

    Raises UsageError for a volume that is not in it or a target that is not empty, RunError when
    the tree lacks what its recipe expects.
    """
    tree = await parts_of(repository, point.root)
    await check_target(target)
    names = tuple(dict.fromkeys(volumes))
    parts = tuple(part(tree, name) for name in names) if names else tuple(sorted(tree))
    recipe = await expected_of(repository, point)
    ensure_complete(point, recipe.expected, tree)
    summaries = [_count(tree[path]) for path in parts]
    return Plan(
        point,
        target,
        parts if names else tuple(sorted({path.split("/")[0] for path in parts})),
        sum(files for files, _ in summaries),
        sum(size for _, size in summaries),
        recipe.warnings,
    )


async def expected_of(repository: Repository, point: Point) -> Expected:
    """What the recipe of a point says its tree must contain.

    Raises RunError when the recipe is not there or not readable: the point cannot be trusted.
    """
    try:
        content = await repository.content(f"{point.root}/{RECIPE}/{UNIT_FILE}")
        return msgspec.json.decode(content, type=Expected)
    except msgspec.MsgspecError as error:
        raise RunError(
            f"the recipe of restore point {point.run} cannot be read: {error}",
            phase="check",
            reason="recipe",
            hint=f"choose another from `kopiwatch points {point.unit}`",
        ) from error


def _count(entry: Entry) -> tuple[int, int]:
    if entry.summ is None:
        return 1, entry.size
    return entry.summ.files, entry.summ.size


async def check_target(target: Path) -> None:
    """Raise UsageError unless the target is an empty directory, or can become one."""

    def look() -> str:
        if target.is_symlink() and not target.exists():
            return "is a symlink to nothing"
        if target.exists() and not target.is_dir():
            return "is not a directory"
        if target.is_dir() and any(target.iterdir()):
            return "is not empty"
        if not target.exists() and not target.parent.is_dir():
            return f"cannot be made: {target.parent} is not a directory"
        return ""

    try:
        trouble = await anyio.to_thread.run_sync(look)
    except OSError as error:
        trouble = f"cannot be used: {error.strerror}"
    if trouble:
        raise UsageError(
            f"{target} {trouble}",
            hint="name an empty or new directory: a restore never mixes with what is there",
        )


async def restore(repository: Repository, chosen: Plan) -> Restored:
    """Carry out a plan and count what was written.

    Raises RepositoryError when Kopia fails (a part may have been written then, which the error
    says), RunError when fewer files came out than the repository holds.
    """
    point = chosen.point
    results: list[RestoreResult] = []
    for path in chosen.parts:
        target = chosen.target / path
        await anyio.to_thread.run_sync(_make, target)
        try:
            source = f"{point.snapshot}/{path}"
            results.append(await repository.restore(source, target, timeout=None))
        except RepositoryFull as error:
            raise RunError(
                f"there is no space left for {path} in {chosen.target}; a part was written",
                phase="read",
                reason="target-full",
                hint="restore to a larger disk, or only some volumes (--volume)",
            ) from error
    files = sum(result.files for result in results)
    if files != chosen.files:
        raise RunError(
            f"{files} files were restored to {chosen.target}, but the restore point holds "
            f"{chosen.files}",
            phase="verify",
            reason="restore-count",
            hint="something else may write to that directory; restore to another one",
        )
    return Restored(
        unit=point.unit,
        run=point.run,
        snapshot=point.snapshot,
        target=str(chosen.target),
        parts=chosen.parts,
        files=files,
        directories=sum(result.directories for result in results),
        symlinks=sum(result.symlinks for result in results),
        size=chosen.size,
    )


def _make(target: Path) -> None:
    try:
        make_private(target)
    except OSError as error:
        raise UsageError(
            f"cannot make {target}: {error.strerror}", hint="name a directory you may write to"
        ) from error
