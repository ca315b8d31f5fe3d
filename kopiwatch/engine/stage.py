"""The volumes that stages lie in: ours by label, made before a run and removed after it."""

from __future__ import annotations

import json

from kopiwatch.engine import decode_host
from kopiwatch.engine.connection import Connection
from kopiwatch.engine.failure import translated
from kopiwatch.engine.port import Volume
from kopiwatch.engine.reference import named_path
from kopiwatch.errors import EngineError
from kopiwatch.units.container import STAGE_LABEL, STATE_LABEL


async def create(connection: Connection, name: str, labels: dict[str, str]) -> Volume:
    """Make a local volume with these labels; one of that name that carries them is taken as it is.

    Docker answers 201 for a volume that is there already, whoever made it, and leaves it as it is
    (API 1.41). Raises EngineError if its labels are others: it is somebody's.
    """
    doing = f"create the volume {name}"
    wanted = {"Name": name, "Driver": "local", "Labels": labels}
    answer = await connection.call(doing, "POST", "volumes/create", body=wanted)
    with translated(connection.attempt(doing)):
        made = decode_host.volume(answer.body)
    if any(made.labels.get(key) != value for key, value in labels.items()):
        raise EngineError(
            f"cannot {doing}: there is one of that name that is not ours",
            hint=f"if nobody needs it, remove it: docker volume rm {name}",
        )
    return made


async def listed(connection: Connection, state: str) -> tuple[str, ...]:
    """The names of the stage volumes of the state folder with this uuid."""
    doing = "list the stage volumes"
    wanted = json.dumps({"label": [f"{STATE_LABEL}={state}"]})
    answer = await connection.call(doing, "GET", "volumes", params={"filters": wanted})
    with translated(connection.attempt(doing)):
        rows = decode_host.volumes(answer.body)
    return tuple(
        row.name for row in rows if STAGE_LABEL in row.labels and row.labels[STATE_LABEL] == state
    )


async def remove(connection: Connection, name: str) -> None:
    """Remove a stage volume with all that is in it; gone already is good.

    Raises EngineError for a volume without our label, and for one that is in use.
    """
    doing = f"remove the volume {name}"
    path = named_path("volumes", name)
    if path is None:
        return
    answer = await connection.call(doing, "GET", path, absent="volume")
    if answer.status == 404:
        return
    with translated(connection.attempt(doing)):
        labels = decode_host.volume(answer.body).labels
    if STAGE_LABEL not in labels:
        raise EngineError(f"cannot {doing}: it is not a stage of kopiwatch")
    await connection.call(doing, "DELETE", path, absent="volume")
