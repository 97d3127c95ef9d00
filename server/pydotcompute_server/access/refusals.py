"""Slows down clients that call again at once when they are refused."""

from __future__ import annotations

import asyncio
from time import monotonic

__all__ = ["Refusals"]

EVERY = 0.005
"""The seconds from one refusal of a principal to its next one."""
LONGEST = 1.0
"""The most seconds for which a refusal is held back."""
MOST = 1_024
"""The most refusals that are held back at the same time, of all principals. Further ones are sent at once."""


class Refusals:
    """Holds refusals back, so that each principal gets them one by one.

    A client that does not wait before it calls again would otherwise take as much of the daemon's time with calls that
    are refused as with others. The first refusal is not held back.

    Args:
        most_bytes: the most bytes of the requests whose refusals are held back. gRPC keeps them meanwhile.
    """

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self._held = self._held_bytes = 0
        self._next: dict[str, float] = {}  # When the next refusal of each principal may be sent, by its name.

    async def hold(self, principal: str, size: int, patience: float | None) -> None:
        """Wait until a refusal may be sent.

        Args:
            principal: the name of the principal that is refused.
            size: the bytes of its request.
            patience: the most seconds to wait; None for `LONGEST`.
        """
        now = monotonic()
        at = self._next.get(principal, now)
        if len(self._next) >= MOST:
            self._next = {name: each for name, each in self._next.items() if each > now}
        if at <= now:
            self._next[principal] = now + EVERY
            return
        if self._held >= MOST or self._held_bytes + size > self._most_bytes:
            return
        self._next[principal] = min(at + EVERY, now + LONGEST)
        self._held += 1
        self._held_bytes += size
        try:
            await asyncio.sleep(at - now if patience is None else min(at - now, patience))
        finally:
            self._held -= 1
            self._held_bytes -= size
