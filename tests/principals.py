"""Clients that say in their metadata who they are, and a step of the daemon that believes them."""

from collections.abc import Callable
from typing import Any

import grpc

from pydotcompute_server import Call, Method, Proceed
from pydotcompute_server.principals import Principal, calling_as

WHO = "who"
"""The key of the metadata."""


def believing(method: Method, proceed: Proceed) -> Proceed:
    """A step that takes each client for whom it says to be; who says nothing stays anonymous."""

    async def call_as(call: Call) -> None:
        for key, value in call.metadata:
            if key == WHO:
                calling_as(Principal(str(value)))
        await proceed(call)

    return call_as


def saying(name: str) -> list[grpc.aio.ClientInterceptor]:
    """Interceptors for a channel of this principal's."""

    async def said(proceed: Callable[..., Any], details: Any, request: Any) -> Any:
        metadata = grpc.aio.Metadata(*(details.metadata or ()), (WHO, name))
        return await proceed(details._replace(metadata=metadata), request)

    class OneToOne(grpc.aio.UnaryUnaryClientInterceptor):
        async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return await said(continuation, client_call_details, request)

    class OneToMany(grpc.aio.UnaryStreamClientInterceptor):
        async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
            return await said(continuation, client_call_details, request)

    class ManyToMany(grpc.aio.StreamStreamClientInterceptor):
        async def intercept_stream_stream(
            self, continuation: Any, client_call_details: Any, request_iterator: Any
        ) -> Any:
            return await said(continuation, client_call_details, request_iterator)

    return [OneToOne(), OneToMany(), ManyToMany()]
