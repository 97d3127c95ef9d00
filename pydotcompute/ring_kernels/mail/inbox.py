"""A kernel's input mailbox, which knows the bytes and the deadlines of its messages."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from time import monotonic, perf_counter
from typing import Any, Protocol, TypeAlias, TypeVar, cast

from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.sizes import MESSAGES_LOOKED_AT, estimated_size, estimated_sum

__all__ = ["Inbox", "Item", "Lent", "Terms"]

T = TypeVar("T")


@dataclass(slots=True, eq=False)
class Terms:
    """What is known of a message in the input mailbox. A message of which nothing is known has no terms."""

    timeout: float = 0.0
    """The seconds that the caller of the message waits. The error after a time-out names them."""
    deadline: float | None = None
    """The time, of `time.monotonic()`, after which the message is overdue: it is not handed to the actor."""
    size: int = 0
    """The bytes that the message takes; 0 if nobody counts them."""
    deliveries: int = 0
    """How often the actor has had the message already, and failed each time."""


Item: TypeAlias = tuple[T, int, "Terms | None"]
"""A message, its arrival in nanoseconds of `time.perf_counter_ns()`, and its terms."""


class Lent(Protocol):
    """The messages that were handed on ahead, to where the actor runs, and that the actor has not taken yet.

    They still count as messages of the mailbox, and come back to it if the actor does not take them.
    """

    def __len__(self) -> int:
        """Return how many there are."""

    def in_order(self) -> Iterator[Item[Any]]:
        """Iterate over their items, in the order in which they were handed on."""

    def take_overdue(self, key: int | None = None) -> list[tuple[int, Item[Any]]]:
        """Take out the messages whose deadline has passed, each with the number of lent messages before it.

        The actor is certain not to get them.

        Args:
            key: the `message_id.int` of the only message to take out; None means all of them.
        """

    def withdraw(self, which: Callable[[Item[Any]], bool]) -> None:
        """Call the messages back for which `which` returns True. `Mail.was_withdrawn` is called for each that comes."""


class Inbox(Mailbox[Item[T]]):
    """A mailbox of items.

    Whoever puts an item with terms must call `entered`; whoever takes such an item must call `left`. An item without
    terms needs no call: most items have no terms, and should cost nothing.
    """

    bytes = 0
    """The sum of `Terms.size` over the messages in the mailbox."""
    suspects = 0
    """The messages in the mailbox that are to be given again, after the actor has failed: see `Terms.deliveries`.

    Such a message is given alone, so that the one is found that makes the actor fail.
    """
    _timed = 0  # How many messages in the mailbox have a deadline.
    lent: Lent | None = None
    """The messages that were handed on ahead; None if the actor takes its messages here."""

    @property
    def depth(self) -> int:
        """The number of messages that the actor has not taken yet."""
        return self.items.size if self.lent is None else self.items.size + len(self.lent)

    def in_order(self) -> Iterator[Item[T]]:
        """Iterate over the messages that the actor has not taken yet, in the order in which it gets them, about."""
        if self.lent is not None:
            yield from self.lent.in_order()
        yield from self.items.in_order()

    def entered(self, terms: Terms) -> None:
        """Count the terms of an item that was put in."""
        self.bytes += terms.size
        self._timed += terms.deadline is not None
        if terms.deliveries:
            self.suspects += 1

    def left(self, terms: Terms) -> None:
        """Uncount the terms of an item that was taken out."""
        self.bytes -= terms.size
        self._timed -= terms.deadline is not None
        if terms.deliveries:
            self.suspects -= 1

    @property
    def held_bytes(self) -> int:
        """The bytes that the messages in the mailbox take: counted where there is a `Terms.size`, else estimated."""
        return self.bytes + estimated_sum(self.items, self.items.size, _uncounted_size) if self.items.size else 0

    def held_where(self, which: Callable[[Item[T]], bool]) -> int:
        """Return about how many bytes of `held_bytes` are of such messages. It looks at some messages of many."""
        count = self.items.size
        if not count:
            return 0
        step = -(-count // MESSAGES_LOOKED_AT)
        looked_at = [*islice(self.items, 0, None, step)]
        sizes = [_uncounted_size(item) or cast(Terms, item[2]).size for item in looked_at]
        theirs = sum(size for size, item in zip(sizes, looked_at, strict=True) if which(item))
        return self.held_bytes * theirs // (sum(sizes) or 1)

    def seconds_to_overdue(self) -> float | None:
        """Return the seconds until `take_overdue` makes room; None if there is room, or no message has a deadline."""
        if not self._timed or self.room:
            return None
        deadlines = (terms.deadline for _, _, terms in self.in_order() if terms is not None)
        first = min((deadline for deadline in deadlines if deadline is not None), default=None)
        return None if first is None else first - monotonic()

    def take_overdue(self) -> list[Item[T]]:
        """Take out the items whose deadline has passed, and return them."""
        if not self._timed:
            return []
        now = monotonic()

        def is_overdue(item: Item[T]) -> bool:
            terms = item[2]
            return terms is not None and terms.deadline is not None and terms.deadline <= now

        return [item for item in list(self.items) if is_overdue(item) and self.remove(item, _header(item).priority)]

    async def ripen(self, size: int, max_delay: float) -> None:
        """Wait until a batch is ready: `size` items, or fewer of which the next has waited for `max_delay` seconds.

        Raises:
            PyDotComputeError: the mailbox is closed; this is the error given to `close`.
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

    def take_out(self, key: int) -> int | None:
        """Take out the message with this `message_id.int`. Return how many come before it; None if it was not there."""
        for before, item in enumerate(self.items.in_order(), 0 if self.lent is None else len(self.lent)):
            if _header(item).message_id.int != key:
                continue
            # The message's priority may have changed since it was put in. Then it is not found.
            if not self.remove(item, _header(item).priority):
                return None
            if item[2] is not None:
                self.left(item[2])
            return before
        return None

    def drain(self) -> list[Item[T]]:
        """Take out every item, and return them in order. The mailbox may be paused or closed."""
        self.bytes = self._timed = self.suspects = 0
        return super().drain()


def _header(item: Item[Any]) -> Header:
    header: Header = item[0]
    return header


def _uncounted_size(item: Item[Any]) -> int:
    terms = item[2]
    return 0 if terms is not None and terms.size else estimated_size(item[0])
