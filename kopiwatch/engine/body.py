"""The body of Docker's answers: how they are read, and the times in them.

Our snake_case is Docker's PascalCase. Anything may be missing or null; only an id must be there. An
answer that cannot be understood raises ``msgspec.DecodeError``, which the caller translates: a
failed read is never an empty read.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

_T = TypeVar("_T")
_TIME = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)", re.IGNORECASE)


class Raw(msgspec.Struct, frozen=True, rename="pascal"):
    """Base of the shapes of answers."""


def read(body: bytes, kind: type[_T]) -> _T:
    """Decode one answer. Raises ``msgspec.DecodeError``."""
    return msgspec.json.decode(body, type=kind, strict=False)


def parse_time(text: str | None) -> datetime | None:
    """Read a time as Docker writes it (RFC 3339, up to nanoseconds) as UTC.

    None for Docker's zero time (year 1), for a time without a zone, and for anything else that
    cannot be told: an unknown time is never "now".
    """
    found = _TIME.fullmatch(text or "")
    if found is None:
        return None
    whole, fraction, zone = found.groups()
    microseconds = (fraction or ".0")[:7].ljust(7, "0")
    try:
        moment = datetime.fromisoformat(whole + microseconds + zone.upper())
        moment = moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    return None if moment.year == 1 else moment
