"""The daemon's log: one event after the other, as text or JSON, with the id of the kernel that it came from."""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Literal

from pydotcompute.printable import escaped, escaped_lines
from pydotcompute.ring_kernels.kernel import current_kernel_id
from pydotcompute_server.limits import Limits
from pydotcompute_server.process.printed import LOGGER, PrintedLines
from pydotcompute_server.process.standard_files import StandardFiles

__all__ = ["LogFormat", "logging_to_stderr"]

LogFormat = Literal["text", "json"]

_LONGEST_STALL_MS = 1_000
"""How long an event waits for whoever reads the log, in milliseconds. The events after it do not wait."""

_INDENT = "    "
"""Begins the further lines of an event in the text log. Its first line begins with the time."""


@contextmanager
def logging_to_stderr(level: str, log_format: LogFormat, limits: Limits) -> Iterator[StandardFiles]:
    """Send the log to standard error in this block, and everything that kernels and their libraries print.

    What they write to standard error is logged whatever the level is.

    Yields the real standard output and standard error. What is printed after the block goes to standard error.

    Args:
        level: the name of the least level to log, such as `info`.
        log_format: `text` for people, or `json` for programs.
    """
    files = StandardFiles()
    handler = _Handler(files.stderr.fileno())
    handler.setFormatter(_JsonFormatter() if log_format == "json" else _TextFormatter(colors=files.stderr.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # What is written to standard error may be a program's last words, so no level hides it.
    logging.getLogger(LOGGER).setLevel(min(root.level, logging.WARNING))
    logging.captureWarnings(True)
    streams = [
        PrintedLines(1, logging.INFO, limits.log_line_characters),
        PrintedLines(2, logging.WARNING, limits.log_line_characters, source="stderr"),
    ]
    files.relay({1: (logging.INFO, "stdout"), 2: (logging.WARNING, "stderr")}, limits.log_line_characters)
    sys.stdout, sys.stderr = streams
    try:
        yield files
    finally:
        for stream in streams:
            stream.flush_all()
        sys.stdout = sys.stderr = sys.__stderr__
        files.end_relay()


_OWN = frozenset([*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"])
"""The attributes that every record has. The others are the `extra` of a call."""


def _fields(record: logging.LogRecord) -> dict[str, object]:
    """Return what an event says beside its text."""
    fields = {name: value for name, value in vars(record).items() if name not in _OWN}
    kernel_id = current_kernel_id.get()
    if kernel_id is not None:
        fields.setdefault("kernel_id", kernel_id)
    return fields


class _JsonFormatter(logging.Formatter):
    """Makes each event one line of JSON, for programs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        event = {
            "event": record.getMessage(),
            **_fields(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat().replace("+00:00", "Z"),
        }
        if record.stack_info:
            event["stack"] = record.stack_info
        if record.exc_info and record.exc_info[0]:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event, allow_nan=False, default=repr)


_RESET, _BRIGHT, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = (f"\x1b[{number}m" for number in range(31, 37))


class _TextFormatter(logging.Formatter):
    """Makes each event a line for people, with its traceback below it.

    What clients and kernels have a part in is made safe for a terminal. No line of it looks like another event's.
    """

    def __init__(self, *, colors: bool) -> None:
        super().__init__()
        self._colors = colors

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and those below it."""
        level = _RED if record.levelno >= logging.ERROR else _YELLOW if record.levelno >= logging.WARNING else _GREEN
        time = datetime.fromtimestamp(record.created).isoformat(timespec="microseconds")
        text = " ".join(
            [
                self._in(_DIM, time),
                f"[{self._in(level + _BRIGHT, record.levelname.lower().ljust(9))}]",
                self._in(_BRIGHT, escaped_lines(record.getMessage().rstrip("\n"), _INDENT).ljust(30)),
                f"[{self._in(_BLUE + _BRIGHT, escaped(record.name))}]",
                *(
                    f"{self._in(_CYAN, escaped(name))}={self._in(_MAGENTA, _shown(value))}"
                    for name, value in sorted(_fields(record).items())
                ),
            ]
        )
        below = [record.stack_info] if record.stack_info else []
        if record.exc_info and record.exc_info[0]:
            below.append(self.formatException(record.exc_info))
        return "".join([text, *(f"\n{_INDENT}{escaped_lines(each, _INDENT)}" for each in below)])

    def _in(self, color: str, text: str) -> str:
        return f"{color}{text}{_RESET}" if self._colors else text


def _shown(value: object) -> str:
    """Return the value of a field as the text log has it: quoted if one could not tell where it ends."""
    if not isinstance(value, str):
        return escaped(repr(value))
    text = escaped(value)
    return repr(text) if set(text) & set(" =\"'") else text


class _Handler(logging.Handler):
    """Writes each event to a file descriptor, at once and as a whole.

    If nobody reads the log, a pipe is full in the end. Then events are lost, and counted: the daemon must not stop.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._lost = 0
        self._room = select.poll()
        self._room.register(descriptor, select.POLLOUT)

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event. If it cannot be made into text, write an event that says so."""
        try:
            text = self.format(record)
        except Exception as error:
            text = self._told(
                record, f"an event cannot be logged, {type(error).__name__}: {record.msg!r} with {record.args!r}"
            )
        if not self._room.poll(0 if self._lost else _LONGEST_STALL_MS):
            self._lost += 1
            return
        if self._lost:
            text = f"{self._told(record, f'{self._lost} events are lost: nobody has read the log')}\n{text}"
            self._lost = 0
        data = memoryview(f"{text}\n".encode(errors="backslashreplace"))
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            return  # Whoever read the log has gone. To say so, there is only the log.

    def _told(self, record: logging.LogRecord, text: str) -> str:
        return self.format(logging.LogRecord(record.name, record.levelno, "", 0, text, (), None))
