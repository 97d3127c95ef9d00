"""Memory that a kernel and one worker share, for long bodies. There is none until the first long body."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from pydotcompute.exceptions import BackendUnavailableError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.bodies import Body, Opened, open_shared
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute.wire.exchange.shared_memory import LONGEST_IN_FRAME, SharedMemory

__all__ = ["LONG", "LinkMemory"]

LONG = LONGEST_IN_FRAME
"""A body of more bytes goes by the shared memory, if there is room."""
SEGMENT_BYTES = 256 << 20
"""The size of the memory in each direction. The system gives it page by page, when it is first written to."""


class LinkMemory:
    """The memory of one link, at one of its ends. A body for which there is no room goes in the frame.

    The kernel's end makes the memory and offers it to the worker, which attaches to it and says so. A memory that
    cannot be made, or attached to, is not there: all bodies go in frames then.

    Args:
        codecs: the codecs of the messages of the link, by index. More may be appended.
    """

    def __init__(self, codecs: Sequence[Codec[Any]]) -> None:
        self._codecs = codecs
        self._memory: SharedMemory | None = None
        self._was_wanted = False

    # -- making it -----------------------------------------------------------------------------------------------------

    def want(self) -> bool:
        """Return True the first time: then the kernel's end makes an offer, and the worker's end asks for one."""
        wanted, self._was_wanted = not self._was_wanted, True
        return wanted

    def offer(self) -> bytes:
        """Make the memory, at the kernel's end. Return what the worker is told; nothing if there can be no memory."""
        with suppress(BackendUnavailableError):
            self._memory = SharedMemory.create(SEGMENT_BYTES, self._codecs)
            return self._memory.offer.SerializeToString()
        return b""

    def attach(self, offer: bytes) -> None:
        """Attach to the memory that the kernel's end offers, at the worker's end."""
        opened = pb.Opened(shared_memory=pb.SharedMemory.FromString(offer))
        with suppress(BackendUnavailableError):
            self._memory = SharedMemory.open(opened, self._codecs)

    def settle(self) -> None:
        """Note that the worker has attached to the memory, or never will. Nobody can from now on."""
        if self._memory is not None:
            self._memory.settle()

    def close(self) -> None:
        """Give the memory back, except for bodies at which something still looks."""
        if self._memory is not None:
            self._memory.close()
            self._memory = None

    # -- bodies --------------------------------------------------------------------------------------------------------

    def place(self, body: bytes | memoryview) -> bytes | Body:
        """Put a body into the memory if it is long and there is room. Return how it travels."""
        if len(body) > LONG and self._memory is not None:
            block = self._memory.writer.put([body], len(body))
            if block is not None:
                return block
        return bytes(body)

    def encode(self, message: Any, index: int) -> bytes | Body:
        """Encode a message of the class with this index, into the memory if it is long and there is room.

        Raises:
            MessageTypeError, MessageSerializationError: see `Codec.encode`.
        """
        codec = self._codecs[index]
        if self._memory is not None:
            return self._memory.writer.encoder(codec)(message)
        return codec.encode_aligned(message)

    def open(self, batch: pb.Batch, types: Sequence[int]) -> list[Opened]:
        """Return the bodies of a batch of which some are in the memory.

        Raises:
            MessageDeserializationError: the batch is malformed.
            ProtocolError: a body is not in the memory.
        """
        if self._memory is None or batch.body_in_parts:
            raise ProtocolError("a body travels in a way that is not known here")
        return open_shared(self._memory.reader, batch, [*batch.bodies], types)
