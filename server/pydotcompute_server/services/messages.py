"""MessageService has Send, Receive, Acknowledge and Ask for people, and Exchange for programs."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import grpc

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.v1 import message_service_pb2_grpc
from pydotcompute.wire.exchange.frames import read_request, to_bytes
from pydotcompute_server.calls.answers import answers_itself
from pydotcompute_server.calls.pipeline import About, says_its_kernel
from pydotcompute_server.calls.requests import takes_messages
from pydotcompute_server.exchange.lane import ExchangeLane
from pydotcompute_server.unary.lane import UnaryLane

__all__ = ["MessageServicer"]

Context = grpc.aio.ServicerContext[Any, Any]


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Passes Send, Receive, Acknowledge and Ask to the unary lane, and Exchange to the exchange lane."""

    def __init__(self, unary: UnaryLane, exchange: ExchangeLane) -> None:
        self._unary = unary
        self._exchange = exchange

    @takes_messages
    def Send(self, request: pb.SendRequest, context: Context) -> Awaitable[pb.SendResponse]:
        return self._unary.send(request, context)

    @answers_itself
    async def Receive(self, request: pb.ReceiveRequest, context: Context) -> None:
        await self._unary.receive(request, context)

    async def Acknowledge(self, request: pb.AcknowledgeRequest, context: Context) -> pb.AcknowledgeResponse:
        return await self._unary.acknowledge(request, context)

    @takes_messages
    def Ask(self, request: pb.AskRequest, context: Context) -> Awaitable[pb.AskResponse]:
        return self._unary.ask(request, context)

    def exchange_handler(self) -> grpc.GenericRpcHandler:
        """Return the handler of Exchange, whose frames may also be a `PartFrame` or bytes.

        The generated handler reads and writes protobuf messages only.
        """
        handler = grpc.stream_stream_rpc_method_handler(self.Exchange, read_request, to_bytes)
        service = pb.DESCRIPTOR.services_by_name["MessageService"].full_name
        return grpc.method_handlers_generic_handler(service, {"Exchange": handler})

    @takes_messages
    @says_its_kernel
    async def Exchange(  # type: ignore[override]  # The lane reads and writes through the context.
        self, about: About, context: Context
    ) -> None:
        await self._exchange.exchange(context, about)
