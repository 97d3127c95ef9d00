"""The handlers of all services, each wrapped once: every exception that leaves one becomes a status."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import grpc
from google.protobuf.message import DecodeError
from google.rpc import status_pb2
from grpc_status import rpc_status

from pydotcompute.exceptions import MessageDeserializationError, PyDotComputeError
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute_server.calls.unknown import unknown_method

__all__ = [
    "ClientGoneError",
    "Handler",
    "Handlers",
    "Metadata",
    "StatusError",
    "answer",
    "answers_itself",
    "seconds_left",
    "send_header",
]

logger = logging.getLogger(__name__)

Handler = Any  # grpc.RpcMethodHandler, whose fields the stubs do not declare as replaceable.
Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[..., Awaitable[Any]]
Metadata = Sequence[tuple[str, str]]


SECONDS_TO_ANSWER = 0.1
"""What is left of a call's deadline, at most, when the daemon gives up."""


class Handlers(grpc.GenericRpcHandler):
    """What the services are added to, in the place of the server, which is given this as its only handler.

    Of our services and the kernels', errors become the statuses of the table in `pydotcompute.wire.errors`; any other
    exception is a fault of ours: INTERNAL. That is done when a method is first called and not, as an interceptor would,
    for each call. A method that does not exist is answered with the names of those that do, found in `types`.
    """

    def __init__(self, types: TypePool) -> None:
        self._types = types
        self._added: list[grpc.GenericRpcHandler] = []
        self._found: dict[str, Handler] = {}

    def add_generic_rpc_handlers(self, handlers: Sequence[grpc.GenericRpcHandler]) -> None:
        """What `add_…Servicer_to_server` calls for a service."""
        self._added.extend(handlers)

    def add_registered_method_handlers(self, service: str, handlers: Mapping[str, Handler]) -> None:
        """It calls this too, with the same handlers, which are not registered: a server of grpc.aio waits for the next
        call of every registered method by itself, which makes each call dearer by a few microseconds a method."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Handler:
        """The handler of a method; if there is no such method, one that says so."""
        method = handler_call_details.method
        handler = self._found.get(method)
        if handler is None:
            found = (each.service(handler_call_details) for each in self._added)
            handler = next((each for each in found if each is not None), None)
            if handler is None:
                return _unimplemented(unknown_method(method, self._types))  # Not kept: there is no end of these.
            handler = self._found[method] = _wrapped(handler, method)
        return handler


def _unimplemented(text: str) -> Handler:
    async def refuse(_: object, context: Context) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return grpc.stream_stream_rpc_method_handler(refuse)  # It reads nothing, so it suits calls of every kind.


def _wrapped(handler: Handler, method: str) -> Handler:
    if method.startswith("/grpc."):
        return handler
    read, write = handler.request_deserializer, handler.response_serializer
    name = method.rpartition("/")[2] + "Request"
    if handler.unary_unary:
        read, call = _one_read(read, name), _call(handler.unary_unary, name)
        if getattr(handler.unary_unary, "answers_itself", False):
            return grpc.unary_stream_rpc_method_handler(call, read, write)
        return grpc.unary_unary_rpc_method_handler(call, read, write)
    if handler.unary_stream:
        read = _one_read(read, name)
        return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, name), read, write)
    read = _each_read(read, name)
    return grpc.stream_stream_rpc_method_handler(_call(handler.stream_stream, name), read, write)


# -- answers whose fate is known ---------------------------------------------------------------------------------------


class ClientGoneError(Exception):
    """The call was over before its answer had left."""


class StatusError(Exception):
    """The call ends with this status."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


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


def seconds_left(context: Context) -> float | None:
    """How long the daemon may wait before it answers, so that the answer is there at the call's deadline; None: for
    ever."""
    remaining: float | None = context.time_remaining()
    return None if remaining is None else remaining - min(SECONDS_TO_ANSWER, remaining / 5)


async def send_header(context: Context, metadata: Metadata) -> None:
    """Send the initial metadata, before any response. ClientGoneError as of `answer`."""
    try:
        await context.send_initial_metadata(metadata)
    except (asyncio.CancelledError, grpc.aio.InternalError, grpc.aio.UsageError) as error:
        raise ClientGoneError from error


# -- exceptions --------------------------------------------------------------------------------------------------------

Deserializer = Callable[[bytes], Any]


def _each_read(read: Deserializer, name: str) -> Deserializer:
    """A deserializer for frames that a handler reads from a stream: bytes that are no protobuf are an error of ours."""

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError as error:
            raise MessageDeserializationError(name, str(error)) from None

    return deserialize


def _one_read(read: Deserializer, name: str) -> Deserializer:
    """The same for a single request, which gRPC reads before there is a handler: it gets the error in its place."""

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except DecodeError as error:
            return MessageDeserializationError(name, str(error))

    return deserialize


def _call(behavior: Behavior, name: str) -> Behavior:
    async def call(request: Any, context: Context) -> Any:
        try:
            if request.__class__ is MessageDeserializationError:
                raise request
            return await behavior(request, context)
        except BaseException as error:
            await _abort(context, name, error)

    return call


def _stream(behavior: Callable[..., AsyncIterator[Any]], name: str) -> Callable[..., AsyncIterator[Any]]:
    assert inspect.isasyncgenfunction(behavior)

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            if request.__class__ is MessageDeserializationError:
                raise request
            async for response in behavior(request, context):
                yield response
        except GeneratorExit:
            raise
        except BaseException as error:
            await _abort(context, name, error)

    return stream


async def _abort(context: Context, name: str, error: BaseException) -> None:
    if isinstance(error, ClientGoneError):
        return  # There is nobody left to tell.
    if isinstance(error, grpc.aio.AbortError) or context.done():
        raise error
    if isinstance(error, asyncio.CancelledError):
        # A handler that lets a cancellation pass would leave the client without a status until its deadline.
        await context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
    if isinstance(error, ProtocolError):
        error = MessageDeserializationError(name, str(error))
    if not isinstance(error, PyDotComputeError | StatusError):
        logger.error("a handler failed", exc_info=error)
    status = rpc_status.to_status(error.status if isinstance(error, StatusError) else to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
