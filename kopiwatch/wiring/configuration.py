"""The configuration of this process."""

from __future__ import annotations

import os

from kopiwatch.config import Config, load
from kopiwatch.errors import ConfigError
from kopiwatch.units.default import check_defaults
from kopiwatch.units.parse import check_profiles


def configuration() -> Config:
    """The configuration of this process. Raises ConfigError with every problem at once."""
    return load(os.environ)


def checked_configuration() -> Config:
    """The same, with what it says for the units checked, too: for who lives on it for long.

    A restore on a fresh machine does not care for a bad ``TZ``; the daemon does.
    """
    config = configuration()
    problems = [*check_defaults(config.defaults), *map(str, check_profiles(config.profiles))]
    if problems:
        raise ConfigError(
            "the configuration has settings for units that cannot be used:\n"
            + "\n".join(f"  {problem}" for problem in problems),
            hint="labels.md lists what each of them may be",
        )
    return config
