"""What a worker prints: it goes where this process prints, line by line, and in the name of the kernel."""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import suppress
from contextvars import copy_context
from time import monotonic

from pydotcompute.ring_kernels.kernel import current_kernel_id

__all__ = ["Printed"]

AT_ONCE = 16 << 10
"""The most bytes that are read in one turn of the event loop."""
REST = 4.0
"""After it was printed, the event loop has so many times as long for other things. Meanwhile the worker may wait."""
LONGEST_WAIT = 0.2
"""Seconds that the beginning of a line waits for the rest of it."""
LONGEST_LINE = 64 << 10
"""The most bytes without a line break that are kept."""


class Printed:
    """Standard output or standard error of a worker.

    Args:
        stream: the name of the stream of `sys` to which it goes, `stdout` or `stderr`.
        kernel_id: the kernel.
    """

    def __init__(self, stream: str, kernel_id: str) -> None:
        self._stream = stream
        self._context = copy_context()
        self._context.run(current_kernel_id.set, kernel_id)
        self._loop = asyncio.get_running_loop()
        self._begun = b""
        self._timer: asyncio.TimerHandle | None = None  # For the beginning of a line, or for the end of a rest.
        self._read, self.descriptor = os.pipe()
        """The end for the worker, which `given` closes here."""
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._readable)

    def given(self) -> None:
        """Close the worker's end here, because the worker has it."""
        os.close(self.descriptor)

    def close(self) -> None:
        """Print what is left, and nothing after that."""
        with suppress(BlockingIOError):
            while data := os.read(self._read, AT_ONCE):
                self._take(data)
        self._cancel_timer()
        self._print(self._begun)
        self._loop.remove_reader(self._read)
        os.close(self._read)

    def _readable(self) -> None:
        try:
            data = os.read(self._read, AT_ONCE)
        except BlockingIOError:
            return
        if not data:
            self._loop.remove_reader(self._read)
            return
        self._cancel_timer()
        start = monotonic()
        self._take(data)
        rest = REST * (monotonic() - start)
        if rest > 0.001:
            self._loop.remove_reader(self._read)
            self._timer = self._loop.call_later(rest, self._go_on)
        elif self._begun:
            self._timer = self._loop.call_later(LONGEST_WAIT, self._print_begun)

    def _go_on(self) -> None:
        self._timer = None
        self._loop.add_reader(self._read, self._readable)
        self._readable()

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _take(self, data: bytes) -> None:
        lines, end, self._begun = (self._begun + data).rpartition(b"\n")
        self._print(lines + end)
        if len(self._begun) > LONGEST_LINE:
            self._print_begun()

    def _print_begun(self) -> None:
        begun, self._begun = self._begun, b""
        self._print(begun)

    def _print(self, data: bytes) -> None:
        stream = getattr(sys, self._stream, None)
        if data and stream is not None:
            # The stream may be closed, or fail in any way: that is not the kernel's affair.
            with suppress(Exception):
                self._context.run(stream.write, data.decode(errors="backslashreplace"))
                self._context.run(stream.flush)
