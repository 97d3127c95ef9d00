"""Turns the errors of handlers and steps into gRPC statuses, outside all steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, cast

import grpc
from google.rpc import code_pb2, status_pb2
from grpc_status import rpc_status

from pydotcompute.exceptions import MessageDeserializationError, PyDotComputeError
from pydotcompute.ring_kernels.places import Places
from pydotcompute.wire.errors import to_status
from pydotcompute.wire.exchange.flow import ProtocolError
from pydotcompute_server.principals import as_told

__all__ = [
    "Behavior",
    "ClientGoneError",
    "StatusError",
    "report",
    "report_of_one",
    "report_of_stream",
    "status_of",
    "told_status",
]

logger = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]
Behavior = Callable[..., Awaitable[Any]]
Full = Callable[[Context], PyDotComputeError]


class ClientGoneError(Exception):
    """The call was over before its answer was sent."""


class StatusError(Exception):
    """Raised to end a call with this status."""

    def __init__(self, status: status_pb2.Status) -> None:
        super().__init__(status.message)
        self.status = status


def status_of(error: BaseException, name: str) -> status_pb2.Status:
    """Return the status of a call that ends with this exception.

    The table in `pydotcompute.wire.errors` has the status of each error. Any other exception is a fault of the daemon,
    and its status is INTERNAL. What the one who calls may not know is left out.

    Args:
        name: the name of the request message, for the error of a request that cannot be read.
    """
    if isinstance(error, StatusError):
        return error.status
    if isinstance(error, asyncio.CancelledError | ClientGoneError):
        return status_pb2.Status(code=code_pb2.CANCELLED, message="the call was cancelled")
    if isinstance(error, ProtocolError):
        error = MessageDeserializationError(name, str(error))
    return told_status(error)


def told_status(error: BaseException) -> status_pb2.Status:
    """Return an error as a status, without what the one who calls may not know."""
    return to_status(as_told(error))


def report(behavior: Behavior, name: str, places: Places, full: Full) -> Behavior:
    """Return a handler that calls `behavior`, and ends the call with a status if `behavior` raises.

    Args:
        places: the places for calls. They are counted here, and not by functions of their own, which would make every
            call slower.
        full: returns the error of a call for which there is no place.
    """

    async def call(request: Any, context: Context) -> Any:
        try:
            if places.taken >= places.most:
                raise full(context)
            places.taken += 1
            try:
                return await behavior(request, context)
            finally:
                places.taken -= 1
        except BaseException as error:
            request = None  # See `_end`.
            await _end(context, name, error)

    return call


def report_of_one(behavior: Behavior, name: str, places: Places, full: Full) -> Behavior:
    """Return what `report` does, for a handler of one request; a request that is an error is raised."""

    async def call(request: Any, context: Context) -> Any:
        try:
            if isinstance(request, PyDotComputeError):
                raise request
            if places.taken >= places.most:
                raise full(context)
            places.taken += 1
            try:
                return await behavior(request, context)
            finally:
                places.taken -= 1
        except BaseException as error:
            request = None  # See `_end`.
            await _end(context, name, error)

    return call


def report_of_stream(
    behavior: Callable[..., AsyncIterator[Any]], name: str, places: Places, full: Full
) -> Callable[..., AsyncIterator[Any]]:
    """Return what `report_of_one` does, for a handler that is a generator of responses."""

    async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            if isinstance(request, PyDotComputeError):
                raise request
            if places.taken >= places.most:
                raise full(context)
            places.take()
            # Not `finally`: gRPC does not close the generator of a call that was cancelled while it sent a response.
            cast(Any, context).add_done_callback(lambda _: places.leave())
            async for response in behavior(request, context):
                yield response
        except GeneratorExit:
            raise
        except BaseException as error:
            request = None  # See `_end`.
            await _end(context, name, error)

    return stream


async def _end(context: Context, name: str, error: BaseException) -> None:
    """End the call with the status of the error. Return only if the client is gone.

    gRPC keeps the exception that ends a call, and by it the frames here, until the garbage collector runs. So these
    frames must hold no request, and the exception must not lead to the error, whose frames hold much more.
    """
    if isinstance(error, ClientGoneError):
        return  # There is nobody left to tell.
    if isinstance(error, grpc.aio.AbortError) or context.done():
        raise error
    if isinstance(error, asyncio.CancelledError):
        # A handler that lets a cancellation pass would leave the client without a status until its deadline.
        await context.abort(grpc.StatusCode.CANCELLED, "the call was cancelled")
    if not isinstance(error, PyDotComputeError | StatusError | ProtocolError):
        logger.error("a handler failed", exc_info=error)
    status = rpc_status.to_status(status_of(error, name))
    del error
    try:
        await context.abort(status.code, status.details, status.trailing_metadata)
    except grpc.aio.AbortError as aborted:
        aborted.__context__ = None
        raise
