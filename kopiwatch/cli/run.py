"""``kopiwatch run``."""

from __future__ import annotations

import os
import random

import anyio
import click

from kopiwatch import wiring
from kopiwatch.cli.output import print_error
from kopiwatch.cli.reaper import become_init
from kopiwatch.daemon.daemon import run_daemon
from kopiwatch.errors import KopiwatchError

EXAMPLE = """\b
Examples:
  kopiwatch run                               the sidecar's main process
  KOPIWATCH_LISTEN=127.0.0.1:9187 kopiwatch run
"""


@click.command(name="run", epilog=EXAMPLE)
def run() -> None:
    """Watch Docker and back units up on their schedules, until SIGTERM.

    Serves /metrics, /healthz and /readyz. SIGHUP reads the configuration again.
    """
    if os.getpid() == 1:
        become_init()
    try:
        load = wiring.checked_configuration
        config = load()
        code = anyio.run(lambda: run_daemon(config, reload=load, random=random.random))
    except KopiwatchError as error:
        print_error(error)
        code = error.exit_code
    raise SystemExit(code)
