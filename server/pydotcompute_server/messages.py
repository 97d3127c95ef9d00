"""MessageService: Send, Receive and Ask for people; Exchange for programs."""

from __future__ import annotations

from collections import OrderedDict
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

import grpc
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, status_pb2

from pydotcompute.exceptions import MessageDeserializationError, MessageError, PyDotComputeError, SessionLostError
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
from pydotcompute_server.sessions import Session, Sessions

__all__ = ["MessageServicer"]

Context = grpc.aio.ServicerContext[Any, Any]

CLIENTS_REMEMBERED = 1_000
"""How many client_ids of one kernel have replies kept for them; the one that was quiet longest is forgotten first."""

SHUTTING_DOWN = status_pb2.Status(code=code_pb2.UNAVAILABLE, message="the daemon is shutting down")


class MessageServicer(message_service_pb2_grpc.MessageServiceServicer):
    """Converts, calls the kernel, converts back."""

    def __init__(
        self, runtime: RingKernelRuntime, catalog: Catalog, max_message_bytes: int, session_timeout: float
    ) -> None:
        self._runtime = runtime
        self._catalog = catalog
        self._max_message_bytes = max_message_bytes
        self._callers: WeakKeyDictionary[RingKernel[Any, Any], OrderedDict[str, Caller[Any]]] = WeakKeyDictionary()
        self._sessions = Sessions(session_timeout)
        self._conversations: dict[bytes, Conversation] = {}  # Those that carry a session now, by its token.
        self._draining: status_pb2.Status | None = None
        self._farewell: status_pb2.Status | None = None

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
        opening = first.open
        if opening.session_token:
            session = self._sessions.find(opening.session_token, opening.kernel_id)
        else:
            kernel = self._runtime.kernel(opening.kernel_id)
            session = Session(kernel, self._catalog, self._max_message_bytes, opening)
            self._sessions.add(session)
        if (carrier := self._conversations.get(session.token)) is not None:
            carrier.replace()
        async with session.lock:
            await self._carry(session, opening, context)

    async def _carry(self, session: Session, opening: pb.Open, context: Context) -> None:
        """Hold a session on this stream, until one of them ends."""
        if session.over:
            raise SessionLostError("", "the session has ended meanwhile", opening.kernel_id)
        self._sessions.attach(session)
        conversation = self._conversations[session.token] = Conversation(session, context)
        session.draining = self._draining
        if self._farewell is not None:
            conversation.farewell(self._farewell)
        is_over = False
        try:
            is_over = await conversation.run(opening, self._catalog, self._sessions.timeout)
        except PyDotComputeError:
            is_over = True
            raise
        finally:
            del self._conversations[session.token]
            if is_over:
                self._sessions.end(session)
            else:
                self._sessions.keep(session)

    def drain(self) -> None:
        """Take no more messages from sessions, and tell their clients."""
        self._draining = SHUTTING_DOWN
        for conversation in self._conversations.values():
            conversation.drain(SHUTTING_DOWN)

    async def farewell(self, timeout: float) -> None:
        """End every session, each after what there is to send, within `timeout` seconds; also those whose stream has
        broken, if their clients come back in time.
        """
        self._farewell = SHUTTING_DOWN
        for conversation in self._conversations.values():
            conversation.farewell(self._farewell)
        self._sessions.end_delivered()
        deadline = monotonic() + timeout
        while self._sessions and (left := deadline - monotonic()) > 0:
            await self._sessions.ended.wait(left)
        self._sessions.end_all()

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
