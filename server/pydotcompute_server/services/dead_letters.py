"""DeadLetterService lists the messages that kernels could not deliver, and puts them back."""

from __future__ import annotations

from typing import Any

import grpc

from pydotcompute.exceptions import MessageError
from pydotcompute.messages.raw import stands_for
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetter
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import dead_letter_service_pb2 as pb
from pydotcompute.v1 import dead_letter_service_pb2_grpc
from pydotcompute.v1 import message_service_pb2 as message_pb
from pydotcompute.wire.dead_letters import dead_letter_to_proto, header_to_proto
from pydotcompute.wire.messages import write_body
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.calls.answers import encode
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.limits import Limits
from pydotcompute_server.services.pages import number_in

__all__ = ["DeadLetterServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class DeadLetterServicer(dead_letter_service_pb2_grpc.DeadLetterServiceServicer):
    """Converts each request, asks the runtime, and converts its answer back."""

    def __init__(self, runtime: RingKernelRuntime, catalog: Catalog, limits: Limits, apart: Apart) -> None:
        self._apart = apart
        self._runtime = runtime
        self._catalog = catalog
        self._limits = limits

    async def ListDeadLetters(self, request: pb.ListDeadLettersRequest, context: Context) -> pb.ListDeadLettersResponse:
        dead_letters, limits = self._runtime.kernel(request.kernel_id).dead_letters, self._limits
        after = number_in(request.page_token, "ListDeadLettersRequest")  # The id of the last one on that page.
        most = min(request.page_size or limits.dead_letters_default_page, limits.dead_letters_page)
        page = pb.ListDeadLettersResponse(discarded=dead_letters.discarded)
        classes: set[type] = set()
        size = 0
        for letter in list(dead_letters.kept()):  # The others may change while a long one is converted.
            if letter.id <= after:
                continue
            converted = await self._convert(letter)
            size += converted.ByteSize()
            if page.dead_letters and (len(page.dead_letters) == most or size > limits.dead_letters_page_bytes):
                page.next_page_token = str(page.dead_letters[-1].id)
                break
            page.dead_letters.append(converted)
            if not converted.problem:
                classes.add(stands_for(type(letter.message)))
        page.types.extend(self._catalog.message_type(cls) for cls in classes)
        return page

    async def RequeueDeadLetters(
        self, request: pb.RequeueDeadLettersRequest, context: Context
    ) -> pb.RequeueDeadLettersResponse:
        requeued = await self._runtime.requeue_dead_letters(request.kernel_id, request.ids or None)
        remaining = len(self._runtime.kernel(request.kernel_id).dead_letters)
        return pb.RequeueDeadLettersResponse(ids=requeued, remaining=remaining)

    async def _convert(self, letter: DeadLetter) -> pb.DeadLetter:
        """Return a dead letter as protobuf, without the message's body if that cannot be encoded."""
        message = letter.message
        try:
            codec, body = await encode(message, self._catalog, self._limits, self._apart)
        except MessageError as error:
            return dead_letter_to_proto(letter, header_to_proto(message), str(error))
        converted = message_pb.Message()
        write_body(converted, message, codec, body)
        return dead_letter_to_proto(letter, converted)
