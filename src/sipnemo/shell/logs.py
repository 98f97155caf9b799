"""Lines for people: `Log` actions and the shell's own messages, as text or JSON on stderr."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any, TextIO

from sipnemo.roles.node import Log

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

REPEATS = 5
"Times the same line may come within `REPEATS_WITHIN` seconds before the rest is only counted."

REPEATS_WITHIN = 10.0
MOST_KEPT = 1000

logger = logging.getLogger("sipnemo")


def write(action: Log) -> None:
    """Write the line of a `Log` action."""
    level = LEVELS.get(action.level, logging.INFO)
    if logger.isEnabledFor(level):
        logger.log(level, "%s", action.text, extra={"call_id": action.call_id, "fields": action.fields})


def configure(form: str = "text", level: str = "info", stream: TextIO | None = None) -> logging.Handler:
    """Write everything from this level on to stderr, as `text` or `json`; returns the handler."""
    stream = sys.stderr if stream is None else stream
    handler = logging.StreamHandler(stream)
    journal = _to_journal(stream)
    handler.setFormatter(JsonFormatter(journal) if form == "json" else TextFormatter(journal))
    handler.addFilter(Repeats())
    root = logging.getLogger()
    for old in list(root.handlers):
        if isinstance(old.formatter, JsonFormatter | TextFormatter):
            root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(LEVELS.get(level, logging.INFO))
    # Other libraries' debug lines are not about calls.
    for name in ("aiohttp", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)
    return handler


class TextFormatter(logging.Formatter):
    """`2026-11-23T17:40:00.123Z info text call_id=… key=value`."""

    def __init__(self, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line; a traceback follows on lines of its own."""
        parts = [_priority(record)] if self._journal else [_stamp(record) + " "]
        parts.append(f"{record.levelname.lower()} {_one_line(record.getMessage())}")
        if call_id := getattr(record, "call_id", ""):
            parts.append(f" call_id={_value(call_id)}")
        parts.extend(f" {key}={_value(value)}" for key, value in _fields(record).items())
        line = "".join(parts)
        if record.exc_info:
            prefix = _priority(record) if self._journal else ""
            trace = self.formatException(record.exc_info)
            line += "".join(f"\n{prefix}  {_one_line(part)}" for part in trace.splitlines())
        return line


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, message, call_id and the fields."""

    def __init__(self, journal: bool = False) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, Any] = {
            "time": _stamp(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if call_id := getattr(record, "call_id", ""):
            line["call_id"] = call_id
        for key, value in _fields(record).items():
            line.setdefault(key, value)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        text = json.dumps(line, default=str)
        return _priority(record) + text if self._journal else text


class Repeats(logging.Filter):
    """Lets the same line through a few times, then only says how often it would have come."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._seen: dict[tuple[int, str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write this line."""
        now = self._clock()
        text = record.getMessage()
        key = (record.levelno, text, getattr(record, "call_id", ""))
        since, times = self._seen.get(key, (now, 0))
        if now - since >= REPEATS_WITHIN:
            if times > REPEATS:
                record.msg, record.args = f"{text} (and {times - REPEATS} times more in {now - since:.0f} s)", ()
            since, times = now, 0
        times += 1
        if len(self._seen) >= MOST_KEPT and key not in self._seen:
            del self._seen[next(iter(self._seen))]
        self._seen[key] = (since, times)
        return times <= REPEATS


def _fields(record: logging.LogRecord) -> Mapping[str, Any]:
    fields: Mapping[str, Any] = getattr(record, "fields", {})
    return fields


def _stamp(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{int(record.msecs):03d}Z"


def _priority(record: logging.LogRecord) -> str:
    """The level as journald understands it (sd-daemon(3))."""
    level = record.levelno
    return (
        "<3>"
        if level >= logging.ERROR
        else "<4>"
        if level >= logging.WARNING
        else "<6>"
        if level >= logging.INFO
        else "<7>"
    )


def _one_line(text: str) -> str:
    """Text from the network must not begin a line of its own, nor steer a terminal."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def _value(value: Any) -> str:
    text = _one_line(value if isinstance(value, str) else json.dumps(value, default=str))
    return json.dumps(text, ensure_ascii=False) if " " in text or '"' in text or not text else text


def _to_journal(stream: TextIO) -> bool:
    """Whether this stream is the one that systemd connected to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError, AttributeError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"
