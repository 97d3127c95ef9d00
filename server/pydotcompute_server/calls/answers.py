"""Encodes messages of kernels for clients, and sends answers such that a lost answer is noticed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pydotcompute.exceptions import MessageTooLargeError, MessageTypeError, PyDotComputeError
from pydotcompute.messages.raw import stands_for
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.messages import write_body
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.calls.errors import Behavior, ClientGoneError, StatusError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.limits import Limits

__all__ = ["Answers", "Metadata", "answer", "answers_itself", "encode", "seconds_left", "send_header"]

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str]]
Kernel = RingKernel[Any, Any]
Encoded = tuple[Codec[Any], bytes]
"""A codec, and the body of a message of its class."""

_BAD_REQUEST = error_details_pb2.BadRequest.DESCRIPTOR


async def encode(message: Any, catalog: Catalog, limits: Limits, apart: Apart) -> Encoded:
    """Return the codec of a message that a kernel sent, and its encoded body. A long message is encoded apart.

    Raises:
        MessageError: the message cannot be encoded, because the actor has changed it since, or it is too long.
    """
    codec = catalog.codec(message.__class__)
    weighty = apart.is_weighty(codec, message)
    body = await apart.write(codec, message, aligned=False) if weighty else codec.encode(message)
    return codec, _within(limits, codec, body)


def _within(limits: Limits, codec: Codec[Any], body: bytes) -> bytes:
    """Return the body. Raise MessageTooLargeError if it is too long."""
    if len(body) > limits.max_message_bytes:
        raise MessageTooLargeError(codec.schema.name, len(body), limits.max_message_bytes)
    return body


class Answers:
    """Encodes the messages that kernels send outside of sessions."""

    def __init__(self, catalog: Catalog, limits: Limits, apart: Apart) -> None:
        self._catalog = catalog
        self._apart = apart
        self._limits = limits

    async def write(
        self, into: pb.Message, kernel: Kernel, message: Any, wanted: type | None, encoded: Encoded | None = None
    ) -> int:
        """Write a message that a kernel sent into an empty `Message`. Return the length of its body.

        If the caller is cancelled meanwhile, it must take care of the message. For the errors and other arguments see
        `encode_now`.

        Args:
            encoded: the message, if it is encoded already.
        """
        codec, body = encoded or await self.encode(kernel, message, wanted)
        if len(body) < self._limits.decode_apart_bytes:
            write_body(into, message, codec, body)
        else:
            await self._apart.run(write_body, into, message, codec, body)
        return len(body)

    async def encode(self, kernel: Kernel, message: Any, wanted: type | None) -> Encoded:
        """Do what `encode_now` does, for a long message too.

        If the caller is cancelled meanwhile, it must take care of the message.
        """
        return self.encode_now(kernel, message, wanted) or await self._encode_apart(kernel, message)

    def encode_now(self, kernel: Kernel, message: Any, wanted: type | None) -> Encoded | None:
        """Return the codec of a message that a kernel sent, and its encoded body. None for a long message.

        Args:
            wanted: the class that the client was promised; None for any.

        Raises:
            StatusError: the message cannot be sent. It is a dead letter now, because to put it back would fail again.
        """
        try:
            codec = self._catalog.codec(message.__class__)
            if wanted is not None and stands_for(message.__class__) is not wanted:
                raise self._other_class(kernel, message, wanted)
            if self._apart.is_weighty(codec, message):
                return None
            return codec, _within(self._limits, codec, codec.encode(message))
        except PyDotComputeError as error:
            raise self._cannot_send(kernel, message, error) from error

    async def _encode_apart(self, kernel: Kernel, message: Any) -> Encoded:
        try:
            return await encode(message, self._catalog, self._limits, self._apart)
        except PyDotComputeError as error:
            raise self._cannot_send(kernel, message, error) from error

    def _other_class(self, kernel: Kernel, message: Any, wanted: type) -> StatusError:
        promised, sent = (self._catalog.codec(cls).descriptor.full_name for cls in (wanted, type(message)))
        text = f"kernel {kernel.kernel_id!r} answered with {sent}; the service promises {promised}"
        return self._bury(kernel, message, _status(MessageTypeError(promised, sent), text))

    def _cannot_send(self, kernel: Kernel, message: Any, error: PyDotComputeError) -> StatusError:
        text = f"the answer of kernel {kernel.kernel_id!r} cannot be sent: {error}"
        return self._bury(kernel, message, _status(error, text))

    @staticmethod
    def _bury(kernel: Kernel, message: Any, status: status_pb2.Status) -> StatusError:
        kernel.mail.bury(message, status.message, DeadLetterReason.UNDELIVERABLE)
        return StatusError(status)


def _status(error: PyDotComputeError, text: str) -> status_pb2.Status:
    """Return the error's status as INTERNAL and without a BadRequest: the kernel is at fault, not the request."""
    status = to_status(error)
    details = [each for each in status.details if not each.Is(_BAD_REQUEST)]
    return status_pb2.Status(code=code_pb2.INTERNAL, message=text[:600], details=details)


# -- sending it --------------------------------------------------------------------------------------------------------


def answers_itself(behavior: Behavior) -> Behavior:
    """Mark the handler of a unary method that ends with `await answer(context, response)`, and returns nothing.

    To gRPC such a handler is a stream of one response, which is the same on the wire. It exists because grpc.aio does
    not tell a unary handler if its response has been sent.
    """
    behavior.answers_itself = True  # type: ignore[attr-defined]
    return behavior


async def answer(context: Context, response: Any) -> None:
    """Send the response. The handler must return right after that, which sends the status.

    Raises:
        ClientGoneError: the client does not have the response: the call was cancelled, or its connection broke, before
            the response was sent.
    """
    try:
        await context.write(response)
    except (asyncio.CancelledError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGoneError from error


def seconds_left(context: Context, limits: Limits) -> float | None:
    """Return the seconds that the daemon may wait before it answers, or None if the call has no deadline.

    They are a little less than the time to the deadline, so that the answer arrives in time.
    """
    remaining: float | None = context.time_remaining()
    return None if remaining is None else remaining - min(limits.answer_margin, remaining / 5)


async def send_header(context: Context, metadata: Metadata) -> None:
    """Send the initial metadata, before any response. ClientGoneError if the call is over."""
    try:
        await context.send_initial_metadata(metadata)
    except (asyncio.CancelledError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGoneError from error
