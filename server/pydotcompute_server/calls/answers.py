"""What a kernel sends, made ready for its client."""

from __future__ import annotations

from typing import Any

from google.rpc import code_pb2, error_details_pb2, status_pb2

from pydotcompute.exceptions import MessageTooLargeError, MessageTypeError, PyDotComputeError
from pydotcompute.protobuf.codec import Codec
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.wire.errors import to_status
from pydotcompute_server.calls.handlers import StatusError
from pydotcompute_server.catalog import Catalog

__all__ = ["Answers"]

_BAD_REQUEST = error_details_pb2.BadRequest.DESCRIPTOR


class Answers:
    """Encodes what the kernels of a daemon send outside of sessions."""

    def __init__(self, catalog: Catalog, max_message_bytes: int) -> None:
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes

    def encode(self, kernel: RingKernel[Any, Any], message: Any, wanted: type | None) -> tuple[Codec[Any], bytes]:
        """The body of what a kernel sent, and its codec.

        Args:
            wanted: the class that the client was promised; None for any.

        Raises:
            StatusError: it cannot be sent, and is a dead letter now: to put it back would be to fail again.
        """
        catalog = self._catalog
        try:
            codec = catalog.codec(type(message))
            if wanted is not None and message.__class__ is not wanted:
                promised, sent = catalog.codec(wanted).descriptor.full_name, codec.descriptor.full_name
                text = f"kernel {kernel.kernel_id!r} answered with {sent}; the service promises {promised}"
                raise self._bury(kernel, message, _status(MessageTypeError(promised, sent), text))
            body = codec.encode(message)
            if len(body) > self._max_message_bytes:
                raise MessageTooLargeError(codec.schema.name, len(body), self._max_message_bytes)
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
