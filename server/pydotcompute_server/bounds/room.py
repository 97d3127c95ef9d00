"""Room in the daemon's memory for what kernels send."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter_ns, thread_time_ns

from pydotcompute.ring_kernels.actor.room import Room
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute_server.bounds.memory import Memory

__all__ = ["MemoryRoom"]

SHARED_PART = 0.25
"""The part of the budget that the kernels may always use for what they send, in equal shares.

So if requests fill the budget, the kernels still get on with them, which frees memory. And if one kernel's clients
receive nothing, the other kernels go on.
"""
FASTEST = 40
"""Bytes that kernels send in a nanosecond at most. The less is missing until actors must wait, the sooner is the next
look."""
SOON_NS = 500_000
"""Nanoseconds between two looks, at least."""
PAUSE = 10
"""A look is followed by a pause of at least so many times its length."""


class MemoryRoom(Room):
    """Lets kernels wait whose messages to clients take much, while little memory is left.

    Args:
        memory: the budget.
        waiting: returns the bytes that the messages of each kernel take which its clients have not received yet.
        count: returns the number of kernels.
    """

    def __init__(self, memory: Memory, waiting: Callable[[], Mapping[str, int]], count: Callable[[], int]) -> None:
        super().__init__()
        self._memory = memory
        self._waiting = waiting
        self._count = count
        self._seen: Mapping[str, int] = {}  # What was waiting at the last look, if little was left.

    def is_lacking(self, kernel_id: str) -> bool:
        """Return True if little memory is left, and the kernel has more than its share of what all may always use."""
        if perf_counter_ns() >= self.look_ns:
            began = thread_time_ns()  # Time in which other programs run does not count.
            missing = self._memory.missing()
            self._seen = {} if missing else self._waiting()
            took = thread_time_ns() - began
            self.look_ns = perf_counter_ns() + max(SOON_NS, PAUSE * took, missing // FASTEST)
        return self._seen.get(kernel_id, 0) * max(1, self._count()) > SHARED_PART * self._memory.budget

    def freed(self) -> Signal:
        """Return a signal that is notified when memory may have been freed."""
        return self._memory.freed()
