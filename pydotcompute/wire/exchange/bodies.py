"""How the bodies of a session's messages travel: in the frame of their message, in parts ahead of it, or in memory that
both sides share. The rest of `Exchange` does not know which.

A body on its way is bytes, which travel in the frame, or a `Body` that says in the batch how it travels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from pydotcompute.exceptions import MessageDeserializationError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import Incoming, ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame
from pydotcompute.wire.exchange.parts import LEAST_PART_BYTES, InParts, PartsReader
from pydotcompute.wire.exchange.shared_memory import SharedMemory

__all__ = ["Bodies", "Body", "Opened", "malformed"]

T = TypeVar("T")

Opened = bytes | memoryview
"""A body that has come."""


class Body(Protocol):
    """A body that does not travel in the frame of its message."""

    def __len__(self) -> int: ...

    def refer(self, batch: pb.Batch, index: int) -> None:
        """Say in the batch of its message, which is the one of this index there, how the body travels."""


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
        """Args:
            incoming: the messages whose bodies come.
            frame_of_part: makes a frame of the length of a body, and the offset and the data of a part.
            longest: the longest body that the other side takes.
            longest_received: the longest body that this side takes.
            part_bytes: the longest part that the other side takes; 0 if it takes none.
            memory: what both sides share.

        Raises:
            ProtocolError: such short parts are not sent.
        """
        if 0 < part_bytes < LEAST_PART_BYTES:
            raise ProtocolError(f"parts of {part_bytes} bytes, at least {LEAST_PART_BYTES} are needed")
        self.longest = longest
        """The longest body that the other side takes."""
        self._part_bytes = min(PART_BYTES, part_bytes)
        self.longest_plain = min(self._part_bytes or longest, longest)
        """A body that is not longer may be queued as it is. A longer one may be too long, and is for `pack`."""
        self._frame_of_part = frame_of_part
        self._parts = PartsReader(incoming, longest_received)
        self._memory = memory
        self.offer: pb.SharedMemory | None = None if memory is None else memory.offer
        """Where the other side finds the memory that it may share; None if there is none, or it has had its chance."""

    # -- bodies that go ------------------------------------------------------------------------------------------------

    def encoder(self, codec: Codec[T]) -> Callable[[T], bytes | Body]:
        """Encodes messages of this codec's class."""
        return codec.encode if self._memory is None else self._memory.writer.encoder(codec)

    def pack(self, body: bytes | Body) -> bytes | Body:
        """How a body travels that is longer than `longest_plain`, but not longer than `longest`."""
        if not isinstance(body, bytes) or not self._part_bytes:
            return body
        return InParts(body, self._part_bytes, self._frame_of_part)

    # -- bodies that come ----------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """A stream begins, or ends: forget what has not come whole."""
        self._parts.forget()

    def settle(self) -> None:
        """The other side has said something: it has attached to the memory that it was offered, or never will."""
        self.offer = None
        if self._memory is not None:
            self._memory.settle()

    def take_part(self, part: PartFrame | pb.Part) -> None:
        """Something of a body has come ahead of its message. ProtocolError: it breaks the rules."""
        self._parts.take(part)

    def open(self, batch: pb.Batch, types: Sequence[int]) -> list[Opened]:
        """The bodies of a batch, of these types, of which some do not travel in it.

        Raises:
            MessageDeserializationError: the batch is malformed.
            ProtocolError: they have not come.
        """
        bodies: list[Opened] = [*batch.bodies]
        if batch.body_in_parts:
            if len(bodies) != 1 or bodies[0]:
                raise malformed("body_in_parts", f"{len(bodies)} messages, expected one with an empty body")
            bodies = [self._parts.join()]
        if not batch.shared_bodies:
            return bodies
        if self._memory is None:
            raise ProtocolError("a body is in shared memory, and there is none")
        reader = self._memory.reader
        if sum(place.bytes for place in batch.shared_bodies) > reader.size:
            raise ProtocolError("bodies in shared memory are longer together than that is")
        for place in batch.shared_bodies:
            if place.index >= len(bodies) or bodies[place.index]:
                raise malformed("shared_bodies", f"{place.index} is no message with an empty body")
            bodies[place.index] = reader.body(place, types[place.index])
        return bodies

    def close(self) -> None:
        """The session is over."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None  # What still looks at it is all that keeps it.


def malformed(column: str, problem: str) -> MessageDeserializationError:
    """What is wrong with a column of a batch."""
    return MessageDeserializationError("Batch", problem, f"$.{column}")
