"""Notices that an event loop is held up, and says by whom."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from pydotcompute_server.observe.holder import Holder

__all__ = ["Watchdog", "say"]

logger = logging.getLogger(__name__)

ADVICE = "make it a plain def, or give the work to a thread, as by asyncio.to_thread"


class Watchdog:
    """Watches an event loop from another thread, which calls `look` several times in `limit` seconds.

    Every look sends a callback through the loop, if the last one has come through. While it has not, the loop is held
    up. A stall is logged once, when it has lasted `limit` seconds, and once more when it is over.

    Args:
        loop: the event loop.
        find: returns what the loop is running.
        limit: the seconds after which a stall is logged.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, find: Callable[[], Holder], limit: float) -> None:
        self._loop = loop
        self._find = find
        self._limit = limit
        self._looked_at = monotonic()
        self._sent_at = 0.0
        self._turned_at: float | None = 0.0  # When the callback came through; None while it has not.
        self._suspect: Holder | None = None  # What the loop was running at the last look of this stall.
        self._suspects = 0
        self._told: str | None = None  # Who was named for this stall.
        self.stalls = 0
        """How many times the loop was held up for at least `limit` seconds."""
        self.stalled_seconds = 0.0
        """How long these stalls were together, without one that lasts still."""

    @property
    def holder(self) -> Holder | None:
        """What holds the loop up now; None if nothing does, or not for long yet."""
        return self._suspect if self._turned_at is None else None

    def look(self) -> None:
        """Look at the loop, and log what is to be told."""
        now = monotonic()
        since, self._looked_at = now - self._looked_at, now
        if since > 2 * self._limit:
            # This thread did not run either. So nobody knows what the loop did, and the time is not held against it.
            say(
                logger.warning,
                "the process did not run for %.1f s: it was stopped, or C code held Python's lock",
                since,
            )
            self._sent_at += since
        if self._turned_at is None:
            if now - self._sent_at >= self._limit / 2 and self._told is None:
                self._look_closer(now - self._sent_at)
            return
        if self._told is not None:
            seconds = self._turned_at - self._sent_at
            self.stalled_seconds += seconds
            say(logger.warning, "the event loop turns again; %s held it for %.1f s in all", self._told, seconds)
        self._suspect, self._suspects, self._told = None, 0, None
        self._sent_at, self._turned_at = now, None
        with contextlib.suppress(RuntimeError):  # The loop is closed.
            self._loop.call_soon_threadsafe(self._turn)

    def _turn(self) -> None:
        self._turned_at = monotonic()

    def _look_closer(self, seconds: float) -> None:
        holder = self._find()
        if self._suspect is None or self._suspect.task != holder.task:
            self._suspects += 1
        self._suspect = holder
        if seconds < self._limit:
            return
        self.stalls += 1
        extra: dict[str, Any] = {"seconds": round(seconds, 1), "place": holder.place}
        if self._suspects > 1:
            self._told = "more than one task"
            text = f"{self._told} held the event loop for {seconds:.1f} s, now {holder} at {holder.place}"
        else:
            self._told = str(holder)
            text = f"{holder} has held the event loop for {seconds:.1f} s at {holder.place}"
            text += f"; {ADVICE}" if holder.is_users else ""
            if holder.kernel_id is not None:
                extra["kernel_id"] = holder.kernel_id
        say(logger.warning, "%s", text, extra=extra)


def say(log: Callable[..., None], *args: Any, **options: Any) -> threading.Thread:
    """Log in a thread of its own, which is returned.

    Nothing is to wait for a log that is blocked: not the watch over the loop, and not the end of the process.
    """
    thread = threading.Thread(target=log, args=args, kwargs=options, daemon=True)
    thread.start()
    return thread
