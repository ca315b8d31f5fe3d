"""The table of labels: names, values, defaults, levels, and what this version supports.

One row says all there is to say about a label; parsing, ``kopiwatch explain`` and ``labels.md``
come from it. Braces in a pattern stand for several names, ``<volume>`` for any text.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from kopiwatch.units.retention import Retention
from kopiwatch.units.schedule import read_schedule
from kopiwatch.units.value import (
    Reader,
    choice,
    read_binds,
    read_boolean,
    read_catch_up,
    read_collapse,
    read_command,
    read_dump,
    read_duration,
    read_list,
    read_name,
    read_notify,
    read_number,
    read_profiles,
    read_text,
    read_timezone,
)

Level = Literal["unit", "member"]


class Label(msgspec.Struct, frozen=True):
    """One row of the table.

    ``values`` and ``default`` are for people; an empty default means that there is none.
    ``level`` says for whom a value holds: a ``member`` row for the container that carries it, a
    ``unit`` row for all members, whichever carries it.
    ``supported`` lists the values that this version can do; None means every value, ``()`` none.
    ``field`` is the attribute of :class:`~kopiwatch.units.setting.MemberSettings` or
    :class:`~kopiwatch.units.setting.UnitSettings` that receives the value, empty for none; with a
    dot it is that of a value in there (``retention.latest``).
    ``variable`` is the environment variable that gives the default, where there is one.
    ``shareable`` labels may stand in a profile.
    """

    pattern: str
    values: str
    reader: Reader
    default: str
    level: Level
    text: str
    field: str = ""
    supported: tuple[str, ...] | None = None
    variable: str = ""
    shareable: bool = True

    @property
    def names(self) -> tuple[str, ...]:
        """The exact names that the pattern stands for; none if it takes any text."""
        if "<" in self.pattern:
            return ()
        head, brace, rest = self.pattern.partition("{")
        if not brace:
            return (head,)
        middle, _, tail = rest.partition("}")
        return tuple(f"{head}{word}{tail}" for word in middle.split(","))

    def supports(self, value: object) -> bool:
        """Whether this version can do what the (well-formed) ``value`` asks for."""
        return self.supported is None or str(value) in self.supported


_RETENTION = {
    "latest": "How many of the newest complete restore points are kept; see"
    " [Retention](#retention).",
    "hourly": "Of how many hours that have one the newest complete restore point is kept.",
    "daily": "The same for days.",
    "weekly": "The same for weeks, which begin on Monday.",
    "monthly": "The same for months.",
    "annual": "The same for years.",
}

LABELS: tuple[Label, ...] = (
    Label(
        "kopi.enable",
        "boolean",
        read_boolean,
        "",
        "member",
        "`true` opts the container in; nothing of others is backed up.",
        shareable=False,
    ),
    Label(
        "kopi.unit",
        "name",
        read_name,
        "Compose project, else container name",
        "member",
        "Containers of one unit are backed up and restored together.",
        shareable=False,
    ),
    Label(
        "kopi.instance",
        "name",
        read_name,
        "default",
        "member",
        "Which kopiwatch takes care of this container, where several run on one host.",
        shareable=False,
    ),
    Label(
        "kopi.profile",
        "list of names",
        read_profiles,
        "",
        "member",
        "Settings from the configuration file; `!name` drops an inherited profile, `!none` all.",
        shareable=False,
    ),
    Label(
        "kopi.schedule",
        "five-field cron, `@daily`, `every 6h`, `off`",
        read_schedule,
        "0 2 * * *",
        "unit",
        "When the unit is backed up; see [Schedules](#schedules).",
        field="schedule",
        variable="KOPIWATCH_SCHEDULE",
    ),
    Label(
        "kopi.timezone",
        "time zone",
        read_timezone,
        "UTC",
        "unit",
        "The time zone of the schedule and of retention, by its name (`Europe/Berlin`).",
        field="timezone",
        variable="TZ",
    ),
    Label(
        "kopi.max-age",
        "duration",
        read_duration,
        "from the schedule",
        "unit",
        "After this long without a complete restore point the unit is overdue; see"
        " [Schedules](#schedules).",
        field="max_age",
    ),
    Label(
        "kopi.catch-up",
        "boolean or hours (`22:00-06:00`)",
        read_catch_up,
        "true",
        "unit",
        "One run if a scheduled one was missed; hours (in the unit's time zone) limit when.",
        field="catch_up",
    ),
    Label(
        "kopi.priority",
        "number",
        read_number,
        "100",
        "unit",
        "The lower one goes first among units that are due.",
        field="priority",
    ),
    Label(
        "kopi.mode",
        "`stop`, `pause`, `live`",
        choice("stop", "pause", "live"),
        "stop",
        "member",
        "How the container is kept from writing while its data is read.",
        field="mode",
    ),
    Label(
        "kopi.stop-timeout",
        "duration",
        read_duration,
        "the container's own",
        "member",
        "How long Docker waits for the container to stop before it kills it.",
        field="stop_timeout",
    ),
    Label(
        "kopi.start-timeout",
        "duration",
        read_duration,
        "5m",
        "member",
        "How long the container may take to be healthy again.",
        field="start_timeout",
    ),
    Label(
        "kopi.window-timeout",
        "duration",
        read_duration,
        "1h",
        "unit",
        "The longest acceptable downtime; past it members are started and the run fails.",
        field="window_timeout",
    ),
    Label(
        "kopi.after",
        "list of services or containers",
        read_list,
        "",
        "member",
        "Members that start before this one (and stop after it), beside Compose's own order.",
        field="after",
    ),
    Label(
        "kopi.strategy",
        "`auto`, `gate`, `hot`, `clone`, `copy`",
        choice("auto", "gate", "hot", "clone", "copy"),
        "auto",
        "unit",
        "How the downtime is kept short.",
        field="strategy",
        supported=("auto", "gate"),
    ),
    Label(
        "kopi.include",
        "list of volumes or destinations, globs allowed",
        read_list,
        "all volumes",
        "member",
        "Only these volumes of the container are protected.",
        field="include",
    ),
    Label(
        "kopi.exclude",
        "list of volumes or destinations, globs allowed",
        read_list,
        "",
        "member",
        "These mounts of the container are left out.",
        field="exclude",
    ),
    Label(
        "kopi.binds",
        "boolean, or list of destinations, globs allowed",
        read_binds,
        "false",
        "member",
        "Bind mounts to protect. The host's root, the Docker socket, devices, and whatever"
        " holds or lies in the repository or kopiwatch's own state are refused.",
        field="binds",
    ),
    Label(
        "kopi.collapse",
        "percent (`20%`), or `off`",
        read_collapse,
        "20%",
        "unit",
        "A source that shrinks below this share of its size in the last good restore point fails"
        " the run; see [Refused sources](#refused-sources).",
        field="collapse",
    ),
    Label(
        "kopi.ignore",
        "list of Kopia ignore rules",
        read_list,
        "",
        "member",
        "What to leave out inside the volumes, relative to each volume.",
        supported=(),
    ),
    Label(
        "kopi.ignore.<volume>",
        "list of Kopia ignore rules",
        read_list,
        "",
        "member",
        "The same, for one volume.",
        supported=(),
    ),
    Label(
        "kopi.scope",
        "`minimal`, `standard`, `full`",
        choice("minimal", "standard", "full"),
        "standard",
        "unit",
        "`minimal` is the data, `standard` adds the recipe and networks, `full` Docker's own"
        " configuration.",
        field="scope",
        supported=("minimal", "standard"),
    ),
    Label(
        "kopi.dump",
        "`postgres`, `mysql`, `mariadb`, `mongodb`, `redis`, `sqlite:<path>`, `command`",
        read_dump,
        "",
        "member",
        "A dump of the database in this container, taken before the downtime; see [Dumps](#dumps).",
        field="dump.engine",
    ),
    Label(
        "kopi.dump.command",
        "JSON array, or a string for `sh -c`",
        read_command,
        "",
        "member",
        "With `kopi.dump: command`: what prints the dump.",
        field="dump.command",
    ),
    Label(
        "kopi.dump.{user,database}",
        "text",
        read_text,
        "from the image's usual variables",
        "member",
        "Who logs in to the database, and which one is dumped (else all of them).",
        field="dump.login",
    ),
    Label(
        "kopi.dump.timeout",
        "duration",
        read_duration,
        "1h",
        "member",
        "How long the dump may take.",
        field="dump.timeout",
    ),
    Label(
        "kopi.dump.{password_env,password_file}",
        "variable, or path",
        read_text,
        "from the image's usual variables",
        "member",
        "Where the password is found inside the kopiwatch container; it never stands in a label.",
        field="dump.password",
    ),
    Label(
        "kopi.hook.{pre,post}.command",
        "JSON array, or a string for `sh -c`",
        read_command,
        "",
        "member",
        "Runs in the container right before the downtime, and after it.",
        supported=(),
    ),
    Label(
        "kopi.hook.{pre,post}.user",
        "text",
        read_text,
        "the container's own",
        "member",
        "The user who runs it.",
        supported=(),
    ),
    Label(
        "kopi.hook.{pre,post}.timeout",
        "duration",
        read_duration,
        "30s",
        "member",
        "How long it may take.",
        supported=(),
    ),
    Label(
        "kopi.hook.{pre,post}.on-error",
        "`fail`, `continue`",
        choice("fail", "continue"),
        "fail",
        "member",
        "What a failure of the hook means for the run.",
        supported=(),
    ),
    *(
        Label(
            f"kopi.retention.{name}",
            "number",
            read_number,
            str(Retention().numbers[name]),
            "unit",
            text,
            field=f"retention.{name}",
            variable=f"KOPIWATCH_RETENTION_{name.upper()}",
        )
        for name, text in _RETENTION.items()
    ),
    Label(
        "kopi.drill",
        "schedule, or `off`",
        read_schedule,
        "off",
        "unit",
        "When a restore is rehearsed.",
        supported=("off",),
    ),
    Label(
        "kopi.drill.mode",
        "`files`, `boot`",
        choice("files", "boot"),
        "files",
        "unit",
        "What the rehearsal does.",
        supported=(),
    ),
    Label(
        "kopi.notify",
        "`always`, `failure`, `never`, or list of channels",
        read_notify,
        "the configuration's",
        "unit",
        "Who hears about the unit's runs.",
        supported=("never",),
    ),
)
