"""What a worker prints: it goes where this process prints, line by line, and in the name of the kernel."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from time import monotonic

from pydotcompute.ring_kernels.kernel import current_kernel_id

__all__ = ["Printed"]

AT_ONCE = 16 << 10
"""The most bytes that are read in one turn of the event loop."""
LINES = 32
"""The most lines that are printed in one turn."""
REST = 9.0
"""After a turn, the event loop has so many times as long for other things. Meanwhile workers that print may wait."""
LATER = 0.001
"""Seconds that a worker whose turn it was lets others go first."""
LONGEST_WAIT = 0.2
"""Seconds that the beginning of a line waits for the rest of it."""
LONGEST_LINE = 64 << 10
"""The most bytes without a line break that are kept."""


class _Turns:
    """The turns of all workers that print: the log of a daemon costs time, and that is to be bounded."""

    free_at = 0.0  # When the next turn may be, by `time.monotonic()`.


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
        self._begun = b""  # What was read and is not printed yet.
        self._timer: asyncio.TimerHandle | None = None
        self._worker_has_ended = False
        self._over = asyncio.Event()
        self._read, self.descriptor = os.pipe()
        """The end for the worker, which `given` closes here."""
        os.set_blocking(self._read, False)
        self._loop.add_reader(self._read, self._turn)

    def given(self) -> None:
        """Close the worker's end here, because the worker has it."""
        os.close(self.descriptor)

    async def finish(self) -> None:
        """Wait until everything is printed that there is now. The worker has ended; its children may go on."""
        self._worker_has_ended = True
        self._turn()
        await self._over.wait()

    def close(self) -> None:
        """Print nothing more."""
        self._stop()
        os.close(self._read)

    def _stop(self) -> None:
        self._over.set()
        self._loop.remove_reader(self._read)
        self._wait(None)

    def _wait(self, seconds: float | None, then: Callable[[], None] | None = None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None or then is None else self._loop.call_later(seconds, then)

    def _turn(self) -> None:
        """Read something, and print some of what was read."""
        if self._over.is_set():
            return
        now = monotonic()
        if now < _Turns.free_at:
            self._rest(_Turns.free_at - now)
            return
        has_ended = False
        if b"\n" not in self._begun:
            try:
                data = os.read(self._read, AT_ONCE)
                self._begun += data
                has_ended = not data
            except BlockingIOError:
                has_ended = self._worker_has_ended
        if has_ended:
            self._print_begun()
            self._stop()
            return
        self._print_lines()
        spent = monotonic() - now
        _Turns.free_at = now + spent + REST * spent
        if b"\n" in self._begun or self._worker_has_ended:
            self._rest(REST * spent + LATER)
        else:
            self._loop.add_reader(self._read, self._turn)
            self._wait(LONGEST_WAIT if self._begun else None, self._print_begun)

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._read)
        self._wait(seconds, self._turn)

    def _print_lines(self) -> None:
        end = 0
        for _ in range(LINES):
            found = self._begun.find(b"\n", end)
            if found < 0:
                break
            end = found + 1
        lines, self._begun = self._begun[:end], self._begun[end:]
        self._print(lines)
        if not end and len(self._begun) > LONGEST_LINE:
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
