"""The house of a run: everything it needs, with the repository known to be ours."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch.backup.house import House, Listener, RecipeRules
from kopiwatch.backup.state import StateFolder
from kopiwatch.config import Config
from kopiwatch.errors import ConfigError
from kopiwatch.kopia.environment import environment
from kopiwatch.kopia.failure import masker
from kopiwatch.kopia.folder import make_private
from kopiwatch.kopia.lock import Owner
from kopiwatch.kopia.space import require_space
from kopiwatch.wiring.access import access_of, repository_folder
from kopiwatch.wiring.changing import settle
from kopiwatch.wiring.docker import Docker
from kopiwatch.wiring.hooks import host_side
from kopiwatch.wiring.repository import repository_of


def open_cache(folder: Path) -> None:
    """Make the cache folder, 0700. Raises ConfigError when it cannot be."""
    try:
        make_private(folder)
    except OSError as error:
        raise ConfigError(
            f"the cache folder {folder} cannot be used: {error.strerror}",
            hint="run as root, or set KOPIWATCH_CACHE_DIR to a folder you may write to",
        ) from error


async def house(
    config: Config,
    where: Docker,
    command: str,
    listener: Listener,
    *,
    state: StateFolder,
    identity: str,
) -> House:
    """Everything a run needs, with the repository known to be ours; needs the run lock."""
    await anyio.to_thread.run_sync(open_cache, config.cache_dir)
    way = access_of(config, where, state, identity)
    repository = repository_of(config, where.info, command)
    await repository.ensure_connected()
    status = await repository.status()
    if await repository.ensure_policy(repository.host):
        listener.say("policy", "wrote kopiwatch's policy to the repository")
    await settle(repository, state, listener)
    require_space(status)
    owner = Owner(pid=os.getpid(), command=command, since=datetime.now(UTC))
    return House(
        engine=where.engine,
        info=where.info,
        repository=repository,
        access=way,
        state=state,
        host=repository.host,
        instance=config.instance,
        own=where.own_id,
        owner=msgspec.json.encode(owner).decode(),
        environment=environment(os.environ, home=Path("/")),
        repository_is_folder=repository_folder(config) is not None,
        listener=listener,
        run_timeout=config.run_timeout,
        mask=masker(config.secrets),
        identity=identity,
        stage_paths=config.stage_paths,
        recipe=RecipeRules(config.recipe_secrets, config.recipe_paths),
        host_side=host_side(config, repository.host),
    )
