"""The rules of a session, without I/O.

A side numbers the items that it sends, and sends them within the credit that the other side gives. It keeps each item
until the other side acknowledges it, and sends the item again on a new stream if need be. A side receives items in
sequence, and ignores those that come a second time. The number of an item is its *sequence*; the first is 1.

A side's *credit* is the last sequence, and a total number of bytes, that the other side allows. Whoever breaks these
rules causes a `ProtocolError`, which ends the session: the other side is not of this project, or is broken.

A body may go in pieces ahead of its message, in frames of their own. Such an item is called *long* here. Pieces have no
sequence. When all pieces are out, the message gets the next sequence, like any other. So other messages can go between
the pieces, and come before the message.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import attrgetter, itemgetter
from typing import Any, Generic, NamedTuple, TypeVar

from pydotcompute.exceptions import PyDotComputeError

__all__ = ["Ahead", "Chunk", "Credit", "Incoming", "Outgoing", "ProtocolError", "body_of"]

LONG_AT_ONCE = 2
"""Long items that are made ready at the same time: one goes, and the next can follow at once."""

T = TypeVar("T", bound="tuple[Any, ...]")

body_of: Callable[[tuple[Any, ...]], Any] = itemgetter(0)
"""The body of an item. (Items are plain tuples: to make a record of each costs 5 percent of a message at each side.)"""


class ProtocolError(PyDotComputeError):
    """The other side of a session broke its rules."""


class Credit(NamedTuple):
    """The messages and bytes that may be sent, counted from the beginning of the session."""

    messages: int = 0
    """The last sequence that may be sent."""
    bytes: int = 0
    """A message may be sent if all messages before it together have fewer bytes than this."""


class Ahead(ABC):
    """A body that goes in pieces ahead of its message, in frames of their own."""

    __slots__ = ()

    @property
    @abstractmethod
    def all_out(self) -> bool:
        """True if all pieces are out, so that the next frame is that of the message."""

    @abstractmethod
    def next_piece(self) -> bytes:
        """Return the frame of the next piece. Call this only if not all pieces are out."""

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
    """Long items that were queued before `items`, but come after them because their pieces are not all out."""
    size: int = 0
    """The bytes of those items that are not acknowledged. It is set only in the chunks that `Outgoing` keeps."""

    @property
    def last(self) -> int:
        """The sequence of the last item."""
        return self.first + len(self.items) - 1


@dataclass(slots=True)
class _Long(Generic[T]):
    """An item whose body goes in pieces ahead of it. The item has no sequence yet."""

    item: T
    body: Ahead
    after: int
    """The sequence of the last item that was queued before this one."""
    sender: object = None
    """The sender of the item, whose later items should wait for this one."""
    begun: bool = False
    """True once the first piece may go."""
    yields: bool = False
    """True if it is the turn of other items before the next piece."""

    def next_piece(self) -> bytes:
        """Return the frame of the next piece. After it, it is the turn of other items."""
        self.yields = True
        return self.body.next_piece()


class Outgoing(Generic[T]):
    """The items that one side sends.

    An item is a tuple that begins with the body; the bytes of an item are the length of its body. `put` queues an item.
    `next_chunk` gives items their sequences, and keeps them until they are acknowledged. Because every message passes
    `put`, a caller may append an item whose body is bytes to `queue` itself, and add the length of the body to
    `queued_bytes`.
    """

    def __init__(self) -> None:
        self.queue: list[T] = []
        """Items that were never sent, without the long ones."""
        self.queued_bytes = 0
        """The bytes of the items in `queue`."""
        self.long: deque[_Long[T]] = deque()
        """Long items that were not sent yet."""
        self.sent = 0
        """The last sequence that was sent on any stream."""
        self.acknowledged = 0
        """The last sequence that the other side has acknowledged."""
        self.credit = Credit()
        """The credit that the other side has given."""
        self.allowed = 0
        """The number of items that the credit still allows, those in `queue` included; 0 if it allows no more bytes."""
        self.allowed_bytes = 0
        """The number of bytes that the credit still allows. The last item may go beyond it."""
        self.sent_bytes = 0
        """The bytes of all items sent, each counted once."""
        self.kept_bytes = 0
        """The bytes of the items that were sent and not acknowledged."""
        self._kept: deque[Chunk[T]] = deque()
        self.again: deque[Chunk[T]] = deque()
        """Items that must be sent again on this stream, before any new item."""
        self.holds_long = False
        """True while no piece of a long item may go, and other items go instead."""

    @property
    def held_bytes(self) -> int:
        """The bytes of all items that are not acknowledged, sent or not."""
        return self.kept_bytes + self.queued_bytes + sum(len(body_of(long.item)) for long in self.long)

    @property
    def all_sent(self) -> bool:
        """True if no item is left to be sent, or sent again."""
        return not self.queue and not self.again and not self.long

    @property
    def all_short_sent(self) -> bool:
        """True if no item is left to be sent, or sent again, except long items that were never sent."""
        return not self.queue and not self.again

    @property
    def all_acknowledged(self) -> bool:
        """True if every item was sent and acknowledged."""
        return not self.queue and not self.long and self.acknowledged == self.sent

    @property
    def has_pieces(self) -> bool:
        """True if the next frame may be that of a piece of a body."""
        return bool(self.long) or (bool(self.again) and isinstance(body_of(self.again[0].items[0]), Ahead))

    @property
    def has_enough_long(self) -> bool:
        """True if no more long items should be made ready now."""
        return len(self.long) >= LONG_AT_ONCE

    @property
    def long_under_way(self) -> T | None:
        """The long item of which pieces have gone on this stream, and which has no sequence yet; None if none has."""
        return self.long[0].item if self.long and self.long[0].begun else None

    def put(self, item: T, sender: object = None) -> None:
        """Queue an item.

        If the item is long, later items of the same sender should be put only when the item is sent; see `is_held_up`.
        Items of other senders may come before it.

        Args:
            item: the item.
            sender: identifies the sender of the item; only `is_held_up` uses it.
        """
        body = body_of(item)
        if isinstance(body, Ahead):
            self.long.append(_Long(item, body, self.sent + len(self.queue), sender))
        else:
            self.queue.append(item)
            self.queued_bytes += len(body)

    def is_held_up(self, sender: object) -> bool:
        """Return True if a long item of this sender was not sent yet."""
        return any(long.sender is sender for long in self.long)

    def drop(self, item: T) -> bool:
        """Remove an item that was not sent yet. Return False if the item was already sent."""
        if item in self.queue:
            self.queue.remove(item)
            self.queued_bytes -= len(body_of(item))
            return True
        found = next((long for long in self.long if long.item is item), None)
        if found is not None:
            self.long.remove(found)
        return found is not None

    def next_chunk(self, most: int, most_bytes: int) -> Chunk[T] | bytes | None:
        """Return the next items to send, or the frame of a piece of a body; None if there is nothing, or no credit.

        Args:
            most: the most items in the chunk.
            most_bytes: the most bytes of bodies in the chunk. A single longer item makes a chunk of its own.
        """
        if self.again:
            return self._next_again(most, most_bytes)
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
        """Give items of `size` bytes in all the next sequences, and keep them until acknowledged."""
        chunk = Chunk(self.sent + 1, items, before, size)
        self._kept.append(chunk)
        self.sent += len(items)
        self.sent_bytes += size
        self.kept_bytes += size
        self.allowed_bytes = max(0, self.allowed_bytes - size)
        self.allowed = self.allowed - len(items) if self.allowed_bytes else 0
        return chunk

    def _next_of_long(self) -> bytes | Chunk[T] | None:
        """Return the next piece, or the long item if all its pieces are out. None if others go first, or no credit."""
        if self.holds_long:
            return None
        long = self.long[0]
        if self.allowed <= 0 and (not long.begun or long.body.all_out):
            return None
        if not long.begun:
            if self.queue and self.sent < long.after:
                return None
            long.begun = True
        elif long.body.all_out:  # Now the item goes first, or other items could use up the credit for ever.
            self.long.popleft()
            for other in self.long:  # The item takes a sequence, so those queued before them end one later.
                other.after += 1
            return self._number([long.item], len(body_of(long.item)))
        elif long.yields and self.queue and self.allowed > 0:
            long.yields = False
            return None
        return long.next_piece()

    def _most_of_alike(self, most: int) -> int:
        """Return the most items, up to `most`, that can go in one chunk: no long item was queued between them."""
        return min([most, *(long.after - self.sent for long in self.long if long.after > self.sent)])

    def _next_again(self, most: int, most_bytes: int) -> Chunk[T] | bytes:
        """Return the next items to send again, as `next_chunk` does, or a piece of the body of the first of them."""
        body = body_of(self.again[0].items[0])
        if isinstance(body, Ahead) and not body.all_out:
            return body.next_piece()
        chunk = self.again.popleft()
        sizes = accumulate(map(len, map(body_of, chunk.items)))
        most = max(1, min(most, sum(1 for size in sizes if size <= most_bytes)))
        if len(chunk.items) > most:
            self.again.appendleft(Chunk(chunk.first + most, chunk.items[most:], before=chunk.before))
            chunk = Chunk(chunk.first, chunk.items[:most], before=chunk.before)
        return chunk

    def next_free(self, kind: type, most: int, through: int) -> Chunk[T] | None:
        """Return the next queued items of a kind that needs no credit, ahead of those that wait for it; None if none.

        Args:
            kind: the class of those items. Their bodies are empty.
            most: the most items in the chunk.
            through: the last sequence that they may have.
        """
        most = min(most, through - self.sent)
        places = [place for place, item in enumerate(self.queue, 1) if item.__class__ is kind][: max(0, most)]
        if not places:
            return None
        for long in self.long:  # Those of the items that were queued after it now have lower sequences than it has.
            long.after += sum(self.sent + place > long.after for place in places)
        items = [self.queue[place - 1] for place in places]
        for place in reversed(places):
            del self.queue[place - 1]
        return self._number(items, 0)

    def resume(self, received_through: int) -> None:
        """Begin a new stream: send again everything after the sequence `received_through`.

        Raises:
            ProtocolError: the other side cannot have received exactly the items through this sequence.
        """
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
        """Take the credit that the other side gives. A smaller figure, which comes late, changes nothing."""
        self.credit = Credit(max(self.credit.messages, credit.messages), max(self.credit.bytes, credit.bytes))
        self.allowed_bytes = max(0, self.credit.bytes - self.sent_bytes)
        self.allowed = self.credit.messages - self.sent if self.allowed_bytes else 0

    def acknowledge(self, through: int) -> list[T]:
        """Forget the items through the sequence `through`: the other side is done with them.

        Returns:
            The items that were not acknowledged before, in order.

        Raises:
            ProtocolError: this sequence was never sent.
        """
        if through > self.sent:
            raise ProtocolError(f"acknowledged sequence {through}, but only {self.sent} were sent")
        newly: list[T] = []
        kept = self._kept
        while kept and self.acknowledged < through:
            chunk = kept[0]
            items = chunk.items[self.acknowledged + 1 - chunk.first : through + 1 - chunk.first]
            newly += items
            self.acknowledged = min(through, chunk.last)
            if chunk.last <= through:
                kept.popleft()
                size = chunk.size
            else:
                size = sum(len(body_of(item)) for item in items)
                chunk.size -= size
            self.kept_bytes -= size
        return newly

    def unacknowledged(self) -> Iterator[T]:
        """Iterate over the items that were sent and not acknowledged, in order."""
        for chunk in self._kept:
            yield from chunk.items[max(0, self.acknowledged + 1 - chunk.first) :]

    def unsent(self) -> Iterator[T]:
        """Iterate over the items that were never sent, in no particular order."""
        yield from self.queue
        for long in self.long:
            yield long.item

    def find(self, sequence: int) -> T:
        """Return the item of a sequence. Raises ProtocolError if the sequence is not under way."""
        chunk = self._chunk_of(sequence)
        return chunk.items[sequence - chunk.first]

    def replace(self, sequence: int, item: T) -> None:
        """Replace the kept item of a sequence. Raises ProtocolError if the sequence is not under way."""
        chunk = self._chunk_of(sequence)
        chunk.items[sequence - chunk.first] = item

    def _chunk_of(self, sequence: int) -> Chunk[T]:
        if self.acknowledged < sequence <= self.sent:
            return self._kept[bisect_left(self._kept, sequence, key=_last_of)]
        raise ProtocolError(
            f"sequence {sequence} is not one of {self.acknowledged + 1} to {self.sent}, which are under way"
        )


_last_of: Callable[[Chunk[Any]], int] = attrgetter("last")


class Incoming:
    """The items that one side receives: in sequence, within the credit that it gave, and none twice."""

    def __init__(self) -> None:
        self.received = 0
        """The last sequence received."""
        self.done = 0
        """The last sequence that this side is done with, so that it can be acknowledged."""
        self.credit = Credit()
        """The credit that this side has given."""
        self.received_bytes = 0
        """The bytes of all items received."""
        self._again_may_come = False  # True if items that this side already has may come again on this stream.

    def begin(self, received_through: int) -> None:
        """Begin a new stream, on which the other side is told that everything through `received_through` has come."""
        self._again_may_come = received_through < self.received

    @property
    def may_begin(self) -> bool:
        """True if another message may begin to come: there is credit for it, or it may be one that comes again."""
        has_credit = self.received < self.credit.messages and self.received_bytes < self.credit.bytes
        return has_credit or self._again_may_come

    def receive(self, first_sequence: int, sizes: Sequence[int], *, free: bool = False) -> int:
        """Take note of items that have come.

        Args:
            first_sequence: the sequence of the first item.
            sizes: the bytes of each item.
            free: True if these items need no credit.

        Returns:
            The number of items, at the beginning, that had already come before. The caller must ignore these.

        Raises:
            ProtocolError: the items are out of sequence, beyond the credit, or none.
        """
        again = self.received + 1 - first_sequence
        if again < 0 or first_sequence < 1:
            raise ProtocolError(f"the batch begins at sequence {first_sequence}, expected {self.received + 1}")
        if not sizes:
            raise ProtocolError("the batch is empty")
        count = len(sizes) - again
        if count <= 0:
            return len(sizes)
        if self.received + count > self.credit.messages and not free:
            problem = f"the batch ends at sequence {self.received + count}, beyond {self.credit.messages}"
            raise ProtocolError(f"{problem}, the credit")
        size = sum(sizes[again:])
        if self.received_bytes + size - sizes[-1] >= self.credit.bytes and not free:
            raise ProtocolError(
                f"the batch ends with byte {self.received_bytes + size}, the credit {self.credit.bytes}"
            )
        self.received += count
        self.received_bytes += size
        return again

    def finish(self, count: int = 1) -> None:
        """Take note that this side is done with the next `count` items."""
        self.done += count
        assert self.done <= self.received, "done with items that never came"

    def grant(self, messages: int, size: int) -> bool:
        """Allow `messages` more messages and `size` more bytes than were received.

        Returns:
            True if this is more than was allowed before.
        """
        before = self.credit
        self.credit = Credit(
            max(before.messages, self.received + messages), max(before.bytes, self.received_bytes + size)
        )
        return self.credit != before
