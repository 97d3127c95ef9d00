"""The rules of a session, with no I/O in them: what each side sends, numbered and within the other's credit, kept until
acknowledged and sent again on a new stream; and what each side receives, in sequence, without what comes twice.

Sequences start at 1. A side's credit is the last sequence, and a number of bytes in all, that the other allows. What
breaks these rules is a `ProtocolError`, which ends the session: the other side is not of this project, or broken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from pydotcompute.exceptions import PyDotComputeError

__all__ = ["Chunk", "Credit", "Incoming", "Outgoing", "ProtocolError"]

T = TypeVar("T", bound="tuple[bytes, *tuple[Any, ...]]")


class ProtocolError(PyDotComputeError):
    """The other side of a session broke its rules."""


class Credit(NamedTuple):
    """What may be sent, counted from the beginning of the session."""

    messages: int = 0
    """Messages through this sequence."""
    bytes: int = 0
    """Messages as long as those before have fewer bytes than this."""


@dataclass(slots=True)
class Chunk(Generic[T]):
    """Items with consecutive sequences, for one frame."""

    first: int
    """The sequence of the first item."""
    items: list[T]

    @property
    def last(self) -> int:
        """The sequence of the last item."""
        return self.first + len(self.items) - 1


class Outgoing(Generic[T]):
    """What one side sends. Items wait in `queue`; `next_chunk` numbers them and keeps them until acknowledged.

    An item is a tuple that begins with the body, whose length is what counts. Whoever queues an item adds that length
    to `queued_bytes`; both are left to callers, because every message passes there.
    """

    def __init__(self) -> None:
        self.queue: list[T] = []
        """Items that were never sent."""
        self.queued_bytes = 0
        self.sent = 0
        """The last sequence that was ever sent."""
        self.acknowledged = 0
        """The last sequence that the other side has acknowledged."""
        self.credit = Credit()
        self.allowed = 0
        """How many more items the credit allows, those in the queue among them; 0 if it allows no more bytes."""
        self.allowed_bytes = 0
        """How many more bytes it allows, but for the last item."""
        self._sent_bytes = 0
        self._kept: deque[Chunk[T]] = deque()
        self._again: deque[Chunk[T]] = deque()  # What is to be sent again, on this stream, before anything new.

    @property
    def all_sent(self) -> bool:
        """Whether nothing is left to be sent, or sent again."""
        return not self.queue and not self._again

    @property
    def all_acknowledged(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        return not self.queue and self.acknowledged == self.sent

    def next_chunk(self, most: int, most_bytes: int) -> Chunk[T] | None:
        """What to send next, at most so many items, and bytes but for the last item; None if there is nothing to send,
        or no credit.
        """
        if self._again:
            return self._next_again(most)
        queue, allowed = self.queue, min(self.allowed, most)
        if not queue or allowed <= 0:
            return None
        bytes_left = min(self.allowed_bytes, most_bytes)
        if len(queue) <= allowed and self.queued_bytes < bytes_left:
            self.queue, size = [], self.queued_bytes
        else:
            count = size = 0
            for item in queue[:allowed]:
                length = len(item[0])
                if size >= bytes_left or (count and size + length > most_bytes):
                    break
                size += length
                count += 1
            self.queue, queue = queue[count:], queue[:count]
        self.queued_bytes -= size
        self._sent_bytes += size
        chunk = Chunk(self.sent + 1, queue)
        self.sent = chunk.last
        self._reckon()
        self._kept.append(chunk)
        return chunk

    def _next_again(self, most: int) -> Chunk[T]:
        chunk = self._again.popleft()
        if len(chunk.items) > most:
            self._again.appendleft(Chunk(chunk.first + most, chunk.items[most:]))
            chunk = Chunk(chunk.first, chunk.items[:most])
        return chunk

    def resume(self, received_through: int) -> None:
        """A new stream begins: the other side has everything through this sequence, and gets the rest again."""
        if not self.acknowledged <= received_through <= self.sent:
            raise ProtocolError(
                f"received through {received_through}, but {self.acknowledged} to {self.sent} were under way"
            )
        self._again.clear()
        for chunk in self._kept:
            if chunk.last > received_through:
                skipped = max(0, received_through + 1 - chunk.first)
                self._again.append(Chunk(chunk.first + skipped, chunk.items[skipped:]))

    def grant(self, credit: Credit) -> None:
        """The other side allows this. A late, smaller figure changes nothing."""
        self.credit = Credit(max(self.credit.messages, credit.messages), max(self.credit.bytes, credit.bytes))
        self._reckon()

    def _reckon(self) -> None:
        self.allowed_bytes = max(0, self.credit.bytes - self._sent_bytes)
        self.allowed = self.credit.messages - self.sent if self.allowed_bytes else 0

    def acknowledge(self, through: int) -> list[T]:
        """The other side is done with everything through `through`; returns what that newly acknowledges."""
        if through > self.sent:
            raise ProtocolError(f"acknowledged sequence {through}, but only {self.sent} were sent")
        newly: list[T] = []
        kept = self._kept
        while kept and self.acknowledged < through:
            chunk = kept[0]
            newly += chunk.items[self.acknowledged + 1 - chunk.first : through + 1 - chunk.first]
            self.acknowledged = min(through, chunk.last)
            if chunk.last <= through:
                kept.popleft()
        return newly

    def unacknowledged(self) -> Iterator[T]:
        """What was sent and not acknowledged, in order."""
        for chunk in self._kept:
            yield from chunk.items[max(0, self.acknowledged + 1 - chunk.first) :]

    def find(self, sequence: int) -> T:
        """The item of a sequence that is not acknowledged yet."""
        chunk = self._chunk_of(sequence)
        return chunk.items[sequence - chunk.first]

    def replace(self, sequence: int, item: T) -> None:
        """Keep another item in the place of one that is not acknowledged yet."""
        chunk = self._chunk_of(sequence)
        chunk.items[sequence - chunk.first] = item

    def _chunk_of(self, sequence: int) -> Chunk[T]:
        if self.acknowledged < sequence <= self.sent:
            for chunk in self._kept:
                if sequence <= chunk.last:
                    return chunk
        raise ProtocolError(
            f"sequence {sequence} is not one of {self.acknowledged + 1} to {self.sent}, which are under way"
        )


class Incoming:
    """What one side receives: in sequence, within the credit it gave, and nothing twice."""

    def __init__(self) -> None:
        self.received = 0
        """The last sequence received."""
        self.done = 0
        """The last sequence that this side is done with, and acknowledges."""
        self.credit = Credit()
        """What this side allows."""
        self.received_bytes = 0
        """The bytes of all that was received."""

    def receive(self, first_sequence: int, sizes: Sequence[int]) -> int:
        """Items `first_sequence` and following have come, of so many bytes; returns how many of them, at the beginning,
        had come before.
        """
        again = self.received + 1 - first_sequence
        if again < 0 or first_sequence < 1:
            raise ProtocolError(f"the batch begins at sequence {first_sequence}, expected {self.received + 1}")
        if not sizes:
            raise ProtocolError("the batch is empty")
        count = len(sizes) - again
        if count <= 0:
            return len(sizes)
        if self.received + count > self.credit.messages:
            problem = f"the batch ends at sequence {self.received + count}, beyond {self.credit.messages}"
            raise ProtocolError(f"{problem}, the credit")
        size = sum(sizes[again:])
        if self.received_bytes + size - sizes[-1] >= self.credit.bytes:
            raise ProtocolError(
                f"the batch ends with byte {self.received_bytes + size}, the credit {self.credit.bytes}"
            )
        self.received += count
        self.received_bytes += size
        return again

    def finish(self, count: int = 1) -> None:
        """This side is done with the next `count` items."""
        self.done += count
        assert self.done <= self.received, "done with items that never came"

    def grant(self, messages: int, size: int) -> bool:
        """Allow this many messages, and this many bytes, beyond what was received; whether that is more than before."""
        before = self.credit
        self.credit = Credit(
            max(before.messages, self.received + messages), max(before.bytes, self.received_bytes + size)
        )
        return self.credit != before
