"""The log: what a line looks like, who is heard, and that nobody ever waits for its reader."""

from __future__ import annotations

import contextlib
import fcntl
import io
import json
import logging
import os
import threading
from datetime import UTC, datetime

import pytest

from kopiwatch.report import log as module
from kopiwatch.report.log import Log

NOW = datetime(2026, 11, 24, 2, 0, 0, 7000, tzinfo=UTC)


def written(form="text", level="info", say=lambda log: None) -> str:
    """All that a log wrote while ``say`` spoke to it."""
    stream = io.StringIO()
    log = Log(form, level, stream=stream, now=lambda: NOW)
    say(log)
    log.close()
    return stream.getvalue()


def test_line_for_people_has_time_level_sentence_and_facts():
    """In this order; empty facts are left out, odd ones quoted."""
    line = written(
        say=lambda log: log.say("run", "shop: success", unit="shop", hint="", why="a b=c", n=3)
    )
    assert line == (
        "2026-11-24T02:00:00.007Z info    shop: success  action=run unit=shop why='a b=c' n=3\n"
    )


def test_line_for_machines_is_one_object():
    """With the stable action and every fact; what JSON does not know is text."""
    line = written(
        "json", say=lambda log: log.say("run", "100 % of it", unit="shop", level="error", at=NOW)
    )
    assert json.loads(line) == {
        "time": "2026-11-24T02:00:00.007Z",
        "level": "error",
        "event": "100 % of it",
        "action": "run",
        "unit": "shop",
        "at": str(NOW),
    }
    assert line.count("\n") == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_event_is_one_line_whatever_is_in_it(form):
    """Line ends and bytes that are no text neither split a line nor end the log."""

    def say(log):
        log.say("run", "first\nsecond\r\nthird", path="a\nb", name=os.fsdecode(b"\xff"))
        log.say("run", "the next one")

    lines = written(form, say=say).splitlines()
    assert len(lines) == 2
    assert "first" in lines[0]
    assert "third" in lines[0]
    assert "the next one" in lines[1]


@pytest.mark.parametrize(
    ("level", "heard"),
    [
        ("debug", ["phase", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_level_decides_who_is_heard(level, heard):
    """Phases are for those who debug; what has no level is information."""

    def say(log):
        log.say("phase", "stop", unit="shop")
        log.say("info", "x")
        log.say("warning", "x", level="warning")
        log.say("error", "x", level="error")

    lines = [json.loads(line) for line in written("json", level, say=say).splitlines()]
    assert [line["action"] for line in lines] == heard
    if level == "debug":
        assert (lines[0]["event"], lines[0]["phase"]) == ("phase stop", "stop")


def test_libraries_speak_through_it_too():
    """Their warnings and errors, with the cause in the same line; not what is less."""

    def say(log):
        logger = logging.getLogger("aiohttp.server")
        logger.info("nobody wants to know")
        logger.warning("slow: %s s", 3)
        logger.error("unhandled", exc_info=ValueError("no such thing"))

    lines = [json.loads(line) for line in written("json", say=say).splitlines()]
    assert [(line["level"], line["logger"]) for line in lines] == [
        ("warning", "aiohttp.server"),
        ("error", "aiohttp.server"),
    ]
    assert lines[0]["event"] == "slow: 3 s"
    assert "ValueError('no such thing')" in lines[1]["event"]


def test_closed_log_hears_no_library_any_more():
    """What comes later goes the usual way, and not into a stream that is closed."""
    log = Log(stream=io.StringIO())
    assert log._handler in logging.getLogger().handlers
    log.close()
    assert log._handler not in logging.getLogger().handlers


# -- readers -----------------------------------------------------------------------------------


class Pipe:
    """A pipe that is as small as can be, with a text stream on it."""

    def __init__(self) -> None:
        self.reader, writer = os.pipe()
        fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
        self.stream = os.fdopen(writer, "w")

    def read_all(self) -> list[str]:
        with open(self.reader) as file:
            return file.read().splitlines()


def test_reader_that_does_not_read_holds_up_nobody(monkeypatch):
    """What waits is kept in order, what is too much is lost, and how much is said."""
    monkeypatch.setattr(module, "LINES_KEPT", 50)
    pipe = Pipe()
    log = Log(stream=pipe.stream)
    for number in range(2000):
        log.say("run", f"line {number}", padding="x" * 100)
    found: list[str] = []
    reader = threading.Thread(target=lambda: found.extend(pipe.read_all()))
    reader.start()
    log.close()
    pipe.stream.close()
    reader.join()
    told = [line for line in found if "lines of the log were lost" in line]
    kept = [line for line in found if "lines of the log were lost" not in line]
    lost = sum(int(line.split()[0]) for line in told)
    assert told
    assert len(kept) + lost == 2000
    numbers = [int(line.split()[3]) for line in kept]
    assert numbers == sorted(numbers)
    assert len(numbers) >= 50


def test_log_whose_reader_is_gone_goes_on():
    """A pipe that broke raises nowhere; there is simply nobody to tell."""
    pipe = Pipe()
    os.close(pipe.reader)
    log = Log(stream=pipe.stream)
    for number in range(500):
        log.say("run", f"line {number}", padding="x" * 100)
    log.close()
    assert not log._writer._thread.is_alive()
    with contextlib.suppress(BrokenPipeError):
        pipe.stream.close()


class Held(io.StringIO):
    """A stream that takes nothing before it is let go, and knows what was flushed."""

    def __init__(self) -> None:
        super().__init__()
        self.reached, self.let_go = threading.Event(), threading.Event()
        self.flushed = ""

    def write(self, text: str) -> int:
        self.reached.set()
        self.let_go.wait()
        return super().write(text)

    def flush(self) -> None:
        self.flushed = self.getvalue()


def test_last_lines_are_flushed_when_the_log_is_closed():
    """Also when the end comes while lines still wait."""
    stream = Held()
    log = Log(stream=stream)
    log.say("stop", "SIGTERM: leaving")
    stream.reached.wait()
    log.say("stop", "kopiwatch has left")
    closing = threading.Thread(target=log.close)
    closing.start()
    while log._writer._lines.qsize() < 2:  # until the end waits behind the last line
        pass
    stream.let_go.set()
    closing.join()
    assert "kopiwatch has left" in stream.flushed
