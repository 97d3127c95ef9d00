"""The daemon's log: one event a line, for people or for programs, each with the kernel it came from."""

from __future__ import annotations

import io
import logging
import sys
from typing import Literal, TextIO

import structlog
from structlog.types import EventDict, Processor, WrappedLogger

from pydotcompute.ring_kernels.kernel import current_kernel_id

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["text", "json"]

LONGEST_LINE = 16_384
"""Characters that a kernel can print without a line's end before they are logged all the same."""


def configure(level: str, log_format: LogFormat) -> None:
    """Send all logging, and what kernels and their files print, to standard error."""
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
    sys.stdout = _KernelOutput(sys.stdout)


def _add_kernel_id(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    kernel_id = current_kernel_id.get()
    if kernel_id is not None:
        event.setdefault("kernel_id", kernel_id)
    return event


class _KernelOutput(io.TextIOBase):
    """`sys.stdout`, whose lines go to the log: whoever reads the real one expects the daemon's address, and no more."""

    def __init__(self, stdout: TextIO) -> None:
        self._stdout = stdout
        self._partial: dict[str | None, str] = {}
        self._logger = logging.getLogger("kernel")

    def write(self, text: str) -> int:
        kernel_id = current_kernel_id.get()
        *lines, rest = (self._partial.pop(kernel_id, "") + text).split("\n")
        if len(rest) > LONGEST_LINE:
            lines.append(rest)
        elif rest:
            self._partial[kernel_id] = rest
        for line in lines:
            self._logger.info("%s", line)
        return len(text)

    def flush(self) -> None:
        self._stdout.flush()

    def fileno(self) -> int:
        return self._stdout.fileno()

    def isatty(self) -> bool:
        return self._stdout.isatty()

    def writable(self) -> bool:
        return True
