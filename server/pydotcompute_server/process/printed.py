"""What Python code prints to `sys.stdout` or `sys.stderr`, as events of the log."""

from __future__ import annotations

import io
import logging
import os
import threading

from pydotcompute.ring_kernels.kernel import current_kernel_id

__all__ = ["LOGGER", "PrintedLines", "log_line"]

LONGEST_WAIT = 0.2
"""How long the beginning of a line waits for the rest of it, in seconds."""

LOGGER = "kernel"

_logger = logging.getLogger(LOGGER)


def log_line(level: int, line: str, source: str | None = None, kernel_id: str | None = None) -> None:
    """Log a line that was printed. Carriage returns around it are left out: progress bars begin with one."""
    known = {"source": source, "kernel_id": kernel_id}
    _logger.log(level, "%s", line.strip("\r"), extra={name: value for name, value in known.items() if value})


class PrintedLines(io.TextIOBase):
    """Takes the place of a standard stream, and logs each line under the kernel that prints it.

    Args:
        descriptor: the file descriptor of the stream, for code that goes around this object.
        level: the level of the events.
        longest_line: the most characters without a line break that are kept.
        source: the value of `source` in the events; None for events without one.
    """

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, descriptor: int, level: int, longest_line: int, source: str | None = None) -> None:
        self._descriptor = descriptor
        self._level = level
        self._longest_line = longest_line
        self._source = source
        self.buffer = io.FileIO(descriptor, "w", closefd=False)
        """The stream for bytes."""
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """Begin anew. A child process must not print again what its parent has begun to."""
        self._lock = threading.RLock()
        self._begun: dict[str | None, str] = {}  # Kernel → the beginning of a line.
        self._is_timed = False

    def write(self, text: str) -> int:
        """Log each complete line. Keep the rest until its line is complete, or `flush`, or for a short time."""
        kernel_id = current_kernel_id.get()
        with self._lock:
            *lines, rest = (self._begun.pop(kernel_id, "") + text).split("\n")
            if len(rest) > self._longest_line:
                lines.append(rest)
            elif rest:
                self._begun[kernel_id] = rest
                self._flush_soon()
        for line in lines:
            log_line(self._level, line, self._source)
        return len(text)

    def _flush_soon(self) -> None:
        if not self._is_timed:
            self._is_timed = True
            timer = threading.Timer(LONGEST_WAIT, self.flush_all)
            timer.daemon = True
            timer.start()

    def flush(self) -> None:
        """Log what the current kernel has printed without a line break."""
        with self._lock:
            line = self._begun.pop(current_kernel_id.get(), None)
        if line is not None:
            log_line(self._level, line, self._source)

    def flush_all(self) -> None:
        """Log what all kernels have printed without a line break."""
        with self._lock:
            begun, self._begun, self._is_timed = self._begun, {}, False
        for kernel_id, line in begun.items():
            log_line(self._level, line, self._source, kernel_id)

    def fileno(self) -> int:
        """Return the file descriptor of the stream."""
        return self._descriptor

    def writable(self) -> bool:
        """Return True."""
        return True
