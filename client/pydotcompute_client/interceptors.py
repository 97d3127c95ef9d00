"""Sorts a program's interceptors by the channel that each is for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import grpc

from pydotcompute.exceptions import InvalidConfigurationError

__all__ = ["Interceptor", "awaited", "blocking"]

Interceptor: TypeAlias = grpc.aio.ClientInterceptor | grpc.UnaryUnaryClientInterceptor


def awaited(interceptors: Sequence[Interceptor]) -> list[grpc.aio.ClientInterceptor]:
    """Return the interceptors for the channel that the event loop waits for.

    Raises:
        InvalidConfigurationError: an interceptor is of neither kind.
    """
    for each in interceptors:
        if not isinstance(each, grpc.aio.ClientInterceptor | grpc.UnaryUnaryClientInterceptor):
            problem = "neither an interceptor of grpc.aio nor a grpc.UnaryUnaryClientInterceptor"
            raise InvalidConfigurationError("interceptors", repr(each), problem)
    return [each for each in interceptors if isinstance(each, grpc.aio.ClientInterceptor)]


def blocking(channel: grpc.Channel, interceptors: Sequence[Interceptor]) -> grpc.Channel:
    """Return the channel for calls that block, with its interceptors added. All calls that block are unary."""
    theirs = [each for each in interceptors if isinstance(each, grpc.UnaryUnaryClientInterceptor)]
    return grpc.intercept_channel(channel, *theirs) if theirs else channel
