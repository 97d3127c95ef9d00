"""The daemon's log: one line for each event, as text or JSON, with the id of the kernel that it came from."""

from __future__ import annotations

import io
import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pydotcompute.ring_kernels.kernel import current_kernel_id
from pydotcompute_server.limits import Limits

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["text", "json"]


def configure(level: str, log_format: LogFormat, limits: Limits) -> None:
    """Send the log, and everything that kernels print, to standard error.

    Args:
        level: the name of the least level to log, such as `info`.
        log_format: `text` for people, or `json` for programs.
    """
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
        render = [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    else:
        render = [
            structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback)
        ]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *render],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    sys.stdout = _KernelOutput(sys.stdout, limits.log_line_characters)


def _add_kernel_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    kernel_id = current_kernel_id.get()
    if kernel_id is not None:
        event.setdefault("kernel_id", kernel_id)
    return event


class _KernelOutput(io.TextIOBase):
    """Takes the place of `sys.stdout`, and sends each line to the log.

    Programs that read the real standard output expect only the daemon's address there.
    """

    def __init__(self, stdout: TextIO, longest_line: int) -> None:
        self._stdout = stdout
        self._longest_line = longest_line
        self._partial: dict[str | None, str] = {}
        self._logger = logging.getLogger("kernel")

    def write(self, text: str) -> int:
        """Log each complete line, under the kernel that prints it. Keep the rest until its line is complete."""
        kernel_id = current_kernel_id.get()
        *lines, rest = (self._partial.pop(kernel_id, "") + text).split("\n")
        if len(rest) > self._longest_line:
            lines.append(rest)
        elif rest:
            self._partial[kernel_id] = rest
        for line in lines:
            self._logger.info("%s", line)
        return len(text)

    def flush(self) -> None:
        """Flush the real standard output."""
        self._stdout.flush()

    def fileno(self) -> int:
        """Return the file descriptor of the real standard output."""
        return self._stdout.fileno()

    def isatty(self) -> bool:
        """Return True if the real standard output is a terminal."""
        return self._stdout.isatty()

    def writable(self) -> bool:
        """Return True."""
        return True
