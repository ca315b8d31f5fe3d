"""The configuration of this process."""

from __future__ import annotations

import os

from kopiwatch.config import Config, load


def configuration() -> Config:
    """The configuration of this process. Raises ConfigError with every problem at once."""
    return load(os.environ)
