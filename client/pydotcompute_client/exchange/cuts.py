"""Counts the streams that are cut before a message gets through, so that the client does not try for ever."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from pydotcompute_client.pauses import pause

__all__ = ["Cuts", "Obstacle"]


@dataclass(frozen=True)
class Obstacle:
    """What the end of a stream has cut short. Equal obstacles in a row are streams that brought nobody any further."""

    place: Hashable
    what: str = ""
    """What did not get through, in words. Empty: nothing was under way."""


class Cuts:
    """The streams in a row that ended at the same obstacle. It does no I/O: the caller says what time it is.

    Args:
        patience: the seconds after which it is hopeless.
    """

    def __init__(self, patience: float) -> None:
        self.count = 0
        """The number of those streams."""
        self.obstacle: Obstacle | None = None
        """The obstacle of the last stream; None if it had none."""
        self._patience = patience
        self._since = 0.0

    def cut(self, obstacle: Obstacle | None, now: float) -> None:
        """Note that a stream has ended."""
        if obstacle is None or obstacle != self.obstacle:
            self.count, self._since = 0, now
        self.obstacle = obstacle
        self.count += obstacle is not None

    def delay(self) -> float:
        """Return the seconds to wait before the next try: none after the first cut, and then longer each time."""
        return 0.0 if self.count < 2 else pause(self.count - 2)

    def seconds(self, now: float) -> float:
        """Return how long it has been since the first of the streams ended."""
        return now - self._since

    def is_hopeless(self, now: float) -> bool:
        """Return True if something was under way in vain for longer than the patience."""
        blocked = self.obstacle is not None and bool(self.obstacle.what)
        return blocked and self.count > 1 and self.seconds(now) >= self._patience
