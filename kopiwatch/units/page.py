"""``labels.md``, rendered from the table: ``python -m kopiwatch.units.page > labels.md``."""

from __future__ import annotations

import sys

from kopiwatch.units.row import Label
from kopiwatch.units.table import LABELS

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

_SCHEDULES = """
## Schedules

| Schedule | Due |
|---|---|
| `30 2 * * mon-fri` | cron: minute, hour, day of month, month, day of week (0 and 7 are Sunday). \
Lists, ranges, steps and English names (`jan`, `mon`) as usual; if both days are given, either \
suffices. Five fields: there are no seconds. |
| `@hourly`, `@daily`, `@weekly`, `@monthly`, `@yearly` | at the full hour; at midnight; on \
Sunday, on the first day of the month or of the year at midnight. `@midnight` is `@daily`, \
`@annually` is `@yearly`. |
| `every 6h` | on a fixed grid, counted from 1970-01-01 00:00 UTC whatever the time zone: \
`every 6h` is 00:00, 06:00, 12:00 and 18:00 UTC, `every 7d` is Thursday, 00:00 UTC. At least `1m`. |
| `off` | never. Without `kopi.max-age` such a unit has no deadline and is shown as unscheduled. |

**When the clock changes.** A schedule that names hours is due once for each of its times: what the
clock skips in spring is due as soon as it has jumped (`30 2 * * *` and `*/20 2 * * *` in Berlin at
03:00, once), and what it shows twice in autumn is due the first time only. A schedule of every hour
(`15 * * * *`) goes on at its pace.

**When a run was missed**, because the machine slept or kopiwatch did not run, it is made up for
once, however many there were: with `kopi.catch-up: "true"` at once, with hours (`"22:00-06:00"`, in
the unit's time zone) within these, with `"false"` not at all. A run counts as missed when it is
noticed more than 10 minutes after its time. A new unit waits for its first due time.

**When a unit is overdue.** `kopi.max-age` says how old its newest complete restore point may
become. Without it that is the first due time after that point, plus half of the time between it and
the due time before, but at least 2 hours: a unit of `0 2 * * *`, backed up at 02:00, is overdue at
14:00 of the next day. A unit that was never backed up counts from when it was first seen.
"""

_RETENTION = """
## Retention

After each backup that was a success, kopiwatch deletes what none of the six numbers keeps. They
mean what they mean in Kopia: of each hour, day, week, month and year that has a complete restore
point the newest one is kept, as long as it is not older than so many hours, days and so on before
the newest of all. Days begin in the time zone that `kopi.timezone` names. A number that nobody
gives is the configuration's, else the default above; a single `"0"` switches that number off, and
six of them, which would keep nothing, disable the unit.

Never deleted are the newest complete restore point, what somebody pinned, and what no run of
kopiwatch made. Manifests of runs that were no success never take the place of a good one; they go
when a complete restore point is two weeks younger, all but the newest three. More than ten at once
are not deleted by a run: it says so, and `kopiwatch repo retention apply UNIT --yes` does it.
`kopiwatch repo retention show` tells of every restore point why it is kept.
"""

_REFUSED = """
## Refused sources

Each run is compared with the last good restore point of its unit. A source is refused, and the run
is `partial`, if it

- had files and has **none** any more (`source-empty`),
- **collapsed** (`source-collapsed`): it holds less than `kopi.collapse` of its former size. What
  was smaller than 1 MiB is not judged by its size,
- **vanished** (`source-vanished`): it held files, and no member mounts it any more. What
  `kopi.include`, `kopi.exclude` and `kopi.binds` leave out is left out on purpose: that is only
  noted, once. A container that lost its `kopi.enable` looks like one that was lost, and is refused;
  so is a dump that no `kopi.dump` asks for any more.

The restore point is kept, but it is not offered, and later runs are not compared with it. If it was
meant, say so: `kopiwatch accept UNIT`. A volume that has a new name only because its project, unit
or container has one (`old_data`, now `new_data`) is the same volume.
"""

_HOOKS = """
## Hooks

```yaml
labels:
  kopi.enable: "true"
  kopi.hook.pre.command: '["php", "occ", "maintenance:mode", "--on"]'
  kopi.hook.post.command: '["php", "occ", "maintenance:mode", "--off"]'
  kopi.hook.pre.user: "www-data"
  kopi.hook.post.user: "www-data"
```

A **pre** hook runs as late as possible: Kopia has the repository open and waits, and nobody is
stopped yet. A **post** hook runs when the members run again and are healthy. Neither counts as
downtime. Pre hooks run one after the other, dependents first, as members stop; post hooks with
dependencies first, as they start. They run also where nobody is stopped (`kopi.mode: "live"`,
nobody writes), around the read. A member that does not run, or is paused, has no hooks; that is
said.

**A post hook always runs once its pre hook has begun**: if the pre hook fails or hangs, if the run
fails or is cancelled, and, by the next command that changes something, if kopiwatch or the machine
died in between (it is on disk before the pre hook begins). So it may run twice, and it may run
after a pre hook that did half of its work, or was just about to begin: it should not mind. One that
failed is not tried again; while its container does not start, or Docker does not answer, it stays
owed. A post hook without a pre hook runs whenever the run came as far as the downtime.

**When one fails** (an exit code other than 0, no such program, not ended in time): with a pre hook
nobody is stopped, and the run is `failed` (`hook`); with a post hook the run is `partial` (`hook`).
With `on-error: "continue"` either is only a warning.

**When one hangs** it is killed at its timeout, with what it started. Docker cannot do that, so
kopiwatch looks for it from inside, which needs `sh`, `grep` and `tr` in the container; without them
the run goes on and says that the hook may still run (until the container stops). A program that a
hook leaves running in the background must close its output, or counts as part of the hook.

A string is a command for `sh -c`; a container without `sh` needs a JSON array. Hooks see
`KOPIWATCH_HOOK` (`pre` or `post`), `KOPIWATCH_UNIT` and `KOPIWATCH_RUN`. Exit code, time and the
last 8 KiB of output of each stand in `kopiwatch history RUN`: kopiwatch's own secrets are masked
there, but it does not know those of your applications, so a hook should not print them.

Hooks that run where kopiwatch runs stand in the [configuration](docs/configuration.md#hooks).
"""

_DUMPS = """
## Dumps

`kopi.dump` names the database that runs in the container. Before anybody is stopped, its own client
is run inside the container, with the password that the container's environment or secret files
hold, and what it prints becomes a source of the unit: `dumps/db.postgres.sql`. It counts only if
the client exits 0 and the dump has its end; else the run fails, and nobody was stopped.

| Value | What is run | Who logs in, unless a label says it |
|---|---|---|
| `postgres` | `pg_dumpall`, or `pg_dump` of `kopi.dump.database` | `POSTGRES_USER`, or `postgres` |
| `mysql`, `mariadb` | `mysqldump` or `mariadb-dump`, of all databases or one | `root`, or \
`MYSQL_USER` where only its password is known |
| `mongodb` | `mongodump --archive` | `MONGO_INITDB_ROOT_USERNAME`, else nobody |
| `redis` | `redis-cli --rdb -` | nobody, or the password in `REDIS_PASSWORD` |
| `sqlite:<path>` | `sqlite3 <path> .backup` | nobody |
| `command` | `kopi.dump.command` | as the command likes |

The dump comes beside the volumes, not instead of them, and `kopi.mode` is as before. To keep the
dump alone, leave the database's volume out with `kopi.exclude`; to keep both without downtime, take
`kopi.mode: live`, and trust the dump. A container that does not run cannot be dumped, and that
fails the run. More, and how a dump is put back by hand: [docs/dumps.md](docs/dumps.md).
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
    rows = "".join(map(_row, LABELS))
    return _INTRO + head + rows + _SCHEDULES + _RETENTION + _REFUSED + _DUMPS + _HOOKS + _PROFILES


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
