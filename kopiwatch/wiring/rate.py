"""How fast a unit's data was uploaded, as its history tells."""

from __future__ import annotations

from pathlib import Path

from kopiwatch.backup.strategy import DEFAULT_RATE
from kopiwatch.errors import HistoryError
from kopiwatch.report.history import History

LAST = 10


async def upload_rate(state: Path, unit: str) -> float:
    """Bytes per second of the newest run that measured it, else the default.

    A history that cannot be read is as good as none: this is only an estimate.
    """
    try:
        async with await History.read_only(state) as records:
            for row in reversed(await records.runs(unit=unit, last=LAST)):
                detail = await records.run(row.run) if row.run else None
                if detail is not None and detail.result is not None and detail.result.upload_rate:
                    return detail.result.upload_rate
    except HistoryError:
        pass
    return DEFAULT_RATE
