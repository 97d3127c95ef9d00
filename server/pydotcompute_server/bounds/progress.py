"""Looks now and then whether the clients of streams make progress."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from time import monotonic
from typing import Protocol

from pydotcompute_server.limits import Limits

__all__ = ["Progress"]

LOOKS = 8
"""How many times the streams are looked at in the time that a client may be without progress."""


class Watched(Protocol):
    """A stream whose client must make progress."""

    def check_progress(self, now: float) -> None:
        """End the stream if its client has made no progress for too long. `now` is of `time.monotonic()`."""


class Progress:
    """Looks at streams with one timer for all of them, as long as there are any.

    Args:
        streams: the running streams, which may change.
        limits: say how long a client may be without progress.
    """

    def __init__(self, streams: Collection[Watched], limits: Limits) -> None:
        self._streams = streams
        self._interval = min(limits.stalled_reader, limits.stalled_parts) / LOOKS
        self._timer: asyncio.TimerHandle | None = None

    def watch(self) -> None:
        """Begin to look. Call this for each new stream."""
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._interval, self._look)

    def _look(self) -> None:
        self._timer = None
        now = monotonic()
        for stream in tuple(self._streams):
            stream.check_progress(now)
        if self._streams:
            self.watch()
