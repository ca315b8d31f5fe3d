"""The daemon's log: one line per event that an operator would want, for people or for machines.

Lines are written by a thread of their own: a full pipe (a log driver that hangs, a Docker daemon
that restarts under live-restore) must not hold up the event loop, least of all in a window.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import sys
import threading
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import Any, TextIO

import structlog

from kopiwatch.config.value import LogFormat, LogLevel

LINES_KEPT = 10_000
"""How many lines may wait for a reader that does not read; what comes then is counted and lost."""

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
Event = MutableMapping[str, Any]


class Log:
    """Hears what is said and writes it down; give it to whatever takes a ``Listener``.

    ``say`` takes ``level`` (``debug``, ``info``, ``warning``, ``error``) among the facts; a line
    has the sentence, the stable ``action``, and the other facts. Close it at the end.
    """

    def __init__(
        self,
        form: LogFormat = "text",
        level: LogLevel = "info",
        *,
        stream: TextIO | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._now = now
        self._writer = _Writer(stream or sys.stderr)
        self._logger = structlog.wrap_logger(
            self._writer,
            processors=[self._stamp, _json() if form == "json" else _text],
            wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        )
        # Whatever aiohttp or asyncio want to say goes the same way, not past it.
        self._handler = _Bridge(self)
        logging.basicConfig(handlers=[self._handler], level=logging.WARNING, force=True)

    def say(self, action: str, message: str, **facts: object) -> None:
        """Write one event; phases are for those who debug."""
        given = str(facts.pop("level", "debug" if action == "phase" else "info"))
        number = _LEVELS.get(given, logging.INFO)
        if action == "phase":
            facts["phase"], message = message, f"phase {message}"
        self._logger.log(number, message, action=action, **facts)

    def close(self) -> None:
        """Write what waits, for up to two seconds, and stop."""
        logging.getLogger().removeHandler(self._handler)
        self._writer.close()

    def _stamp(self, _logger: object, method: str, event: Event) -> Event:
        moment = self._now().astimezone(UTC)
        return {
            "time": moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z",
            "level": method,
            **event,
        }


def _json() -> structlog.processors.JSONRenderer:
    return structlog.processors.JSONRenderer(default=str)


def _text(_logger: object, _method: str, event: Event) -> str:
    """``2026-11-24T02:00:00.000Z info  shop: success …  action=run unit=shop``."""
    rest = " ".join(
        f"{key}={_quoted(value)}"
        for key, value in event.items()
        if key not in ("time", "level", "event") and value not in ("", None)
    )
    sentence = " ".join(str(event["event"]).splitlines())
    return f"{event['time']} {event['level']:<7} {sentence}  {rest}"


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(c.isspace() or c in "\"'=" for c in text) else text


class _Writer:
    """A structlog target that hands lines to a thread. Never blocks, never raises."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_KEPT)
        self._lost = 0
        self._thread = threading.Thread(target=self._drain, name="log", daemon=True)
        self._thread.start()

    def msg(self, line: str) -> None:
        """Take one line."""
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self._lost += 1

    log = debug = info = warning = error = critical = msg

    def close(self) -> None:
        """Write what waits, for up to two seconds, and stop."""
        try:
            self._lines.put(None, timeout=1)
        except queue.Full:
            return
        self._thread.join(timeout=2)

    def _drain(self) -> None:
        while (line := self._lines.get()) is not None:
            lost, self._lost = self._lost, 0
            try:
                if lost:
                    self._stream.write(f"{lost} lines of the log were lost: nobody read them\n")
                self._stream.write(line.encode(errors="replace").decode() + "\n")
                if self._lines.empty():
                    self._stream.flush()
            except (OSError, ValueError):
                continue  # nobody listens any more; the metrics still tell
        # The end may have waited behind the last line, which was not flushed for it.
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()


class _Bridge(logging.Handler):
    """Lines of the libraries: warnings and worse, by their first line."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Pass one record on."""
        level = "error" if record.levelno >= logging.ERROR else "warning"
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f": {record.exc_info[1]!r}"
        self._log.say("library", message, level=level, logger=record.name)
