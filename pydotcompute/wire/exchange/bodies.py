"""The ways in which the bodies of a session's messages travel.

A body travels in the frame of its message, in parts ahead of that frame, or in memory that both sides share. The rest
of `Exchange` does not know which. A body on its way is bytes, which travel in the frame, or a `Body`, which writes into
the batch how it travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar, cast

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import Incoming, ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame
from pydotcompute.wire.exchange.parts import LEAST_PART_BYTES, Coming, InParts, PartsReader
from pydotcompute.wire.exchange.shared_memory import Reader, SharedMemory

__all__ = ["Bodies", "Body", "Opened", "Opens", "malformed", "open_shared"]

T = TypeVar("T")

Opened = bytes | memoryview
"""A received body, ready to be decoded. On the daemon's side it may also be `Missing`; see `Bodies.take_part`."""


class Body(Protocol):
    """A body that does not travel in the frame of its message."""

    def __len__(self) -> int: ...

    def refer(self, batch: pb.Batch, index: int) -> None:
        """Write into the batch how the body travels. `index` is the index of the body's message in the batch."""


class Opens(Protocol):
    """Opens the bodies of batches that do not travel in them."""

    def open(self, batch: pb.Batch, types: Sequence[int]) -> list[Opened]:
        """See `Bodies.open`."""


class Bodies:
    """The bodies of one session, in both directions."""

    def __init__(
        self,
        incoming: Incoming,
        frame_of_part: Callable[[int, int, memoryview], bytes],
        *,
        longest: int,
        longest_received: int,
        part_bytes: int,
        memory: SharedMemory | None = None,
    ) -> None:
        """Make the bodies of a session. All lengths are in bytes.

        Args:
            incoming: the rules for the messages that this side receives.
            frame_of_part: makes the frame of a part from the length of the body, the offset and the data of the part.
            longest: the longest body that the other side takes.
            longest_received: the longest body that this side takes.
            part_bytes: the longest part that the other side takes; 0 if the other side takes no parts.
            memory: the memory that both sides share; None if there is none.

        Raises:
            ProtocolError: `part_bytes` is above 0, but below `LEAST_PART_BYTES`.
        """
        if 0 < part_bytes < LEAST_PART_BYTES:
            raise ProtocolError(f"parts of {part_bytes} bytes, at least {LEAST_PART_BYTES} are needed")
        self.longest = longest
        """The longest body, in bytes, that the other side takes."""
        self._part_bytes = min(PART_BYTES, part_bytes)
        self.longest_plain = min(self._part_bytes or longest, longest)
        """The longest body, in bytes, that may be queued as it is. A longer body, if not too long, must pass `pack`."""
        self._frame_of_part = frame_of_part
        self._parts = PartsReader(incoming, longest_received)
        self._memory = memory
        self.offer: pb.SharedMemory | None = None if memory is None else memory.offer
        """The place of the shared memory, for the other side. None if there is no memory, or after `settle`."""

    # -- bodies that go ------------------------------------------------------------------------------------------------

    def encoder(self, codec: Codec[T]) -> Callable[[T], bytes | Body]:
        """Return a function that encodes messages of this codec's class, into shared memory if there is any."""
        return codec.encode_aligned if self._memory is None else self._memory.writer.encoder(codec)

    def place(self, body: bytes) -> bytes | Body:
        """Put a body that is already encoded where the `encoder` would have put it."""
        return body if self._memory is None else self._memory.writer.place(body)

    def pack(self, body: bytes | memoryview | Body) -> bytes | Body:
        """Choose how a long body travels: longer than `longest_plain`, but not longer than `longest`. Return it so."""
        if not isinstance(body, bytes | memoryview):
            return body
        if not self._part_bytes:
            return bytes(body)
        return InParts(body, self._part_bytes, self._frame_of_part)

    # -- bodies that come ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin or end a stream: forget a body whose parts have not all come."""
        self._parts.forget()

    def settle(self) -> None:
        """Take note of the first frame from the other side: the offer of shared memory is *settled*.

        The other side has attached to the memory by now, or never will.
        """
        self.offer = None
        if self._memory is not None:
            self._memory.settle()

    @property
    def coming(self) -> Coming | None:
        """The body of which only some parts have come; None if there is none."""
        return self._parts.coming

    def take_part(self, part: PartFrame | pb.Part, *, keep: bool = True) -> None:
        """Take in a part of a body that has come ahead of its message. Raises ProtocolError if it breaks the rules.

        For `keep` see `PartsReader.take`. A side that always keeps the parts gets no body that is `Missing`.
        """
        self._parts.take(part, keep=keep)

    @property
    def has_parts(self) -> bool:
        """True if some parts of a body have come, and not its message."""
        return self._parts.has_some

    @property
    def held_bytes(self) -> int:
        """The bytes of the parts that have come of a body whose message has not."""
        return self._parts.held_bytes

    def open(self, batch: pb.Batch, types: Sequence[int]) -> list[Opened]:
        """Return the bodies of a batch of which some do not travel in it.

        Args:
            batch: the batch.
            types: the index of the type of each message.

        Raises:
            MessageDeserializationError: the batch is malformed.
            ProtocolError: a body has not come, or is not in the shared memory.
        """
        bodies: list[Opened] = [*batch.bodies]
        if batch.body_in_parts:
            if len(bodies) != 1 or bodies[0]:
                raise malformed("body_in_parts", f"{len(bodies)} messages, expected one with an empty body")
            bodies = [cast(Opened, self._parts.join())]
        if not batch.shared_bodies:
            return bodies
        if self._memory is None:
            raise ProtocolError("a body is in shared memory, and there is none")
        return open_shared(self._memory.reader, batch, bodies, types)

    def close(self) -> None:
        """End the session: give the shared memory back."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None  # Only arrays and views that still look at the memory keep it now.


def open_shared(reader: Reader, batch: pb.Batch, bodies: list[Opened], types: Sequence[int]) -> list[Opened]:
    """Put the bodies of a batch that are in shared memory into their places among `bodies`, and return these.

    Raises:
        MessageDeserializationError: the batch is malformed.
        ProtocolError: a body is not in the shared memory.
    """
    if sum(place.bytes for place in batch.shared_bodies) > reader.size:
        raise ProtocolError("the bodies in shared memory are together longer than the memory")
    for place in batch.shared_bodies:
        if place.index >= len(bodies) or bodies[place.index]:
            raise malformed("shared_bodies", f"{place.index} is no message with an empty body")
        bodies[place.index] = reader.body(place, types[place.index])
    return bodies


def malformed(column: str, problem: str) -> MessageDeserializationError:
    """Return the error for a malformed column of a batch."""
    return MessageDeserializationError("Batch", problem, f"$.{column}")
