"""``docs/configuration.md``, rendered: ``python -m kopiwatch.config.page``."""

from __future__ import annotations

import sys

from kopiwatch.config.setting import SETTINGS

_INTRO = """\
# Configuration

The environment comes first, then an optional TOML file: `/etc/kopiwatch/config.toml`, or the one
that `KOPIWATCH_CONFIG` names, which must then exist. Where both give a setting, the environment
wins. What is unknown, empty, unreadable or not understood is an error that names it, never a
default; all problems are reported at once.

Paths are absolute. Each secret can stand in a file instead, named by the variable with `_FILE`
(`KOPIWATCH_PASSWORD_FILE`) or the key with `_file`; the line's end in that file does not count.
Give one of the two.

| Variable | In the file | Default | Meaning |
|---|---|---|---|
"""

_TZ = (
    "| `TZ` |  | `UTC` | The time zone of units without `kopi.timezone`, by its name"
    " (`Europe/Berlin`). A value that names none (`CET-1CEST`) is an error where a"
    " schedule needs it, and UTC elsewhere. |\n"
)

_OUTRO = """
⏳ marks what this version does not support yet. `KOPIWATCH_DEMO_*`, `KOPIWATCH_TEST_*`,
`KOPIWATCH_PYTHON` and `KOPIWATCH_NO_INSTALL` belong to the scripts and tests and are ignored;
`KOPIWATCH_REVISION` is what the image was built from.

## An example

```toml
repository = "filesystem:/repository"
password_file = "/run/secrets/kopia"

[retention]                  # for units whose labels do not say it
daily = 14
monthly = 6

[profile.default]            # applies to every container with kopi.enable=true
start-timeout = "10m"

[profile.database]           # applies where kopi.profile names it
stop-timeout = "2m"
```

The keys of a profile are the names of [labels](../labels.md), with or without `kopi.`.
"""


def render() -> str:
    """``docs/configuration.md``, as text."""
    rows = ["| `KOPIWATCH_CONFIG` |  | `/etc/kopiwatch/config.toml` | The file. |\n"]
    for setting in SETTINGS:
        names = [(setting.variable, setting.key)]
        if setting.secret:
            names.append((f"{setting.variable}_FILE", f"{setting.key}_file"))
        variables = ", ".join(f"`{variable}`" for variable, _ in names)
        keys = ", ".join(f"`{key}`" for _, key in names)
        text = setting.text if setting.supported else f"⏳ {setting.text}"
        rows.append(f"| {variables} | {keys} | {setting.default} | {text} |\n")
    rows.append(_TZ)
    return _INTRO + "".join(rows) + _OUTRO


if __name__ == "__main__":
    sys.stdout.write(render())
