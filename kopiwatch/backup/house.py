"""What every run needs, wired once per process."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Protocol

import msgspec

from kopiwatch.backup.access import Access
from kopiwatch.backup.host_hook import HostSide
from kopiwatch.backup.state import StateFolder
from kopiwatch.clock import SYSTEM, Clock
from kopiwatch.config.value import RecipeSecrets
from kopiwatch.engine.port import Engine, EngineInfo
from kopiwatch.kopia.port import Repository


class Listener(Protocol):
    """Whoever follows a run: a terminal, a log."""

    def say(self, action: str, message: str, **facts: object) -> None:
        """One event; ``action`` is a stable name, ``message`` a sentence for people.

        Never raises and never waits: it is called while containers are down.
        """


class RecipeRules(msgspec.Struct, frozen=True):
    """What the operator says of recipes: secrets kept or redacted, and more folders to read."""

    secrets: RecipeSecrets = "keep"
    paths: tuple[str, ...] = ()


class House(msgspec.Struct, frozen=True):
    """The rooms a run works in, and who we are.

    ``host`` is the frozen name in the repository's identities. ``own`` is the id of our own
    container, empty outside one. ``owner`` is the text for the Kopia lock, ``environment`` Kopia's
    environment in a worker (it holds no secret). ``repository_is_folder`` says that workers need
    the repository mounted. ``run_timeout`` is the longest that a run may take. ``mask`` takes our
    secrets out of what programs of others printed. ``identity`` is the state folder's uuid;
    ``stage_paths`` are the folders of Docker's host that the operator gives for stages;
    ``recipe`` is what the recipe may hold. ``host_side`` are the hooks where we run.
    """

    engine: Engine
    info: EngineInfo
    repository: Repository
    access: Access
    state: StateFolder
    host: str
    instance: str
    own: str
    owner: str
    environment: dict[str, str]
    repository_is_folder: bool
    listener: Listener
    clock: Clock = SYSTEM
    run_timeout: timedelta = timedelta(hours=24)
    mask: Callable[[str], str] = str
    identity: str = ""
    stage_paths: tuple[Path, ...] = ()
    recipe: RecipeRules = RecipeRules()
    host_side: HostSide = HostSide()
