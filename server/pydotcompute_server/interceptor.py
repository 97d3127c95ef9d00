"""Turns every exception that leaves a handler into a status."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from google.protobuf.message import DecodeError
from grpc_status import rpc_status

from pydotcompute.exceptions import MessageDeserializationError, PyDotComputeError
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange import ProtocolError

__all__ = ["ErrorInterceptor"]

logger = logging.getLogger(__name__)

Handler = Any  # grpc.RpcMethodHandler, whose fields the stubs do not declare as replaceable.


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Our errors become the statuses of the table in `pydotcompute.wire.errors`; any other is a fault of ours:
    INTERNAL.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        handler = await continuation(handler_call_details)
        if handler is None or not handler_call_details.method.startswith("/pydotcompute."):
            return handler
        read, write = handler.request_deserializer, handler.response_serializer
        name = handler_call_details.method.rpartition("/")[2] + "Request"
        if handler.unary_unary:
            read = _one_read(read, name)
            return grpc.unary_unary_rpc_method_handler(_call(handler.unary_unary, name), read, write)
        if handler.unary_stream:
            read = _one_read(read, name)
            return grpc.unary_stream_rpc_method_handler(_stream(handler.unary_stream, name), read, write)
        read = _each_read(read, name)
        return grpc.stream_stream_rpc_method_handler(_call(handler.stream_stream, name), read, write)


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
    read = _each_read(read, name)

    def deserialize(data: bytes) -> Any:
        try:
            return read(data)
        except MessageDeserializationError as error:
            return error

    return deserialize


def _call(behavior: Callable[..., Awaitable[Any]], name: str) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            if isinstance(request, PyDotComputeError):
                raise request
            return await behavior(request, context)
        except BaseException as error:
            await _abort(context, name, error)

    return call


def _stream(behavior: Callable[..., AsyncIterator[Any]], name: str) -> Callable[..., AsyncIterator[Any]]:
    assert inspect.isasyncgenfunction(behavior)

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            if isinstance(request, PyDotComputeError):
                raise request
            async for response in behavior(request, context):
                yield response
        except GeneratorExit:
            raise
        except BaseException as error:
            await _abort(context, name, error)

    return stream


async def _abort(context: grpc.aio.ServicerContext[Any, Any], name: str, error: BaseException) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError) or context.done():
        raise error
    if isinstance(error, asyncio.CancelledError):
        # A handler that lets a cancellation pass would leave the client without a status until its deadline.
        await context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
    if isinstance(error, ProtocolError):
        error = MessageDeserializationError(name, str(error))
    if not isinstance(error, PyDotComputeError):
        logger.error("a handler failed", exc_info=error)
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
