"""The rules of a session, with no I/O in them: what each side sends, numbered and within the other's credit, kept until
acknowledged and sent again on a new stream; and what each side receives, in sequence, without what comes twice.

Sequences start at 1. A side's credit is the last sequence, and a number of bytes in all, that the other allows. What
breaks these rules is a `ProtocolError`, which ends the session: the other side is not of this project, or broken.

Pieces of a body may go ahead of its message, in frames of their own. Pieces have no sequence: the message gets the next
one, like any other, when they are all out. So others can go between them, and come before it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from pydotcompute.exceptions import PyDotComputeError

__all__ = ["Ahead", "Chunk", "Credit", "Incoming", "Outgoing", "ProtocolError", "body_of"]

LONG_AT_ONCE = 2
"""Bodies that are made ready to go ahead of their messages: one goes, and the next can follow at once."""

T = TypeVar("T", bound="tuple[Any, ...]")

body_of: Callable[[tuple[Any, ...]], Any] = itemgetter(0)
"""The body of an item. (Items are plain tuples: to make a record of each costs 5 percent of a message at each side.)"""


class ProtocolError(PyDotComputeError):
    """The other side of a session broke its rules."""


class Credit(NamedTuple):
    """What may be sent, counted from the beginning of the session."""

    messages: int = 0
    """Messages through this sequence."""
    bytes: int = 0
    """Messages as long as those before have fewer bytes than this."""


class Ahead(ABC):
    """A body of which pieces go ahead of its message, in frames of their own."""

    __slots__ = ()

    @property
    @abstractmethod
    def all_out(self) -> bool:
        """Whether the next frame is that of the message."""

    @abstractmethod
    def next_piece(self) -> bytes:
        """The frame of the next piece, if not all are out."""

    @abstractmethod
    def begin(self) -> None:
        """Begin with the first piece again, on a new stream."""


@dataclass(slots=True)
class Chunk(Generic[T]):
    """Items with consecutive sequences, for one frame."""

    first: int
    """The sequence of the first item."""
    items: list[T]
    before: tuple[T, ...] = ()
    """Items queued before these that have pieces ahead of them, and so come after these."""

    @property
    def last(self) -> int:
        """The sequence of the last item."""
        return self.first + len(self.items) - 1


@dataclass(slots=True)
class _Long(Generic[T]):
    """An item that has no sequence yet, and whose body goes ahead of it."""

    item: T
    body: Ahead
    after: int
    """The sequence of the last of those that were queued before it."""
    sender: object = None
    begun: bool = False
    yields: bool = False
    """Whether it is the turn of others."""

    def next_piece(self) -> bytes:
        """The frame of the next piece. Then it is the turn of others."""
        self.yields = True
        return self.body.next_piece()


class Outgoing(Generic[T]):
    """What one side sends. Items wait in `queue`; `next_chunk` numbers them and keeps them until acknowledged.

    An item is a tuple that begins with the body, whose length is what counts. Items are given to `put`. Because every
    message passes there, callers may append an item whose body is bytes to `queue` themselves, and add its length to
    `queued_bytes`.
    """

    def __init__(self) -> None:
        self.queue: list[T] = []
        """Items that were never sent."""
        self.queued_bytes = 0
        self.long: deque[_Long[T]] = deque()
        """Items whose bodies go ahead of them, and that were not sent yet. They do not count in `queued_bytes`."""
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
        self.again: deque[Chunk[T]] = deque()
        """What is to be sent again, on this stream, before anything new."""

    @property
    def all_sent(self) -> bool:
        """Whether nothing is left to be sent, or sent again."""
        return not self.queue and not self.again and not self.long

    @property
    def all_short_sent(self) -> bool:
        """Whether at most items whose bodies go ahead of them are left to be sent for the first time."""
        return not self.queue and not self.again

    @property
    def all_acknowledged(self) -> bool:
        """Whether nothing waits, and nothing is under way."""
        return not self.queue and not self.long and self.acknowledged == self.sent

    @property
    def has_pieces(self) -> bool:
        """Whether the next thing to be sent may be a piece of a body."""
        return bool(self.long) or (bool(self.again) and isinstance(body_of(self.again[0].items[0]), Ahead))

    @property
    def has_enough_long(self) -> bool:
        """Whether no more items whose bodies go ahead of them should be made ready now."""
        return len(self.long) >= LONG_AT_ONCE

    def put(self, item: T, sender: object = None) -> None:
        """Queue an item. If its body goes ahead of it, what its sender sends later should be put when the item is gone
        (see `is_held_up`); what others send may come before it.
        """
        body = body_of(item)
        if isinstance(body, Ahead):
            self.long.append(_Long(item, body, self.sent + len(self.queue), sender))
        else:
            self.queue.append(item)
            self.queued_bytes += len(body)

    def is_held_up(self, sender: object) -> bool:
        """Whether an item of this sender waits for pieces of its body to go ahead of it."""
        return any(long.sender is sender for long in self.long)

    def drop(self, item: T) -> bool:
        """Do not send this item. Returns False if it was sent already."""
        if item in self.queue:
            self.queue.remove(item)
            self.queued_bytes -= len(body_of(item))
            return True
        found = next((long for long in self.long if long.item is item), None)
        if found is not None:
            self.long.remove(found)
        return found is not None

    def next_chunk(self, most: int, most_bytes: int) -> Chunk[T] | bytes | None:
        """What to send next: at most so many items, and bytes but for the last item, or the frame of a piece of a body.
        None if there is nothing to send, or no credit.
        """
        if self.again:
            return self._next_again(most)
        if self.long:
            if (found := self._next_of_long()) is not None:
                return found
            most = self._most_of_alike(most)
        queue, allowed = self.queue, min(self.allowed, most)
        if not queue or allowed <= 0:
            return None
        bytes_left = min(self.allowed_bytes, most_bytes)
        if len(queue) <= allowed and self.queued_bytes < bytes_left:
            self.queue, size = [], self.queued_bytes
        else:
            count = size = 0
            for item in queue[:allowed]:
                length = len(body_of(item))
                if size >= bytes_left or (count and size + length > most_bytes):
                    break
                size += length
                count += 1
            self.queue, queue = queue[count:], queue[:count]
        self.queued_bytes -= size
        before = tuple(long.item for long in self.long if long.after <= self.sent) if self.long else ()
        return self._number(queue, size, before)

    def _number(self, items: list[T], size: int, before: tuple[T, ...] = ()) -> Chunk[T]:
        """Items of so many bytes get the next sequences, and are kept."""
        chunk = Chunk(self.sent + 1, items, before)
        self._kept.append(chunk)
        self.sent += len(items)
        self._sent_bytes += size
        self.allowed_bytes = max(0, self.allowed_bytes - size)
        self.allowed = self.allowed - len(items) if self.allowed_bytes else 0
        return chunk

    def _next_of_long(self) -> bytes | Chunk[T] | None:
        """A piece, or the item whose pieces are all out; None if it is the turn of others, or there is no credit."""
        long = self.long[0]
        if self.allowed <= 0 and (not long.begun or long.body.all_out):
            return None
        if not long.begun:
            if self.queue and self.sent < long.after:
                return None
            long.begun = True
        elif long.body.all_out:  # Now it goes first, or others could use up the credit for ever.
            self.long.popleft()
            for other in self.long:  # Those queued before them have sequences later by one now.
                other.after += 1
            return self._number([long.item], len(body_of(long.item)))
        elif long.yields and self.queue and self.allowed > 0:
            long.yields = False
            return None
        return long.next_piece()

    def _most_of_alike(self, most: int) -> int:
        """How many of the queue, at most `most`, were queued after the same of those in `long`."""
        return min([most, *(long.after - self.sent for long in self.long if long.after > self.sent)])

    def _next_again(self, most: int) -> Chunk[T] | bytes:
        body = body_of(self.again[0].items[0])
        if isinstance(body, Ahead) and not body.all_out:
            return body.next_piece()
        chunk = self.again.popleft()
        if len(chunk.items) > most:
            self.again.appendleft(Chunk(chunk.first + most, chunk.items[most:], before=chunk.before))
            chunk = Chunk(chunk.first, chunk.items[:most], before=chunk.before)
        return chunk

    def resume(self, received_through: int) -> None:
        """A new stream begins: the other side has everything through this sequence, and gets the rest again."""
        if not self.acknowledged <= received_through <= self.sent:
            raise ProtocolError(
                f"received through {received_through}, but {self.acknowledged} to {self.sent} were under way"
            )
        self.again.clear()
        for chunk in self._kept:
            if chunk.last > received_through:
                skipped = max(0, received_through + 1 - chunk.first)
                again = replace(chunk, first=chunk.first + skipped, items=chunk.items[skipped:])
                self.again.append(again)
                if isinstance(body := body_of(again.items[0]), Ahead):
                    body.begin()
        for long in self.long:
            long.begun = False
            long.body.begin()

    def grant(self, credit: Credit) -> None:
        """The other side allows this. A late, smaller figure changes nothing."""
        self.credit = Credit(max(self.credit.messages, credit.messages), max(self.credit.bytes, credit.bytes))
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

    def unsent(self) -> Iterator[T]:
        """What was never sent, in no particular order."""
        yield from self.queue
        for long in self.long:
            yield long.item

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
        self._again_may_come = False

    def begin(self, received_through: int) -> None:
        """A new stream begins, and the other side is told that everything through this sequence has come."""
        self._again_may_come = received_through < self.received

    @property
    def may_begin(self) -> bool:
        """Whether another message may begin to come: there is credit for it, or it may be one that comes again."""
        has_credit = self.received < self.credit.messages and self.received_bytes < self.credit.bytes
        return has_credit or self._again_may_come

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
