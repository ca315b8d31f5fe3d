"""``labels.md``, rendered from the table: ``python -m kopiwatch.units.page > labels.md``."""

from __future__ import annotations

import sys

from kopiwatch.units.table import LABELS, Label

_INTRO = """\
# Labels

A container is backed up because its labels say so. One label is enough:

```yaml
services:
  db:
    image: postgres:17
    labels:
      kopi.enable: "true"
    volumes: [db:/var/lib/postgresql/data]
```

The containers of one Compose project form one **unit**: they are backed up, and restored,
together. All their volumes are protected; bind mounts only where `kopi.binds` names them.
`kopiwatch units` shows what is covered and what is not, `kopiwatch explain CONTAINER` shows each
setting and where it comes from, and `kopiwatch check` says what is wrong.

While a unit is read, its members that write to it are stopped, with the members that depend on
them, and started again in the order of Compose's `depends_on`. A container that shares the network
or the processes of one that stops (`network_mode: "service:vpn"`) stops with it, labelled or not:
it could not go on. Nobody stops where nobody writes.

## How to write them

- **Put values in quotes.** YAML turns a bare `true`, `off`, `no` or `1` into something else
  before Docker sees it; `"true"`, `"off"` and `"1"` arrive as written.
- Booleans are `true`/`false`, `yes`/`no`, `on`/`off` or `1`/`0`.
- Durations are a whole number and a unit: `90s`, `15m`, `26h`, `7d`.
- Lists are separated by commas: `kopi.exclude: "cache,/tmp/*"`.
- Names are lower-case letters, digits, `_`, `.` and `-`, with a letter or digit first.
- A volume may be named as Docker knows it (`shop_db`), as the Compose file calls it (`db`), or by
  its destination in the container (`/var/lib/postgresql/data`). `*`, `?` and `[…]` are globs, and
  `*` also matches `/`.
- Secrets never stand in a label.

A label that is misspelt, has a value that is not understood, or asks for something that this
version cannot do, **disables its unit** until it is corrected; other units go on. It never falls
back to a default.

## The table

**For** says for whom a value holds: a *member* label for the container that carries it; a *unit*
label for the whole unit, whichever member carries it (members that disagree are a problem).
**⏳** marks what this version does not support yet.

"""

_PROFILES = """
## Profiles

Settings that many containers share can stand in the configuration file, by the names of the
labels, with or without `kopi.`:

```toml
[profile.default]          # applies to every member
start-timeout = "10m"

[profile.database]         # applies where kopi.profile names it
stop-timeout = "2m"
exclude = ["*_cache"]
```

`kopi.profile: "database"` takes the second one on top of the first. Later profiles win over
earlier ones, and labels win over profiles. `kopi.profile: "database,!default"` drops the inherited
`default`; `!none` drops all inherited ones. A single label with the value `!none` drops what a
profile says there and returns to the default. `kopi.enable`, `kopi.unit`, `kopi.instance` and
`kopi.profile` itself stand on containers only.
"""


def render() -> str:
    """The whole page, as text."""
    head = "| Label | Value | Default | For | Meaning |\n|---|---|---|---|---|\n"
    return _INTRO + head + "".join(_row(label) for label in LABELS) + _PROFILES


def _row(label: Label) -> str:
    names = label.names or (label.pattern,)
    stem = names[0].rpartition(".")[0] + "."
    shown = [f"`{names[0]}`"]
    if "{" in label.pattern and label.pattern.endswith("}"):
        shown += [f"`.{name.removeprefix(stem)}`" for name in names[1:]]
    else:
        shown += [f"`{name}`" for name in names[1:]]
    cells = (", ".join(shown), label.values, _default(label), label.level, _meaning(label))
    return f"| {' | '.join(cells)} |\n"


def _default(label: Label) -> str:
    literal = " " not in label.default or label.default[0].isdigit()
    text = f"`{label.default}`" if literal and label.default else label.default
    return f"`{label.variable}`, else {text}" if label.variable else text


def _meaning(label: Label) -> str:
    if label.supported is None:
        return label.text
    if not label.supported:
        return f"⏳ {label.text}"
    values = " and ".join(f"`{value}`" for value in label.supported)
    return f"{label.text} ⏳ Only {values} so far."


if __name__ == "__main__":
    sys.stdout.write(render())
