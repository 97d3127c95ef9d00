"""What an actor logs in a worker goes to the kernel, in whose log it then is."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from time import monotonic

from pydotcompute.wire.worker.frames import Frame, Note

__all__ = ["MOST_A_SECOND", "LinkHandler"]

MOST_A_SECOND = 500
"""The most records that a worker sends in a second: the kernel's process has others to serve."""


class LinkHandler(logging.Handler):
    """Sends what is logged to the kernel, and of a flood only how many records there were more.

    Args:
        send: sends a frame; called in this event loop.
        level: the level from which on records are sent.
    """

    def __init__(self, send: Callable[[Frame], None], level: int) -> None:
        super().__init__(level)
        self._send = send
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._sent = self._left_out = 0

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler`. Handlers hold a lock meanwhile."""
        now = monotonic()
        if now - self._since >= 1.0:
            self._since, self._sent = now, 0
        self._sent += 1
        if self._sent > MOST_A_SECOND:
            if not self._left_out:
                self._loop.call_soon_threadsafe(self._loop.call_later, 1.0, self._tell_left_out)
            self._left_out += 1
            return
        trace = "" if record.exc_info is None else "".join(traceback.format_exception(*record.exc_info))
        values = {"logger": record.name, "level": record.levelno, "text": record.getMessage(), "traceback": trace}
        self._loop.call_soon_threadsafe(self._send, Note("log", values))

    def _tell_left_out(self) -> None:
        self.acquire()
        count, self._left_out = self._left_out, 0
        self.release()
        text = f"{count} records are left out: the actor logs more than {MOST_A_SECOND} in a second"
        values = {"logger": __name__, "level": logging.WARNING, "text": text, "traceback": ""}
        self._send(Note("log", values))
