"""The steps that every call passes, at a daemon that runs in the test."""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
import pytest
from google.rpc import code_pb2, status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2

import pydotcompute_server
from pydotcompute.exceptions import InvalidConfigurationError, KernelNotFoundError
from pydotcompute.protobuf.pool import TypePool
from pydotcompute.v1 import kernel_service_pb2, message_service_pb2, telemetry_service_pb2
from pydotcompute_client import connect
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.calls.errors import StatusError
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.calls.pipeline import Call, Method, Proceed
from pydotcompute_server.limits import Limits
from tests.embedded import Order, Recorder, daemon_with
from tests.stubs import Talk, Wire, read_error

MESSAGES, KERNELS, SERVICE = "/pydotcompute.v1.MessageService", "/pydotcompute.v1.KernelService", "/shop.v1.Echo"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
BODY = b"\x08\x05"


def refuse_all(method: Method, proceed: Proceed) -> Proceed:
    """A step that nothing gets past."""

    async def refuse(call: Call) -> None:
        raise InvalidConfigurationError("caller", "anybody", "not welcome")

    return refuse


def refuse_kernel(method: Method, proceed: Proceed) -> Proceed:
    """A step that refuses what is about any kernel."""

    async def refuse(kernel_id: str) -> None:
        raise KernelNotFoundError(kernel_id)

    async def guard(call: Call) -> None:
        await call.on_kernel(refuse)
        await proceed(call)

    return guard


# -- one call of each kind ---------------------------------------------------------------------------------------------


async def ask(wire: Wire) -> None:
    request = message_service_pb2.AskRequest(kernel_id="echo")
    request.message.body.type_url, request.message.body.value = "type.googleapis.com/shop.v1.Order", BODY
    assert (await wire.messages.Ask(request)).message.body.value == BODY


async def receive(wire: Wire) -> None:
    request = message_service_pb2.SendRequest(kernel_id="echo")
    request.message.body.type_url, request.message.body.value = "type.googleapis.com/shop.v1.Order", BODY
    await wire.messages.Send(request)
    assert (await wire.receive("echo")).body.value == BODY


async def watch(wire: Wire) -> None:
    call = wire.telemetry.WatchTelemetry(telemetry_service_pb2.WatchTelemetryRequest(kernel_ids=["echo"]))
    try:
        assert (await anext(aiter(call))).kernels[0].kernel_id == "echo"
    finally:
        call.cancel()


async def exchange(wire: Wire) -> None:
    talk = Talk(wire)
    assert (await talk.open("echo")).session_token
    talk.call.cancel()


async def typed_ask(wire: Wire) -> None:
    call: Any = wire.channel.unary_unary(f"{SERVICE}/Ask")
    assert await call(BODY) == BODY


async def typed_receive(wire: Wire) -> None:
    send: Any = wire.channel.unary_unary(f"{SERVICE}/Send")
    await send(BODY, metadata=[("pydotcompute-kernel-id", "echo")])
    call: Any = wire.channel.unary_unary(f"{SERVICE}/Receive")
    assert await call(b"", metadata=[("pydotcompute-kernel-id", "echo")]) == BODY


async def typed_stream(wire: Wire) -> None:
    call: Any = wire.channel.stream_stream(f"{SERVICE}/Stream")
    stream = call()
    await stream.wait_for_connection()
    for _ in range(2):
        await stream.write(BODY)
        assert await stream.read() == BODY
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def list_kernels(wire: Wire) -> None:
    listed = await wire.kernels.ListKernels(kernel_service_pb2.ListKernelsRequest())
    assert [kernel.kernel_id for kernel in listed.kernels] == ["echo"]


async def health(wire: Wire) -> None:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    assert (await stub.Check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def watch_health(wire: Wire) -> None:
    stub: Any = health_pb2_grpc.HealthStub(wire.channel)
    call = stub.Watch(health_pb2.HealthCheckRequest())
    try:
        assert (await anext(aiter(call))).status == health_pb2.HealthCheckResponse.SERVING
    finally:
        call.cancel()


async def reflection(wire: Wire) -> None:
    call: Any = wire.channel.stream_stream(
        REFLECTION,
        request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
        response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
    )
    stream = call()
    for _ in range(2):
        await stream.write(reflection_pb2.ServerReflectionRequest(list_services=""))
        assert (await stream.read()).list_services_response.service
    await stream.done_writing()
    assert await stream.read() is grpc.aio.EOF


async def unknown(wire: Wire) -> None:
    call: Any = wire.channel.unary_unary("/shop.v1.Echo/Buy")
    await call(b"")


Calling = Callable[[Wire], Awaitable[None]]
KINDS: dict[str, tuple[Calling, str, list[str]]] = {
    "unary": (ask, f"{MESSAGES}/Ask", ["echo"]),
    "unary without a kernel": (list_kernels, f"{KERNELS}/ListKernels", []),
    "unary that answers itself": (receive, f"{MESSAGES}/Receive", ["echo"]),
    "server streaming": (watch, "/pydotcompute.v1.TelemetryService/WatchTelemetry", ["echo"]),
    "exchange": (exchange, f"{MESSAGES}/Exchange", ["echo"]),
    "typed unary": (typed_ask, f"{SERVICE}/Ask", ["echo"]),
    "typed unary that answers itself": (typed_receive, f"{SERVICE}/Receive", ["echo"]),
    "typed stream": (typed_stream, f"{SERVICE}/Stream", ["echo"]),
    "health": (health, "/grpc.health.v1.Health/Check", []),
    "health, watched": (watch_health, "/grpc.health.v1.Health/Watch", []),
    "reflection": (reflection, REFLECTION, []),
}
every_kind = pytest.mark.parametrize(("calling", "path", "kernels"), KINDS.values(), ids=KINDS)


@every_kind
async def test_calls_of_every_kind_pass_the_steps(calling: Calling, path: str, kernels: list[str]) -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        await calling(wire)
    call = recorder.calls[-1]
    assert call.method == Method(path)
    assert (call.method.service, call.method.name) == tuple(path[1:].split("/"))
    assert call.path == path
    assert call.peer.startswith("ipv4:127.0.0.1:")
    assert "user-agent" in dict(call.metadata)
    assert list(call.kernel_ids) == kernels
    assert set(recorder.kernels) == set(kernels)


async def say_nothing(wire: Wire, path: str) -> None:
    """Read from a stream and do not write: to write to a call that is over would be a failure of its own."""
    call: Any = wire.channel.stream_stream(path)
    await call().read()


@every_kind
async def test_calls_of_every_kind_can_be_refused(calling: Calling, path: str, kernels: list[str]) -> None:
    recorder = Recorder()
    async with daemon_with(recorder, refuse_all) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (say_nothing(wire, path) if calling in (reflection, exchange, typed_stream) else calling(wire))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert read_error(refused.value).reason == "CONFIGURATION_INVALID"
    assert recorder.ends[-1] is not None
    assert recorder.ends[-1].code == code_pb2.INVALID_ARGUMENT


@every_kind
async def test_calls_of_every_kind_can_be_refused_for_their_kernel(
    calling: Calling, path: str, kernels: list[str]
) -> None:
    async with daemon_with(refuse_kernel) as wire:
        if not kernels:
            await calling(wire)
            return
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await (say_nothing(wire, path) if calling is typed_stream else calling(wire))
    failure = read_error(refused.value)
    assert (failure.reason, failure.detail["kernel_id"]) == ("KERNEL_NOT_FOUND", "echo")


async def test_steps_come_in_their_order_around_the_handler() -> None:
    seen: list[str] = []

    def named(name: str) -> Any:
        def step(method: Method, proceed: Proceed) -> Proceed:
            async def enter(call: Call) -> None:
                seen.append(f"into {name}, which has {call.values.get('principal')}")
                call.values["principal"] = name
                await proceed(call)
                seen.append(f"out of {name} with {call.response.kernels[0].kernel_id}")

            return enter

        return step

    async with daemon_with(named("a"), named("b")) as wire:
        await list_kernels(wire)
    assert seen == ["into a, which has None", "into b, which has a", "out of b with echo", "out of a with echo"]


async def test_a_step_is_asked_once_for_each_method_and_once_for_all_that_do_not_exist() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        for _ in range(2):
            await ask(wire)
            await list_kernels(wire)
        for name in ("Buy", "Sell"):
            call: Any = wire.channel.unary_unary(f"{SERVICE}/{name}")
            with pytest.raises(grpc.aio.AioRpcError, match="it has "):
                await call(b"")
    assert recorder.methods == [Method(""), Method(f"{MESSAGES}/Ask"), Method(f"{KERNELS}/ListKernels")]
    assert [call.path for call in recorder.calls[-2:]] == [f"{SERVICE}/Buy", f"{SERVICE}/Sell"]
    assert [end.code for end in recorder.ends[-2:] if end is not None] == [code_pb2.UNIMPLEMENTED] * 2


async def test_who_is_refused_is_not_told_what_there_is() -> None:
    async with daemon_with(refuse_all) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await unknown(wire)
    assert read_error(refused.value).reason == "CONFIGURATION_INVALID"


async def test_a_step_sees_the_error_of_the_handler_and_its_status() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        with pytest.raises(grpc.aio.AioRpcError):
            await wire.describe("nobody")
        stub: Any = health_pb2_grpc.HealthStub(wire.channel)
        with pytest.raises(grpc.aio.AioRpcError):  # The handler of this one ends the call by itself.
            await stub.Check(health_pb2.HealthCheckRequest(service="nobody"))
    assert isinstance(recorder.errors[0], KernelNotFoundError)
    assert [end and end.code for end in recorder.ends] == [code_pb2.NOT_FOUND, code_pb2.NOT_FOUND]


async def test_a_request_that_cannot_be_read_passes_the_steps_before_it_is_refused() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        call: Any = wire.channel.unary_unary(f"{MESSAGES}/Ask")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call(b"\xff")
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert recorder.calls[0].request is None
    assert recorder.ends[0] is not None
    assert recorder.ends[0].code == code_pb2.INVALID_ARGUMENT


async def test_a_step_may_end_a_call_with_any_status() -> None:
    def busy(method: Method, proceed: Proceed) -> Proceed:
        async def refuse(call: Call) -> None:
            raise StatusError(status_pb2.Status(code=code_pb2.RESOURCE_EXHAUSTED, message="later"))

        return refuse

    async with daemon_with(busy) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ask(wire)
    assert (refused.value.code(), refused.value.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "later")


@pytest.mark.parametrize("calling", [ask, typed_ask])
async def test_a_fault_of_a_step_is_internal(calling: Calling) -> None:
    def forgetful(method: Method, proceed: Proceed) -> Proceed:
        async def forget(call: Call) -> None:
            pass

        return forget

    async with daemon_with(forgetful) as wire:
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await calling(wire)
    assert failed.value.code() is grpc.StatusCode.INTERNAL


async def test_a_step_may_answer_in_the_place_of_the_handler() -> None:
    def cached(method: Method, proceed: Proceed) -> Proceed:
        async def answer(call: Call) -> None:
            call.response = kernel_service_pb2.ListKernelsResponse(kernels=[kernel_service_pb2.Kernel(kernel_id="x")])

        return answer if method.name == "ListKernels" else proceed

    async with daemon_with(cached) as wire:
        listed = await wire.kernels.ListKernels(kernel_service_pb2.ListKernelsRequest())
        assert listed.kernels[0].kernel_id == "x"


@pytest.mark.parametrize("kind", ["unary", "server streaming", "stream"])
async def test_a_step_sees_that_a_call_is_cancelled(kind: str) -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        call: Any
        if kind == "unary":
            call = wire.messages.Receive(message_service_pb2.ReceiveRequest(kernel_id="echo"))
        elif kind == "server streaming":
            call = wire.telemetry.WatchTelemetry(telemetry_service_pb2.WatchTelemetryRequest())
            await call.read()
        else:
            call = wire.channel.stream_stream(f"{SERVICE}/Stream")()
            await call.initial_metadata()
        await recorder.begun.wait()
        call.cancel()
        await recorder.ended.wait()
        end = recorder.ends[-1]
        if kind == "stream" and end is None:
            return  # The handler saw the end of the requests first, and ended by itself.
        assert isinstance(recorder.errors[-1], asyncio.CancelledError)
        assert end is not None
        assert end.code == code_pb2.CANCELLED
        await list_kernels(wire)


async def test_a_session_passes_the_steps_again_when_it_goes_on() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire:
        talk = Talk(wire)
        await talk.open("echo")
        await talk.resume()
        talk.call.cancel()
    assert recorder.kernels == ["echo", "echo"]


async def test_the_client_of_a_daemon_with_steps_notices_nothing_of_them() -> None:
    recorder = Recorder()
    async with daemon_with(recorder) as wire, connect(wire.address) as runtime:
        orders = [Order(number) for number in range(1_000)]
        for order in orders:
            await runtime.send("echo", order)
        assert [await runtime.receive("echo") for _ in orders] == orders
    assert [call.method.name for call in recorder.calls].count("Exchange") == 1


@pytest.mark.parametrize("name", pydotcompute_server.__all__)
def test_what_a_program_needs_to_embed_a_daemon_is_public(name: str) -> None:
    assert getattr(pydotcompute_server, name)


# -- what steps cost where there are none ------------------------------------------------------------------------------


def python_calls(*steps: Any) -> int:
    """How many Python functions are entered between gRPC and a handler of one request, and the handler."""

    async def handle(request: Any, context: Any) -> bytes:
        return b"answer"

    class Service(grpc.GenericRpcHandler):
        def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
            return grpc.unary_unary_rpc_method_handler(handle, bytes, bytes)

    class Context:
        def invocation_metadata(self) -> None:
            return None

        def peer(self) -> str:
            return ""

    class Details(grpc.HandlerCallDetails):
        method = "/shop.v1.Shop/Buy"
        invocation_metadata = ()

    handlers = Handlers(TypePool(), Limits(), Apart(Limits()), steps)
    handlers.add_generic_rpc_handlers([Service()])
    handler = handlers.service(Details())
    assert handlers.service(Details()) is handler
    entered = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal entered
        entered += event == "call"

    call = handler.unary_unary(b"", Context())
    sys.setprofile(count)
    try:
        call.send(None)
    except StopIteration:
        pass
    finally:
        sys.setprofile(None)
    return entered


def test_without_steps_a_call_enters_its_handler_by_one_function() -> None:
    assert python_calls() == 2


def test_a_step_that_has_nothing_to_do_with_a_method_costs_its_calls_nothing() -> None:
    assert python_calls(lambda method, proceed: proceed) == python_calls()
    assert python_calls(Recorder()) > python_calls()
