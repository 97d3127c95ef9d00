"""The daemon's log: one event after the other, as text or JSON, with the id of the kernel that it came from."""

from __future__ import annotations

import logging
import os
import select
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Literal, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

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
    handler.setFormatter(_formatter(log_format, colors=files.stderr.isatty()))
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


def _formatter(log_format: LogFormat, *, colors: bool) -> logging.Formatter:
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.stdlib.PositionalArgumentsFormatter(),
        _add_kernel_id,
        structlog.processors.TimeStamper(fmt="iso", utc=log_format == "json"),
    ]
    render: list[Processor]
    if log_format == "json":
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(allow_nan=False)]
    else:
        render = [_escape, structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_write_traceback)]
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=shared,
        processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
    )


def _add_kernel_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    kernel_id = current_kernel_id.get()
    if kernel_id is not None:
        event.setdefault("kernel_id", kernel_id)
    return event


def _escape(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Make what clients and kernels have a part in safe for a terminal. No line of it looks like another event's."""
    return {escaped(str(key)): _escaped_value(key, value) for key, value in event.items()}


def _escaped_value(key: str, value: object) -> object:
    if key == "exc_info" or value is None or isinstance(value, int | float):
        return value
    if key in ("event", "stack"):
        return escaped_lines(str(value).rstrip("\n"), _INDENT)
    return escaped(value if isinstance(value, str) else repr(value))


def _write_traceback(
    file: TextIO, error: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
) -> None:
    text = "".join(traceback.format_exception(*error)).rstrip("\n")
    file.write(f"\n{_INDENT}{escaped_lines(text, _INDENT)}")


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
