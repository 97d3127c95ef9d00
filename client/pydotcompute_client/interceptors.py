"""Which of a program's interceptors see which calls."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import grpc

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["Interceptor", "awaited", "blocking"]

Interceptor: TypeAlias = grpc.aio.ClientInterceptor | grpc.UnaryUnaryClientInterceptor


def awaited(interceptors: Sequence[Interceptor]) -> list[grpc.aio.ClientInterceptor]:
    """Those for the channel of an event loop.

    Raises:
        InvalidConfigurationError: one is of neither kind.
    """
    for each in interceptors:
        if not isinstance(each, grpc.aio.ClientInterceptor | grpc.UnaryUnaryClientInterceptor):
            problem = "neither an interceptor of grpc.aio nor a grpc.UnaryUnaryClientInterceptor"
            raise InvalidConfigurationError("interceptors", repr(each), problem)
    return [each for each in interceptors if isinstance(each, grpc.aio.ClientInterceptor)]


def blocking(channel: grpc.Channel, interceptors: Sequence[Interceptor]) -> grpc.Channel:
    """The channel for calls that block, all of which are unary, with those for it."""
    theirs = [each for each in interceptors if isinstance(each, grpc.UnaryUnaryClientInterceptor)]
    return grpc.intercept_channel(channel, *theirs) if theirs else channel
