"""Room for what actors send."""

from __future__ import annotations

from pydotcompute.ring_kernels.mail.signals import Signal

__all__ = ["ENDLESS", "FIRST_ROW", "SLOW_NS", "Room"]

SLOW_NS = 1_000_000
"""If the messages that an actor is handed in a row take it longer than so many nanoseconds, it is handed fewer."""
FIRST_ROW = 16
"""How many messages an actor is first handed in a row, before anything is known about them."""


class Room:
    """Says whether there is room for what actors send, until their callers have received it. Here there always is.

    An actor never needs room to answer what it has in hand. Without room, `ctx.send` returns later, and `ctx.receive`
    hands out the next message later. So what frees room never waits for room.
    """

    def __init__(self) -> None:
        self.look_ns: float = 0
        """When to call `is_lacking` next, by `perf_counter_ns`. To look at this costs less than to call it."""

    def is_lacking(self, kernel_id: str) -> bool:
        """Return True if there is no room, and messages of this kernel that were not received yet take much of it."""
        self.look_ns = float("inf")
        return False

    def freed(self) -> Signal:
        """Return a signal that is notified when there may be room again."""
        return Signal()


ENDLESS = Room()
"""Room without a bound."""
