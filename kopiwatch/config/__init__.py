"""Where kopiwatch keeps things and whom it talks to: environment first, then one TOML file."""

from kopiwatch.config.hook import HostHook, HostHookName, HostHooks
from kopiwatch.config.load import load
from kopiwatch.config.name import NAME, NAME_LIMIT, nearest
from kopiwatch.config.program import fault_of_own_program
from kopiwatch.config.value import ACCESSES, Access, Config, Listen, Secret

__all__ = [
    "ACCESSES",
    "NAME",
    "NAME_LIMIT",
    "Access",
    "Config",
    "HostHook",
    "HostHookName",
    "HostHooks",
    "Listen",
    "Secret",
    "fault_of_own_program",
    "load",
    "nearest",
]
