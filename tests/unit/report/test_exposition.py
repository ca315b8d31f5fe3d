"""The answer to a scrape: right at its moment, made once, in each format and encoding."""

from __future__ import annotations

import asyncio
import gzip
import threading
from collections import Counter
from datetime import timedelta

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families as read_text
from support.boards import NOW, full, large, unit

from kopiwatch.clock import Clock
from kopiwatch.report import metrics_unit
from kopiwatch.report.accept import wants_gzip, wants_openmetrics
from kopiwatch.report.exposition import Exposition
from kopiwatch.report.lag import LAG_SECONDS, watch_lag
from kopiwatch.report.metrics import TABLE

PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"


class Time:
    """A clock whose hands a test moves."""

    def __init__(self) -> None:
        self.now = NOW
        self.seconds = 0.0
        self.clock = Clock(now=lambda: self.now, seconds=lambda: self.seconds)


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def exposition(time):
    return Exposition(time.clock)


def figures(text: str, read=read_text) -> dict[str, float]:
    """Each sample without labels, and those of units by name and unit."""
    return {
        f"{sample.name} {sample.labels.get('unit', '')}".strip(): sample.value
        for family in read(text)
        for sample in family.samples
    }


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (PROMETHEUS_2, True),
        (PROMETHEUS_3, True),
        ("application/openmetrics-text", True),
        ('Application/OpenMetrics-Text; version="1.0.0"', True),
        ("application/openmetrics-text;version=0.0.1,text/plain", False),
        ("application/openmetrics-text;version=2.0.0", False),
        ("application/openmetrics-text;q=0.2,text/plain;q=0.5", False),
        ("application/openmetrics-text;q=0", False),
        ("application/openmetrics-text;q=nonsense", False),
        ("application/openmetrics-text;q=nan", False),
        (BROWSER, False),
        ("text/plain", False),
        ("*/*", False),
        ("", False),
        (";;,=;q=,", False),
    ],
)
def test_openmetrics_is_given_to_who_asks_for_it(accept, wanted):
    """By name and weight; everybody else gets text."""
    assert wants_openmetrics(accept) is wanted


@pytest.mark.parametrize(
    ("encodings", "wanted"),
    [
        ("gzip", True),
        ("GZIP, deflate, br", True),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip;q=0, *", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_given_to_who_takes_it(encodings, wanted):
    """By name or star, unless its weight is zero."""
    assert wants_gzip(encodings) is wanted


@pytest.mark.anyio
async def test_nothing_is_shown_before_the_state_is_seeded(exposition):
    """Neither without a board nor with one that is not ready."""
    assert not exposition.seeded
    assert await exposition.body() is None
    exposition.update(full(ready=False))
    assert not exposition.seeded
    assert await exposition.body() is None
    exposition.update(full())
    assert exposition.seeded
    assert await exposition.body() is not None


@pytest.mark.anyio
async def test_every_family_of_the_table_is_there_once(exposition):
    """A full board has at least one series of each, under one head, and those of the process."""
    exposition.update(full())
    text = (await exposition.body()).body.decode()
    heads = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(heads.values()) == {1}
    ours = {name for name in heads if name.startswith("kopiwatch_")}
    assert ours == {family.full_name for family in TABLE}
    assert {
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
    } <= heads.keys()


@pytest.mark.anyio
async def test_formats_and_encodings_hold_the_same_series(exposition):
    """Text, OpenMetrics, each plain and as gzip; the checksum of gzip holds over both parts."""
    exposition.update(full())
    names = []
    for accept, read in (("", read_text), (PROMETHEUS_3, read_openmetrics)):
        for encodings in ("", "gzip"):
            rendered = await exposition.body(accept, encodings)
            assert rendered.encoding == encodings
            body = gzip.decompress(rendered.body) if encodings else rendered.body
            names.append(
                sorted(
                    (sample.name, sorted(sample.labels.items()))
                    for family in read(body.decode())
                    for sample in family.samples
                )
            )
    assert all(names[0] == other for other in names[1:])


@pytest.mark.anyio
async def test_content_type_names_format_and_version(exposition):
    """As the two specifications want it."""
    exposition.update(full())
    assert (await exposition.body()).content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert (await exposition.body(PROMETHEUS_2)).content_type == (
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    )


@pytest.mark.anyio
async def test_many_units_stand_under_one_head_each_once(exposition):
    """However the work is cut up: 250 series of a family, in the order of the board."""
    board = large(250)
    exposition.update(board)
    text = gzip.decompress((await exposition.body(PROMETHEUS_2, "gzip")).body).decode()
    for family in read_openmetrics(text):
        if family.name in ("kopiwatch_unit_present", "kopiwatch_unit_overdue"):
            shown = [sample.labels["unit"] for sample in family.samples]
            assert shown == [unit.unit for unit in board.units]
    heads = Counter(line for line in text.splitlines() if line.startswith("# TYPE"))
    assert set(heads.values()) == {1}


@pytest.mark.anyio
async def test_board_without_units_is_shown(exposition):
    """A fresh host has no units and much to tell."""
    exposition.update(full(()))
    for accept, read in (("", read_text), (PROMETHEUS_3, read_openmetrics)):
        body = gzip.decompress((await exposition.body(accept, "gzip")).body)
        assert figures(body.decode(), read)["kopiwatch_ready"] == 1


@pytest.mark.anyio
async def test_overdue_is_true_of_the_moment_of_the_scrape(exposition, time):
    """The same board, and time passes over a deadline."""
    deadline = NOW + timedelta(minutes=1)
    board = full((unit(unit="a", deadline=deadline), unit(unit="b", deadline=None)))
    exposition.update(board)
    for now, overdue in (
        (NOW, 0),
        (deadline, 0),
        (deadline + timedelta(microseconds=1), 1),
        (NOW, 0),
    ):
        time.now = now
        got = figures((await exposition.body()).body.decode())
        assert got["kopiwatch_unit_overdue a"] == overdue == board.units[0].overdue(now)
        assert got["kopiwatch_unit_overdue b"] == 0


@pytest.mark.anyio
async def test_changed_board_is_shown_by_the_next_scrape(exposition):
    """In both parts, in each format."""
    first = full((unit(unit="a"),))
    one = msgspec.structs.replace(first.units[0], consecutive_failures=5)
    second = msgspec.structs.replace(first, units=(one,), recoveries=8)
    for board, failures, recoveries in ((first, 0, 1), (second, 5, 8), (first, 0, 1)):
        exposition.update(board)
        for accept, read in (("", read_text), (PROMETHEUS_2, read_openmetrics)):
            got = figures((await exposition.body(accept)).body.decode(), read)
            assert got["kopiwatch_unit_consecutive_failures a"] == failures
            assert got["kopiwatch_journal_recoveries_total"] == recoveries


class Counting(msgspec.Struct, frozen=True):
    """A schedule that takes note of each time it is rendered, and by which thread."""

    threads: list[int] = []

    def encode(self, *_: object) -> bytes:
        self.threads.append(threading.get_ident())
        return b"0 2 * * *"

    def isascii(self) -> bool:
        return False


@pytest.mark.anyio
async def test_units_are_rendered_once_per_change_and_not_in_the_loop(exposition):
    """Ten scrapes at once, and an equal board from somewhere else, cost one rendering."""
    schedule = Counting()
    exposition.update(full((unit(unit="a", schedule=schedule),)))
    await asyncio.gather(*(exposition.body("", "gzip") for _ in range(10)))
    assert len(schedule.threads) == 1
    assert threading.get_ident() not in schedule.threads
    exposition.update(full((unit(unit="a", schedule=schedule),), recoveries=9))
    assert figures((await exposition.body()).body.decode())["kopiwatch_journal_recoveries_total"]
    assert len(schedule.threads) == 1
    exposition.update(full((unit(unit="b", schedule=schedule),)))
    await exposition.body()
    assert len(schedule.threads) == 2
    await exposition.body(PROMETHEUS_2)
    assert len(schedule.threads) == 3, "the other format is rendered when it is asked for"


@pytest.mark.anyio
async def test_lag_of_the_last_minute_is_the_greatest(exposition):
    """A stall is seen by scrapers that come later, and forgotten after a minute."""
    exposition.update(full(()))

    async def shown() -> float:
        body = (await exposition.body()).body.decode()
        return figures(body)["kopiwatch_event_loop_lag_seconds"]

    assert await shown() == 0
    exposition.lagged(0.75)
    for _ in range(11):
        exposition.lagged(0.01)
        assert await shown() == 0.75
    exposition.lagged(0.01)
    assert await shown() == 0.01


class Enough(Exception):
    """The test has seen enough."""


@pytest.mark.anyio
async def test_lag_is_how_late_the_sleep_ends():
    """Punctual is zero; a clock that went too slow is not negative."""
    time = Time()
    late = iter([0.0, 0.25, -0.1])
    reported = []

    async def sleep(seconds: float) -> None:
        assert seconds == LAG_SECONDS
        if (delay := next(late, None)) is None:
            raise Enough
        time.seconds += seconds + delay

    clock = Clock(now=time.clock.now, seconds=time.clock.seconds, sleep=sleep)
    with pytest.raises(Enough):
        await watch_lag(reported.append, clock)
    assert reported == [0.0, 0.25, 0.0]


def test_unit_part_has_no_figure_that_changes_by_itself():
    """What is kept between scrapes must not age: overdue is not in it."""
    assert metrics_unit.OVERDUE not in metrics_unit.UNIT
