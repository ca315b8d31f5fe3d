"""Reading the configuration again: on SIGHUP, and when its file has changed."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path

import anyio.to_thread
import msgspec

from kopiwatch.config import Config
from kopiwatch.config.load import CONFIG_VARIABLE, DEFAULT_CONFIG
from kopiwatch.daemon.desk import Desk
from kopiwatch.errors import ConfigError

FIXED = (
    *("state_dir", "cache_dir", "docker_url", "instance", "listen", "log_format", "log_level"),
    *("metrics_user", "metrics_password", "metrics_token", "tls_cert", "tls_key"),
)
"""What is bound to at the start; a new value needs a restart, and is said to."""

Stamp = tuple[int, int, int] | None


class Reloader:
    """Puts a good configuration in place of the old one; a bad one is said and changes nothing."""

    def __init__(
        self,
        desk: Desk,
        load: Callable[[], Config],
        reload_tls: Callable[[], Awaitable[None]],
        applied: Callable[[], Awaitable[None]],
    ) -> None:
        self._desk = desk
        self._load = load
        self._reload_tls = reload_tls
        self._applied = applied
        self._path = Path(os.environ.get(CONFIG_VARIABLE, str(DEFAULT_CONFIG)))
        self._stamp = _stamp(self._path)

    async def look(self) -> None:
        """Read again if the file is another one than last time."""
        stamp = await anyio.to_thread.run_sync(_stamp, self._path)
        if stamp != self._stamp:
            self._stamp = stamp
            self._desk.listener.say("reload", f"{self._path} has changed: reading it again")
            await self.now()

    async def now(self) -> None:
        """Read again; certificates, too."""
        desk = self._desk
        try:
            new = await anyio.to_thread.run_sync(self._load)
            await self._reload_tls()
        except ConfigError as error:
            desk.config_error = error.message
            desk.listener.say(
                "reload", f"the old configuration still counts: {error.message}", level="error"
            )
            desk.changed()
            return
        old = desk.config
        kept = {name: getattr(old, name) for name in FIXED}
        fixed = [name for name in FIXED if getattr(new, name) != kept[name]]
        if fixed:
            names = ", ".join(fixed)
            desk.listener.say(
                "reload", f"a new value of {names} counts after a restart only", level="warning"
            )
        new = msgspec.structs.replace(new, **kept)
        changed = [
            name for name in new.__struct_fields__ if getattr(new, name) != getattr(old, name)
        ]
        desk.config_error = ""
        desk.config = new
        words = f"changed: {', '.join(changed)}" if changed else "nothing changed"
        desk.listener.say("reload", f"configuration read: {words}")
        if changed:
            await self._applied()
        desk.changed()


def _stamp(path: Path) -> Stamp:
    """What tells one state of a file from another; None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
