"""MessageService: Send, Receive and Ask for people; Exchange for programs."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
from google.rpc import code_pb2, status_pb2

from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2_grpc
from pydotcompute.wire.exchange import ProtocolError
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.conversation import Conversation
from pydotcompute_server.handlers import answers_itself
from pydotcompute_server.unary import UnaryLane

__all__ = ["MessageServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Converts, calls the kernel, converts back."""

    def __init__(self, runtime: RingKernelRuntime, catalog: Catalog, max_message_bytes: int) -> None:
        self._runtime = runtime
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes
        self._unary = UnaryLane(runtime, catalog, max_message_bytes)
        self._conversations: set[Conversation] = set()

    async def Send(self, request: pb.SendRequest, context: Context) -> pb.SendResponse:
        return await self._unary.send(request, context)

    @answers_itself
    async def Receive(self, request: pb.ReceiveRequest, context: Context) -> None:
        await self._unary.receive(request, context)

    async def Acknowledge(self, request: pb.AcknowledgeRequest, context: Context) -> pb.AcknowledgeResponse:
        return await self._unary.acknowledge(request, context)

    async def Ask(self, request: pb.AskRequest, context: Context) -> pb.AskResponse:
        return await self._unary.ask(request, context)

    async def Exchange(  # type: ignore[override]  # It reads and writes through the context.
        self, request_iterator: object, context: Context
    ) -> None:
        first = await context.read()
        if not isinstance(first, pb.ExchangeRequest) or first.WhichOneof("frame") != "open":
            raise ProtocolError("the first frame of a conversation is `open`")
        kernel = self._runtime.kernel(first.open.kernel_id)
        conversation = Conversation(kernel, self._catalog, context, self._max_message_bytes)
        self._conversations.add(conversation)
        try:
            await conversation.run(first.open)
        finally:
            conversation.ended.set_result(None)
            self._conversations.discard(conversation)

    async def farewell(self, timeout: float) -> None:
        """End every conversation, each after what there is to send, within `timeout` seconds."""
        status = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the daemon is shutting down")
        for conversation in self._conversations:
            conversation.farewell(status)
        if self._conversations:
            await asyncio.wait([c.ended for c in self._conversations], timeout=timeout)

    def close(self) -> None:
        """Forget what the unary calls have left: the daemon ends."""
        self._unary.close()
