"""Turns every exception that leaves a handler into a status."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, NoReturn

import grpc
from grpc_status import rpc_status

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.wire.errors import to_status

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
        if handler.unary_unary:
            return grpc.unary_unary_rpc_method_handler(
                _call(handler.unary_unary), handler.request_deserializer, handler.response_serializer
            )
        if handler.unary_stream:
            return grpc.unary_stream_rpc_method_handler(
                _stream(handler.unary_stream), handler.request_deserializer, handler.response_serializer
            )
        return grpc.stream_stream_rpc_method_handler(
            _call(handler.stream_stream), handler.request_deserializer, handler.response_serializer
        )


def _call(behavior: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    async def call(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        try:
            return await behavior(request, context)
        except BaseException as error:
            await _abort(context, error)

    return call


def _stream(behavior: Callable[..., AsyncIterator[Any]]) -> Callable[..., AsyncIterator[Any]]:
    assert inspect.isasyncgenfunction(behavior)

    async def stream(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> AsyncIterator[Any]:
        try:
            async for response in behavior(request, context):
                yield response
        except GeneratorExit:
            raise
        except BaseException as error:
            await _abort(context, error)

    return stream


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: BaseException) -> NoReturn:
    if isinstance(error, grpc.aio.AbortError) or context.done():
        raise error
    if isinstance(error, asyncio.CancelledError):
        # A handler that lets a cancellation pass would leave the client without a status until its deadline.
        await context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
    if not isinstance(error, PyDotComputeError):
        logger.error("a handler failed", exc_info=error)
    status = rpc_status.to_status(to_status(error))
    await context.abort(status.code, status.details, status.trailing_metadata)
