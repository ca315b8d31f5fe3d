"""Where kopiwatch keeps things and whom it talks to: environment first, then one TOML file."""

from kopiwatch.config.load import load
from kopiwatch.config.name import NAME, NAME_LIMIT, nearest
from kopiwatch.config.value import ACCESSES, Access, Config, Listen, Secret

__all__ = [
    "ACCESSES",
    "NAME",
    "NAME_LIMIT",
    "Access",
    "Config",
    "Listen",
    "Secret",
    "load",
    "nearest",
]
