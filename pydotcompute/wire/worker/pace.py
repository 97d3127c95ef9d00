"""How far messages are handed on ahead of one of several actors.

Nobody should wait behind a slow message while another actor is idle, so only as much is ahead as the actor does in a
moment. That moment is longer than the way to the worker and back takes, so that a quick actor always has something.
"""

from __future__ import annotations

__all__ = ["Pace"]

MOMENT = 0.002
"""Seconds of work that are ahead of an actor."""
WEIGHT = 0.3
"""The weight of what was seen last in the estimate of how long a message takes."""


class Pace:
    """Estimates how long a message takes, and says how many messages should be ahead.

    Args:
        most: the most messages that should be ahead.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._seconds: float | None = None
        self._since: float | None = None  # Since when the actor has something to do; None if it has nothing.

    def handed(self, now: float) -> None:
        """Note that messages are handed on."""
        if self._since is None:
            self._since = now

    def done(self, count: int, now: float, *, left: bool) -> int:
        """Note that the actor is done with so many messages, and return how many should be ahead.

        Args:
            count: the messages, at least one.
            now: the time.
            left: whether the actor has more to do.
        """
        since = now if self._since is None else self._since
        self._since = now if left else None
        seconds = max(0.0, now - since) / count
        self._seconds = seconds if self._seconds is None else self._seconds + WEIGHT * (seconds - self._seconds)
        return max(1, min(self._most, int(MOMENT / self._seconds))) if self._seconds > 0 else self._most
