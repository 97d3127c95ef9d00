"""What a kernel sends, made ready for its client, and sent so that its fate is known."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
from google.rpc import code_pb2, error_details_pb2, status_pb2

from pydotcompute.exceptions import MessageTooLargeError, MessageTypeError, PyDotComputeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.wire.errors import to_status
from pydotcompute_server.calls.errors import Behavior, ClientGoneError, StatusError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.limits import Limits

__all__ = ["Answers", "Metadata", "answer", "answers_itself", "encode", "seconds_left", "send_header"]

Context = grpc.aio.ServicerContext[Any, Any]
Metadata = Sequence[tuple[str, str]]

_BAD_REQUEST = error_details_pb2.BadRequest.DESCRIPTOR


def encode(message: Any, catalog: Catalog, limits: Limits) -> tuple[Codec[Any], bytes]:
    """The codec of what a kernel sent, and the body.

    Raises:
        MessageError: it cannot cross the wire: the actor has changed it since it sent it, or it is too long.
    """
    codec = catalog.codec(type(message))
    body = codec.encode(message)
    if len(body) > limits.max_message_bytes:
        raise MessageTooLargeError(codec.schema.name, len(body), limits.max_message_bytes)
    return codec, body


class Answers:
    """Encodes what the kernels of a daemon send outside of sessions."""

    def __init__(self, catalog: Catalog, limits: Limits) -> None:
        self._catalog = catalog
        self._limits = limits

    def encode(self, kernel: RingKernel[Any, Any], message: Any, wanted: type | None) -> tuple[Codec[Any], bytes]:
        """The body of what a kernel sent, and its codec.

        Args:
            wanted: the class that the client was promised; None for any.

        Raises:
            StatusError: it cannot be sent, and is a dead letter now: to put it back would be to fail again.
        """
        catalog = self._catalog
        try:
            if wanted is not None and message.__class__ is not wanted:
                promised, sent = (catalog.codec(cls).descriptor.full_name for cls in (wanted, type(message)))
                text = f"kernel {kernel.kernel_id!r} answered with {sent}; the service promises {promised}"
                raise self._bury(kernel, message, _status(MessageTypeError(promised, sent), text))
            codec, body = encode(message, catalog, self._limits)
        except PyDotComputeError as error:
            text = f"the answer of kernel {kernel.kernel_id!r} cannot be sent: {error}"
            raise self._bury(kernel, message, _status(error, text)) from error
        return codec, body

    @staticmethod
    def _bury(kernel: RingKernel[Any, Any], message: Any, status: status_pb2.Status) -> StatusError:
        kernel.mail.bury(message, status.message, DeadLetterReason.UNDELIVERABLE)
        return StatusError(status)


def _status(error: PyDotComputeError, text: str) -> status_pb2.Status:
    """INTERNAL, and without the BadRequest: the fault is the kernel's, and nothing in the request."""
    status = to_status(error)
    details = [each for each in status.details if not each.Is(_BAD_REQUEST)]
    return status_pb2.Status(code=code_pb2.INTERNAL, message=text[:600], details=details)


# -- sending it --------------------------------------------------------------------------------------------------------


def answers_itself(behavior: Behavior) -> Behavior:
    """Marks the handler of a unary method that ends in `await answer(context, response)` and not in `return response`.

    To gRPC it is a stream of one response, which is the same on the wire. But whether the response of a unary handler
    has left is something that grpc.aio tells nobody.
    """
    behavior.answers_itself = True  # type: ignore[attr-defined]
    return behavior


async def answer(context: Context, response: Any) -> None:
    """Send the response; the handler must return then, which sends the status.

    Raises:
        ClientGoneError: the client does not have the response, for the call was cancelled, or its connection broke,
            before the response had left.
    """
    try:
        await context.write(response)
    except (asyncio.CancelledError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGoneError from error


def seconds_left(context: Context, limits: Limits) -> float | None:
    """How long the daemon may wait before it answers, so that the answer is there at the call's deadline; None: for
    ever.
    """
    remaining: float | None = context.time_remaining()
    return None if remaining is None else remaining - min(limits.answer_margin, remaining / 5)


async def send_header(context: Context, metadata: Metadata) -> None:
    """Send the initial metadata, before any response. ClientGoneError as of `answer`."""
    try:
        await context.send_initial_metadata(metadata)
    except (asyncio.CancelledError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGoneError from error
