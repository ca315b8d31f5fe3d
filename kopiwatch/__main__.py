"""``python -m kopiwatch``."""

from kopiwatch.cli.main import main

main(prog_name="kopiwatch")
