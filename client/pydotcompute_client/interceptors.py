"""Sorts a program's interceptors by the channel that each is for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client.tokens import Metadata

__all__ = ["AddMetadata", "Interceptor", "awaited", "blocking"]

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


@dataclass(frozen=True)
class _Details(grpc.ClientCallDetails):
    method: str
    timeout: float | None
    metadata: Any
    credentials: Any
    wait_for_ready: bool | None
    compression: Any


class AddMetadata(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds metadata to every call of a channel for calls that block."""

    def __init__(self, metadata: Metadata) -> None:
        self._metadata = metadata

    def _intercept(self, proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), *self._metadata)
        rest = (details.credentials, details.wait_for_ready, details.compression)
        return proceed(_Details(details.method, details.timeout, metadata, *rest), request)

    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept
