"""Bodies in parts: a long body goes ahead of its message, in several frames, so that other messages go between them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.flow import Ahead, Incoming, ProtocolError
from pydotcompute.wire.exchange.frames import PART_BYTES, PartFrame

__all__ = ["LEAST_PART_BYTES", "Coming", "InParts", "Missing", "PartsReader"]

LEAST_PART_BYTES = 4_096
"""The fewest bytes of a part that is not the last. The overhead of a shorter part could be more than its data."""


class Missing:
    """Stands for a received body that was not kept, because this side had no room for it."""

    __slots__ = ("_size",)

    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size


class InParts(Ahead):
    """A body that goes to the other side in parts."""

    __slots__ = ("_body", "_frame_of", "_most", "_offset")

    def __init__(self, body: bytes | memoryview, most: int, frame_of: Callable[[int, int, memoryview], bytes]) -> None:
        """Make ready to send a body.

        Args:
            body: the body.
            most: the most bytes in a part.
            frame_of: makes the frame of a part from the length of the body, and the offset and the data of the part.
        """
        self._body = body
        self._most = most
        self._frame_of = frame_of
        self._offset = 0

    def __len__(self) -> int:
        return len(self._body)

    @property
    def all_out(self) -> bool:
        """True if all parts are out."""
        return self._offset == len(self._body)

    def next_piece(self) -> bytes:
        """Return the frame of the next part."""
        body, offset = self._body, self._offset
        self._offset = min(len(body), offset + self._most)
        return self._frame_of(len(body), offset, memoryview(body)[offset : self._offset])

    def begin(self) -> None:
        """Begin with the first part again."""
        self._offset = 0

    def refer(self, batch: pb.Batch, index: int) -> None:
        """Write into the batch that the body has gone in parts. The batch must hold no other message."""
        batch.body_in_parts = True


class Coming(NamedTuple):
    """A body of which some parts have come."""

    before: int
    """The number of bodies in parts that came before it."""
    body_bytes: int


class PartsReader:
    """Joins the parts of a body that is coming."""

    def __init__(
        self, incoming: Incoming, longest: int, *, most: int = PART_BYTES, least: int = LEAST_PART_BYTES
    ) -> None:
        """Make a reader that has no part yet.

        Args:
            incoming: the rules for the messages that this side receives.
            longest: the most bytes of a body.
            most: the most bytes of a part.
            least: the fewest bytes of a part that is not the last.
        """
        self._incoming = incoming
        self._longest = longest
        self._most = most
        self._least = least
        self._joined = 0
        self.forget()

    def forget(self) -> None:
        """Forget the parts that have come: their body will begin again."""
        self._parts: list[memoryview] = []
        self._parts_bytes = self._body_bytes = 0
        self._is_missing = False

    @property
    def coming(self) -> Coming | None:
        """The body of which some parts have come, perhaps all; None if none has."""
        return Coming(self._joined, self._body_bytes) if self._parts_bytes else None

    @property
    def has_some(self) -> bool:
        """True if some parts of a body have come."""
        return self._parts_bytes > 0

    @property
    def held_bytes(self) -> int:
        """The bytes of the parts that are kept."""
        return 0 if self._is_missing else self._parts_bytes

    def take(self, part: PartFrame | pb.Part, *, keep: bool = True) -> None:
        """Take in a part of a body that has come. Raises ProtocolError if the part breaks the rules.

        Args:
            part: the part.
            keep: False if there is no room for the part. Then no part of the body is kept, and it will be `Missing`.
        """
        body_bytes, offset, size = part.body_bytes, part.offset, len(part.data)
        if offset == 0:
            self.forget()
            if body_bytes > self._longest:
                raise ProtocolError(f"a body of {body_bytes} bytes comes in parts, the limit is {self._longest}")
            if not self._incoming.may_begin:
                raise ProtocolError("a part begins a message for which there is no credit")
            self._body_bytes = body_bytes
        end = offset + size
        if body_bytes != self._body_bytes or offset != self._parts_bytes or end > body_bytes:
            expected = f"expected those from {self._parts_bytes} of {self._body_bytes}"
            raise ProtocolError(f"a part has bytes {offset} to {end} of {body_bytes}, {expected}")
        if size > self._most or not size or (size < self._least and end < body_bytes):
            raise ProtocolError(f"a part has {size} bytes, allowed are {self._least} to {self._most}")
        self._parts_bytes = end
        if not keep or self._is_missing:
            self._is_missing = True
            self._parts.clear()
        else:
            self._parts.append(memoryview(part.data))

    def join(self) -> bytes | Missing:
        """Join the parts, and return the body. Raises ProtocolError if they have not all come."""
        if not self._parts_bytes or self._parts_bytes != self._body_bytes:
            raise ProtocolError(f"only {self._parts_bytes} of {self._body_bytes} bytes have come in parts")
        parts, missing = self._parts, Missing(self._body_bytes) if self._is_missing else None
        self._joined += 1
        self.forget()
        return b"".join(parts) if missing is None else missing
