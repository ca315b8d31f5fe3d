"""``kopiwatch repo``: the repository."""

from __future__ import annotations

from functools import partial

import click

from kopiwatch import wiring
from kopiwatch.cli.output import NOTES, note, print_json, print_text
from kopiwatch.cli.repo_retention import retention
from kopiwatch.cli.running import run
from kopiwatch.kopia.record import RepositoryStatus
from kopiwatch.words import size

JSON = click.option("--json", "as_json", is_flag=True, help="As JSON on stdout.")


@click.group(
    epilog="""\b
Examples:
  kopiwatch repo create    once, for a new and empty place
  kopiwatch repo connect   on another machine, or after the state was lost
  kopiwatch repo status    is it there, and is it ours?
  kopiwatch repo retention show    why each restore point is kept
"""
)
def repo() -> None:
    """Create, connect, look at or thin out the repository that KOPIWATCH_REPOSITORY names."""


repo.add_command(retention)


@repo.command(
    epilog="\b\nExample:\n  KOPIWATCH_REPOSITORY=filesystem:/backup kopiwatch repo create"
)
@JSON
def create(*, as_json: bool) -> None:
    """Make a new repository in an empty place, and connect to it.

    Without KOPIWATCH_PASSWORD or KOPIWATCH_PASSWORD_FILE a password is made up: keep a copy.
    """
    _start("create", as_json=as_json)


@repo.command(
    epilog="\b\nExample:\n  KOPIWATCH_PASSWORD_FILE=/run/secrets/kopia kopiwatch repo connect"
)
@JSON
def connect(*, as_json: bool) -> None:
    """Connect to the repository that is there. Never creates one."""
    _start("connect", as_json=as_json)


@repo.command(epilog="\b\nExample:\n  kopiwatch repo status --json")
@JSON
def status(*, as_json: bool) -> None:
    """Say whether the repository is reachable and the one we know."""
    _start("status", as_json=as_json)


def _start(task: str, *, as_json: bool) -> None:

    tasks = {"create": _create, "connect": _connect, "status": _status}
    run(partial(tasks[task], as_json=as_json), json=as_json)


async def _create(*, as_json: bool) -> int:

    config = wiring.configuration()
    async with wiring.repository_changing(config, "repo create", NOTES) as repository:
        created = await repository.create()
        await repository.ensure_policy(repository.host)
    _show("created", created.status, as_json=as_json, password=str(created.password_file or ""))
    if created.password_file is not None:
        note("")
        note("  KEEP THIS PASSWORD ELSEWHERE: without it every backup is lost with this machine.")
        note(f"  It was made up just now and stands in {created.password_file}")
        note("")
    return 0


async def _connect(*, as_json: bool) -> int:

    config = wiring.configuration()
    async with wiring.repository_changing(config, "repo connect", NOTES) as repository:
        found = await repository.connect()
        await repository.ensure_policy(repository.host)
    _show("connected", found, as_json=as_json)
    return 0


async def _status(*, as_json: bool) -> int:

    repository = await wiring.reading(wiring.configuration(), "repo status")
    _show("reachable", await repository.status(), as_json=as_json)
    return 0


def _show(what: str, found: RepositoryStatus, *, as_json: bool, password: str = "") -> None:

    place = str(found.storage.config.get("path", ""))
    record: dict[str, object] = {
        "result": what,
        "unique_id": found.unique_id,
        "storage": found.storage.type,
        "path": place,
        "identity": f"{found.client.username}@{found.client.hostname}",
    }
    if found.volume is not None:
        record |= {"capacity": found.volume.capacity, "available": found.volume.available}
    if password:
        record["password_file"] = password
    if as_json:
        print_json(record)
        return
    free = f", {size(found.volume.available)} free" if found.volume else ""
    print_text(f"{what}: {found.storage.type} repository {place}{free}")
    print_text(f"unique id: {found.unique_id}")
    print_text(f"identity:  {record['identity']}")
