"""The answer to a scrape: what changes with the board made once, the rest for each scrape.

Nearly all bytes are the units'. They are rendered and compressed when the units changed and
somebody asks, in a thread, and kept compressed. For each scrape the little that changes by itself
(who is overdue, the process, the house) follows as a second part of the same gzip stream.
"""

from __future__ import annotations

import struct
import time
import zlib
from collections import deque
from collections.abc import Iterator

import anyio
import msgspec
from anyio.to_thread import run_sync
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import CollectorRegistry

from kopiwatch.clock import SYSTEM, Clock
from kopiwatch.report.accept import (
    OPENMETRICS,
    OPENMETRICS_VERSION,
    TEXT,
    wants_gzip,
    wants_openmetrics,
)
from kopiwatch.report.board import Board, UnitBoard
from kopiwatch.report.metrics_house import COLLECT, HOUSE, LAG
from kopiwatch.report.metrics_unit import OVERDUE, UNIT
from kopiwatch.report.sample_text import (
    head,
    head_of,
    house_block,
    labelled,
    labelled_units,
    line,
    unit_samples,
)

_LAGS_KEPT = 12  # of 5 s each: a minute
_LEVEL = 1  # of gzip: 12 ms where level 9 takes 87, for a tenth more bytes
_RAW = -zlib.MAX_WBITS
_GZIP_HEAD = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x04\xff"
# A thread that computes holds the GIL for 5 ms at a time, and the event loop needs it after every
# system call: measured, scrapes of 1,000 changed units held it up for 70 ms. So the renderer lets
# go by itself, as soon as it has held it for this long.
_HELD_SECONDS = 0.001
_BREATH_SECONDS = 0.0001
_UNITS_AT_ONCE = 100


class Rendered(msgspec.Struct, frozen=True):
    """A body and how to announce it. ``encoding`` is ``gzip`` or empty."""

    content_type: str
    encoding: str
    body: bytes


class _Units(msgspec.Struct, frozen=True):
    """The units' part. ``deflated`` ends at a byte's border, so that more can follow.

    ``crc`` and ``size`` are those of the text in it; ``deadlines`` are by label, in seconds since
    1970, infinite where there is none.
    """

    units: tuple[UnitBoard, ...]
    deflated: bytes
    crc: int
    size: int
    deadlines: dict[str, float]


class Exposition:
    """Shows the newest board. ``update`` and ``lagged`` are for the event loop and cost nothing."""

    def __init__(self, clock: Clock = SYSTEM) -> None:
        self._clock = clock
        self._board: Board | None = None
        self._lags: deque[float] = deque([0.0], maxlen=_LAGS_KEPT)
        # All below belongs to the thread; one at a time, so that nobody renders the same twice.
        self._turn = anyio.CapacityLimiter(1)
        self._units: dict[bool, _Units] = {}
        self._process: ProcessCollector | None = None

    def update(self, board: Board) -> None:
        """Show this one from now on."""
        self._board = board

    def lagged(self, seconds: float) -> None:
        """Take note of how late the event loop was, see :mod:`kopiwatch.report.lag`."""
        self._lags.append(seconds)

    @property
    def seeded(self) -> bool:
        """There is something to show; before, series would vanish and alerts with them."""
        return self._board is not None and self._board.ready

    async def body(self, accept: str = "", encodings: str = "") -> Rendered | None:
        """The answer to a scrape with these ``Accept`` and ``Accept-Encoding``.

        None until a board is ready.
        """
        board = self._board
        if board is None or not board.ready:
            return None
        openmetrics = wants_openmetrics(accept)
        gzip = wants_gzip(encodings)
        body = await run_sync(self._render, board, openmetrics, gzip, limiter=self._turn)
        kind, version = (OPENMETRICS, OPENMETRICS_VERSION) if openmetrics else (TEXT, "0.0.4")
        return Rendered(f"{kind}; version={version}; charset=utf-8", "gzip" if gzip else "", body)

    def _render(self, board: Board, openmetrics: bool, gzip: bool) -> bytes:
        begun = self._clock.seconds()
        units = self._units.get(openmetrics)
        if units is None or units.units != board.units:
            units = self._units[openmetrics] = _render_units(board.units, openmetrics)
        live = "".join(self._live(units, board, openmetrics, begun)).encode()
        return _zipped(units, live) if gzip else _inflated(units.deflated) + live

    def _live(self, units: _Units, board: Board, openmetrics: bool, begun: float) -> Iterator[str]:
        now = self._clock.now().timestamp()
        name = OVERDUE.full_name
        if units.deadlines:
            yield head(OVERDUE, openmetrics=openmetrics)
        for label, deadline in units.deadlines.items():
            yield f"{name}{{{label}}} 1\n" if now > deadline else f"{name}{{{label}}} 0\n"
        for family in HOUSE:
            yield house_block(family, board, openmetrics=openmetrics)
        yield from self._of_process(openmetrics)
        yield head(LAG, openmetrics=openmetrics) + line(LAG.full_name, "", max(self._lags))
        yield head(COLLECT, openmetrics=openmetrics)
        yield line(COLLECT.full_name, "", self._clock.seconds() - begun)
        if openmetrics:
            yield "# EOF\n"

    def _of_process(self, openmetrics: bool) -> Iterator[str]:
        if self._process is None:
            self._process = ProcessCollector(registry=CollectorRegistry())
        for metric in self._process.collect():
            names = {sample.name for sample in metric.samples}
            for name in sorted(names):
                yield head_of(name, metric.type, metric.documentation, openmetrics=openmetrics)
                for sample in metric.samples:
                    if sample.name == name:
                        labels = labelled(tuple(sample.labels), tuple(sample.labels.values()))
                        yield line(name, labels, sample.value)


def _render_units(units: tuple[UnitBoard, ...], openmetrics: bool) -> _Units:
    by_label = labelled_units(units)
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    parts = []
    crc = size = 0
    for text in _unit_text(list(by_label.items()), openmetrics):
        piece = text.encode()
        parts.append(squeezer.compress(piece))
        crc = zlib.crc32(piece, crc)
        size += len(piece)
    parts.append(squeezer.flush(zlib.Z_SYNC_FLUSH))
    deadlines = {
        label: float("inf") if unit.deadline is None else unit.deadline.timestamp()
        for label, unit in by_label.items()
    }
    return _Units(units, b"".join(parts), crc, size, deadlines)


def _unit_text(units: list[tuple[str, UnitBoard]], openmetrics: bool) -> Iterator[str]:
    begun = time.perf_counter()
    for family in UNIT:
        before = head(family, openmetrics=openmetrics)
        for first in range(0, len(units), _UNITS_AT_ONCE):
            if samples := unit_samples(family, units[first : first + _UNITS_AT_ONCE]):
                yield before + samples
                before = ""
            if time.perf_counter() - begun > _HELD_SECONDS:
                time.sleep(_BREATH_SECONDS)
                begun = time.perf_counter()


def _zipped(units: _Units, live: bytes) -> bytes:
    """One gzip member of both parts: deflate's blocks follow each other, the checksum goes on."""
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _RAW)
    size = (units.size + len(live)) & 0xFFFFFFFF
    return b"".join(
        (
            _GZIP_HEAD,
            units.deflated,
            squeezer.compress(live),
            squeezer.flush(),
            struct.pack("<II", zlib.crc32(live, units.crc), size),
        )
    )


def _inflated(deflated: bytes) -> bytes:
    return zlib.decompressobj(_RAW).decompress(deflated)
