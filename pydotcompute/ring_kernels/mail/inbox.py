"""A kernel's input mailbox, which knows the bytes and the deadlines of what is in it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from time import monotonic, perf_counter
from typing import Any, TypeAlias, TypeVar

from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.mail.mailbox import Mailbox

__all__ = ["Inbox", "Item", "Terms"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Terms:
    """What goes with a message in the input mailbox, where there is anything."""

    timeout: float = 0.0
    """The seconds that its caller waits, for the error."""
    deadline: float | None = None
    """The time, of `time.monotonic()`, after which it is not handed to the actor."""
    size: int = 0
    """The bytes that it takes, as far as they matter."""


Item: TypeAlias = tuple[T, int, "Terms | None"]
"""A message, its arrival in nanoseconds of `time.perf_counter_ns()`, and its terms."""


class Inbox(Mailbox[Item[T]]):
    """A mailbox of items. Whoever puts an item with terms says so with `entered`, who takes one with `left`: most have
    none, and shall cost nothing.
    """

    bytes = 0
    """Of the messages in it, as far as they are told by `Terms.size`."""
    _timed = 0  # How many of them have a deadline.

    def entered(self, terms: Terms) -> None:
        """An item with these terms was put in."""
        self.bytes += terms.size
        self._timed += terms.deadline is not None

    def left(self, terms: Terms) -> None:
        """An item with these terms was taken out."""
        self.bytes -= terms.size
        self._timed -= terms.deadline is not None

    def seconds_to_overdue(self) -> float | None:
        """When to `take_overdue`, so that those who wait for room have it; None if that would make none."""
        if not self._timed or self.room:
            return None
        deadlines = (terms.deadline for _, _, terms in self.items if terms is not None)
        return min(deadline for deadline in deadlines if deadline is not None) - monotonic()

    def take_overdue(self) -> list[Item[T]]:
        """Take out the items whose deadline has passed."""
        if not self._timed:
            return []
        now = monotonic()

        def is_overdue(item: Item[T]) -> bool:
            terms = item[2]
            return terms is not None and terms.deadline is not None and terms.deadline <= now

        return [item for item in list(self.items) if is_overdue(item) and self.remove(item, _header(item).priority)]

    async def ripen(self, size: int, max_delay: float) -> None:
        """Wait until there are so many items to hand out, or some, of which the next has waited for `max_delay`
        seconds. Raises why the mailbox is closed, if it is.
        """
        due = math.inf
        while self._closed is None:
            remaining = None
            if self.items.size and not self._paused:
                due = min(due, self.items.top[0][1] / 1e9 + max_delay)
                remaining = due - perf_counter()
                if self.items.size >= size or remaining <= 0:
                    return
            await self._getters.wait(remaining)
        raise self._closed.again()

    def take_out(self, key: int) -> bool:
        """Take out the message with this `message_id.int`, wherever it is; whether it was there."""
        item = next((item for item in self.items if _header(item).message_id.int == key), None)
        # It may have another priority by now than that it was put in with; then it is not found.
        if item is None or not self.remove(item, _header(item).priority):
            return False
        if item[2] is not None:
            self.left(item[2])
        return True

    def drain(self) -> list[Item[T]]:
        self.bytes = self._timed = 0
        return super().drain()


def _header(item: Item[Any]) -> Header:
    header: Header = item[0]
    return header
