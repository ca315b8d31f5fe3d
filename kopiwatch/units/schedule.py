"""What may stand in ``kopi.schedule``, and what it means; when that is due, see ``due``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import msgspec
from cronsim import CronSim, CronSimError

from kopiwatch.config import nearest
from kopiwatch.units.value import FALSE_WORDS, Bad, read_duration

NICKNAMES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@annually": "0 0 1 1 *",
    "@yearly": "0 0 1 1 *",
}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of week", 0, 7, _DAYS),
)
SHORTEST_INTERVAL = timedelta(minutes=1)
_SOME_DAY = datetime(2026, 1, 1, tzinfo=UTC)
_PART = re.compile(r"(\*|[a-z0-9]+)(?:-([a-z0-9]+))?(?:/([0-9]{1,4}))?")


class Schedule(msgspec.Struct, frozen=True):
    """A schedule: five fields of cron, an interval, or neither: off.

    Intervals lie on a fixed grid that begins with 1970 in UTC, so they need no memory: ``every 6h``
    is 00:00, 06:00, 12:00 and 18:00 UTC. ``text`` is what somebody wrote, blanks made single. Two
    are equal if they mean the same: ``@daily`` is ``0 0 * * *``.
    """

    text: str
    cron: str = ""
    interval: timedelta | None = None

    @property
    def off(self) -> bool:
        """It is never due."""
        return not self.cron and self.interval is None

    def __str__(self) -> str:
        return self.text

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Schedule)
            and self.cron.lower() == other.cron.lower()
            and self.interval == other.interval
        )

    def __hash__(self) -> int:
        return hash((self.cron.lower(), self.interval))


OFF = Schedule("off")
DEFAULT = Schedule("0 2 * * *", cron="0 2 * * *")


def read_schedule(text: str) -> Schedule | Bad:
    """Five-field cron, ``@daily`` and its kin, ``every 6h``, or ``off``."""
    lower = text.lower()
    if lower == "off":
        return OFF
    if lower in FALSE_WORDS:
        return Bad("is not a schedule", "write 'off' in quotes: YAML reads a bare off as false")
    if lower.startswith("@"):
        if lower in NICKNAMES:
            return Schedule(lower, cron=NICKNAMES[lower])
        near = nearest(lower, NICKNAMES)
        return Bad(f"is not one of {', '.join(NICKNAMES)}", near and f"did you mean {near!r}?")
    if lower.startswith("every"):
        interval = read_duration(lower.removeprefix("every").strip())
        if isinstance(interval, Bad):
            return Bad("is not an interval such as 'every 6h'", interval.suggestion)
        if interval < SHORTEST_INTERVAL:
            return Bad("is too often; the shortest interval is 1m")
        return Schedule(" ".join(lower.split()), interval=interval)
    return _read_cron(text)


def _read_cron(text: str) -> Schedule | Bad:
    fields = text.split()
    if len(fields) == len(_FIELDS) + 1 and isinstance(_read_cron(" ".join(fields[1:])), Schedule):
        reason = "is not a schedule: cron has five fields, here are six; there are no seconds"
        return Bad(reason, f"did you mean {' '.join(fields[1:])!r}?")
    if len(fields) != len(_FIELDS):
        reason = f"is not a schedule: cron has five fields, here are {len(fields)}"
        return Bad(reason, "such as '0 2 * * *', '@daily' or 'every 6h'")
    for field, (what, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.lower().split(","):
            if fault := _fault(part, low, high, names):
                return Bad(f"has {field!r} as its {what}, which {fault}", "such as '0 2 * * *'")
    cron = " ".join(fields)
    if not _comes(cron):
        return Bad("is never due: there is no such day", "such as '0 2 * * *'")
    return Schedule(cron, cron=cron)


def _comes(cron: str) -> bool:
    try:
        next(CronSim(cron, _SOME_DAY))
    except (CronSimError, StopIteration):
        return False
    return True


def _fault(part: str, low: int, high: int, names: tuple[str, ...]) -> str:
    match = _PART.fullmatch(part)
    if match is None or (match[1] == "*" and match[2]) or (match[3] and not int(match[3])):
        return "is not understood"
    ends = [_number(end, low, names) for end in (match[1], match[2]) if end and end != "*"]
    if not all(low <= end <= high for end in ends):
        return f"is not within {low}-{high}"
    if ends != sorted(ends):
        return "goes backwards" + ("; a Sunday at the end is 7" if match[2] == "sun" else "")
    return ""


def _number(word: str, low: int, names: tuple[str, ...]) -> int:
    if word in names:
        return names.index(word) + low
    return int(word) if word.isascii() and word.isdigit() and len(word) <= 2 else -1
