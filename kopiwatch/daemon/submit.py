"""Taking an order for backups from somebody at the control socket."""

from __future__ import annotations

from kopiwatch import wiring
from kopiwatch.daemon.desk import Desk
from kopiwatch.daemon.job import Job
from kopiwatch.daemon.message import BackupOrder
from kopiwatch.errors import BusyError, ConfigError
from kopiwatch.watch.queue import Ask
from kopiwatch.wiring.docker import require_units

COMMAND_PRIORITY = -1
"""Somebody waits for it: before everything that a schedule wants."""


async def submit(desk: Desk, order: BackupOrder) -> Job:
    """Queue the units of an order, as they are at this moment.

    Raises UnknownUnit and ConfigError as `kopiwatch backup` itself would, ConfigError for an order
    that means another repository, BusyError while we are leaving.
    """
    if desk.stopping:
        raise BusyError("the daemon is leaving", hint="try again when it is back")
    for name, mine, theirs in (
        ("repository", desk.config.repository, order.repository),
        ("instance", desk.config.instance, order.instance),
    ):
        if theirs != mine:
            raise ConfigError(
                f"the daemon of this state folder uses {name} {mine}, not {theirs}",
                hint="give both the same settings, or the command a KOPIWATCH_STATE_DIR of its own",
            )
    async with wiring.docker(desk.config) as where:
        found, _ = await wiring.look(desk.config, where)
    chosen = [unit.name for unit in require_units(found, order.units)]
    note = f"queued: {desk.held}" if desk.held else ""
    if desk.running is not None:
        note = f"queued: waiting for the run of {desk.running.unit}"
    job = desk.jobs.add(chosen, note)
    now = desk.clock.now()
    for name in chosen:
        desk.queue.add(Ask(name, now, now, "command", COMMAND_PRIORITY))
    desk.work.ring()
    desk.changed()
    return job
