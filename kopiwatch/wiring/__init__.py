"""Wires the rooms for one command or for the daemon: configuration, Docker, repository, locks."""

from kopiwatch.wiring.access import access_of, check_access, repository_folder
from kopiwatch.wiring.changing import (
    changing,
    refuse_owed,
    replay,
    repository_changing,
    settle,
    unfinished,
    without_docker,
)
from kopiwatch.wiring.configuration import checked_configuration, configuration
from kopiwatch.wiring.docker import Docker, choose, docker, engine, look, require_units, units_of
from kopiwatch.wiring.hooks import Restored, restore_hooks
from kopiwatch.wiring.house import house
from kopiwatch.wiring.repository import reading, repository_of

__all__ = [
    "Docker",
    "Restored",
    "access_of",
    "changing",
    "check_access",
    "checked_configuration",
    "choose",
    "configuration",
    "docker",
    "engine",
    "house",
    "look",
    "reading",
    "refuse_owed",
    "replay",
    "repository_changing",
    "repository_folder",
    "repository_of",
    "require_units",
    "restore_hooks",
    "settle",
    "unfinished",
    "units_of",
    "without_docker",
]
