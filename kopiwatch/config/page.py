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

## Hooks

Programs that run where kopiwatch runs (in its container, or on the host). Those that run inside the
members are [labels](../labels.md#hooks).

```toml
[[hooks.before_run]]
command = ["/usr/local/bin/announce", "begin"]   # an array, absolute; no shell
timeout = "2m"                                   # then its process group is killed; default 60s
on_error = "continue"                            # default fail
units = ["shop*"]                                # globs; default all

[[hooks.after_run]]
command = ["/usr/local/bin/announce", "end"]
```

| When | What a failure means |
|---|---|
| `before_run` | nothing is touched, and the run is `failed` (`hook`) |
| `after_run` | a warning of the run; its verdict stays |
| `before_restore` | nothing is restored |
| `after_restore` | a warning |

With `on_error = "continue"` the first and the third are only a warning. Each list is carried out in
its order, with the run lock held. What runs after runs once what runs before has begun, also if
that failed, and if the run failed or was cancelled; not if kopiwatch itself was killed, and not if
the run could not even begin (repository away, labels not usable). For what must always be undone
use a hook of a member.

A program gets `PATH`, `HOME`, `LANG`, `LC_ALL`, `TZ`, and nothing else of kopiwatch's environment:
no secret. It is told, as far as it is known: `KOPIWATCH_HOOK`, `KOPIWATCH_UNIT`, `KOPIWATCH_RUN`,
`KOPIWATCH_HOST`, `KOPIWATCH_INSTANCE`, `KOPIWATCH_REPOSITORY` (without secrets); after a run
`KOPIWATCH_VERDICT`, `KOPIWATCH_REASON`, `KOPIWATCH_MESSAGE`, `KOPIWATCH_PHASE` (in which it
failed), `KOPIWATCH_WINDOW_SECONDS` and `KOPIWATCH_SNAPSHOT`; for a restore `KOPIWATCH_TARGET`, and
after it `KOPIWATCH_VERDICT` and `KOPIWATCH_REASON`. Exit code, time and the last 8 KiB of output
stand in `kopiwatch history RUN`, with kopiwatch's own secrets masked.

The file must be executable and belong to root or to kopiwatch's user, and neither it nor a folder
above it may be writable for others; a link is followed, and both ends count. What is not so is an
error of the configuration, and is looked at again before each run.
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
