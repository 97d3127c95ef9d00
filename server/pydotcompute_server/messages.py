"""MessageService: Send, Receive and Ask for people; Exchange for programs."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import MessageDeserializationError, MessageError
from pydotcompute.ring_kernels.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.lifecycle import RingKernel
from pydotcompute.ring_kernels.replies import Caller, Unanswered
from pydotcompute.ring_kernels.runtime import RingKernelRuntime
from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2_grpc
from pydotcompute.wire.exchange import ProtocolError
from pydotcompute.wire.messages import from_message, to_message
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.conversation import Conversation

__all__ = ["MessageServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

CLIENTS_REMEMBERED = 1_000
"""How many client_ids of one kernel have replies kept for them; the one that was quiet longest is forgotten first."""


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Converts, calls the kernel, converts back."""

    def __init__(self, runtime: RingKernelRuntime, catalog: Catalog, max_message_bytes: int) -> None:
        self._runtime = runtime
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes
        self._callers: WeakKeyDictionary[RingKernel[Any, Any], OrderedDict[str, Caller[Any]]] = WeakKeyDictionary()
        self._conversations: set[Conversation] = set()

    async def Send(self, request: pb.SendRequest, context: Context) -> pb.SendResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        message = self._message(request.message, kernel)
        await kernel.send_as(self._caller(kernel, request.client_id), message, _seconds(request))
        return pb.SendResponse(message_id=str(message.message_id))

    async def Receive(self, request: pb.ReceiveRequest, context: Context) -> pb.ReceiveResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        message = await kernel.receive_as(self._caller(kernel, request.client_id), _seconds(request))
        converted = self._convert(message, kernel)
        if context.done():
            kernel.replies.give_back(message)
        return pb.ReceiveResponse(message=converted)

    async def Ask(self, request: pb.AskRequest, context: Context) -> pb.AskResponse:
        kernel = self._runtime.kernel(request.kernel_id)
        message = self._message(request.message, kernel)
        reply = await kernel.send_and_receive(message, timeout=_seconds(request))
        return pb.AskResponse(message=self._convert(reply, kernel))

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

    def _caller(self, kernel: RingKernel[Any, Any], client_id: str) -> Caller[Any]:
        """Whose replies the unary calls with this client_id send for and receive."""
        callers = self._callers.setdefault(kernel, OrderedDict())
        caller = callers[client_id] = callers.pop(client_id) if client_id in callers else Caller(private=True)
        if len(callers) > CLIENTS_REMEMBERED:
            quiet = (name for name, each in callers.items() if not (each.arrived.waiters or each.unanswered))
            forgotten = callers.pop(next(quiet, next(iter(callers))))
            forgotten.gone = True
            while (item := forgotten.take()) is not None:
                if not isinstance(item, Unanswered):
                    kernel.bury(item, "its caller has not asked for it")
        return caller

    def _convert(self, message: Any, kernel: RingKernel[Any, Any]) -> pb.Message:
        """A message for the wire; if it cannot cross it, it is a dead letter, of which the caller is told."""
        try:
            return to_message(message, self._catalog.codec(type(message)))
        except MessageError as error:
            kernel.bury(message, str(error), DeadLetterReason.UNDELIVERABLE)
            raise

    def _message(self, message: pb.Message, kernel: RingKernel[Any, Any]) -> Any:
        codec = self._catalog.codecs(kernel.type)[0]
        if len(message.body.value) > self._max_message_bytes:
            problem = f"{len(message.body.value)} bytes, the limit is {self._max_message_bytes}"
            raise MessageDeserializationError(codec.schema.name, problem)
        return from_message(message, codec)


def _seconds(request: pb.SendRequest | pb.ReceiveRequest | pb.AskRequest) -> float | None:
    """The request's time-out, in seconds."""
    if not request.HasField("timeout"):
        return None
    timeout: Duration = request.timeout
    return timeout.ToTimedelta().total_seconds()
