"""The command line: one file per command, imported only when it is called."""

from __future__ import annotations

import importlib
from typing import ClassVar

import click

from kopiwatch import __version__

COMMANDS: dict[str, str] = {
    "run": "Watch and back up on schedule: the sidecar.",
    "status": "Show what is fresh, overdue, failing and due next.",
    "backup": "Back up units now.",
    "restore": "Restore files of a unit into a directory.",
    "points": "List restore points.",
    "units": "List units, or show one in detail.",
    "history": "Show past runs.",
    "explain": "Show each setting of a container and where it came from.",
    "accept": "Take as good what a verdict refused.",
    "adopt": "Carry restore points and history over to a unit's new name.",
    "forget": "Stop watching a unit that is gone for good.",
    "check": "Check configuration and labels.",
    "repo": "Create, connect, look at or thin out the repository.",
    "healthcheck": "Exit 0 if the daemon is alive, for Docker.",
}


class LazyGroup(click.Group):
    """Knows its commands by name and imports one when it is used: ``--help`` stays quick."""

    modules: ClassVar[dict[str, str]] = COMMANDS

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """In the order of the table, which is the order of a first day."""
        return list(self.modules)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command. Click suggests the nearest name for an unknown one."""
        if cmd_name not in self.modules:
            return super().get_command(ctx, cmd_name)
        command = getattr(importlib.import_module(f"kopiwatch.cli.{cmd_name}"), cmd_name)
        assert isinstance(command, click.Command)  # noqa: S101 - our own modules
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self.modules.items()))


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    help="""Back up Docker containers with Kopia because their labels say so.

Label a service with kopi.enable: "true", then:

\b
  kopiwatch repo create        make the repository
  kopiwatch backup --all       back up every labelled unit
  kopiwatch points             see what can be restored
  kopiwatch restore shop --to /tmp/shop
""",
    epilog="Settings come from KOPIWATCH_* variables; start with `kopiwatch check`.",
)
@click.version_option(__version__, prog_name="kopiwatch")
def main() -> None:
    """Back up Docker containers with Kopia because their labels say so."""


if __name__ == "__main__":
    main()
