"""The interceptors of a client, as a step of the daemon sees what they add."""

import asyncio
from typing import Any

import grpc
import pytest

from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute_client import connect
from tests.embedded import Order, Recorder, daemon_with


def named(details: Any, name: str) -> Any:
    """The details of a call, with a name in its metadata."""
    return details._replace(metadata=[*(details.metadata or ()), ("caller", name)])


class Unary(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds a name to what is awaited."""

    def __init__(self, name: str) -> None:
        self.name = name

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(named(client_call_details, self.name), request)


class Watch(grpc.aio.UnaryStreamClientInterceptor):
    """Adds a name to what is watched."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await continuation(named(client_call_details, "watcher"), request)


class Stream(grpc.aio.StreamStreamClientInterceptor):
    """Adds a name to the streams of messages."""

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await continuation(named(client_call_details, "streamer"), request_iterator)


class Blocking(grpc.UnaryUnaryClientInterceptor):
    """Adds a name to what blocks."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return continuation(named(client_call_details, "blocker"), request)


def callers(recorder: Recorder) -> dict[str, list[Any]]:
    """The names that calls of each method have come with."""
    return {call.method.name: [value for key, value in call.metadata if key == "caller"] for call in recorder.calls}


async def test_interceptors_see_all_calls_of_a_client() -> None:
    recorder = Recorder()
    interceptors: list[Any] = [Unary("a"), Stream(), Blocking(), Unary("b"), Watch()]
    async with daemon_with(recorder) as wire, connect(wire.address, interceptors=interceptors) as runtime:
        assert await runtime.send_and_receive("echo", Order(7)) == Order(7)
        await runtime.fetch_telemetry("echo")
        await anext(aiter(runtime.watch_telemetry()))
        assert await asyncio.to_thread(lambda: runtime.kernel_ids) == ["echo"]
    assert callers(recorder) == {
        "ListKernelTypes": ["a", "b"],
        "Exchange": ["streamer"],
        "GetTelemetry": ["a", "b"],
        "WatchTelemetry": ["watcher"],
        "ListKernels": ["blocker"],
    }


async def test_plain_calls_pass_no_interceptor_of_an_event_loop() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire, connect(wire.address, interceptors=[Unary("a")]) as runtime:
        assert await asyncio.to_thread(lambda: runtime.kernel_ids) == ["echo"]
    assert callers(recorder) == {"ListKernelTypes": ["a"], "ListKernels": []}


async def test_many_messages_pass_an_interceptor_in_order() -> None:
    async with daemon_with() as wire, connect(wire.address, interceptors=[Stream()]) as runtime:
        orders = [Order(number) for number in range(3_000)]
        for order in orders:
            await runtime.send("echo", order)
        assert [await runtime.receive("echo") for _ in orders] == orders


def test_what_is_no_interceptor_is_refused() -> None:
    wrong: Any = [object()]
    with pytest.raises(InvalidConfigurationError, match="interceptors"):
        connect("127.0.0.1:1", interceptors=wrong)
