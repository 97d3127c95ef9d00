"""Kernels' own services come with their types, and end with the daemon."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_reflection.v1alpha import reflection_pb2

from pydotcompute import RingKernelRuntime
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.v1 import kernel_service_pb2
from pydotcompute_server.bounds.accounts import Accounts
from pydotcompute_server.bounds.apart import Apart
from pydotcompute_server.bounds.memory import Memory
from pydotcompute_server.calls.handlers import Handlers
from pydotcompute_server.catalog import Catalog
from pydotcompute_server.connected import Connected
from pydotcompute_server.limits import Limits
from pydotcompute_server.services.reflection import add_reflection
from pydotcompute_server.typed.service import TypedServices
from pydotcompute_server.unary.lane import UnaryLane
from pydotcompute_server.visible import Visible
from tests.server.typed import typed_kernels
from tests.server.typed.services import (
    TYPED_KERNELS,
    read_all,
    read_to_error,
    refusal_of,
    service_of,
    write_all,
)
from tests.stubs import PATIENCE, Wire

# -- types that come later ---------------------------------------------------------------------------------------------


async def test_a_service_is_there_as_soon_as_its_type_is_known() -> None:
    catalog = Catalog()
    config = RingKernelConfig("late")
    kernel_type = KernelType("late", typed_kernels.till, config, typed_kernels.Order, typed_kernels.Receipt)
    async with RingKernelRuntime(kernel_types={"late": kernel_type}) as runtime:
        await runtime.launch("late")
        await runtime.activate("late")
        apart = Apart(Limits())
        handlers: Any = Handlers(catalog.pool, Limits(), apart)
        add_reflection(handlers, [], catalog.pool, Visible(runtime, catalog))
        memory = Memory(1 << 30)
        connected = Connected(Limits(), Accounts(Limits()))
        unary = UnaryLane(runtime, catalog, Limits(), apart, memory, "epoch", connected)
        handlers.add_generic_rpc_handlers([TypedServices(runtime, catalog, unary, Limits(), apart, memory, connected)])
        server = grpc.aio.server()
        server.add_generic_rpc_handlers((handlers,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            assert (await refusal_of(Wire(channel), "/shop.v1.Late/Ask"))[0] is grpc.StatusCode.UNIMPLEMENTED
            catalog.add(kernel_type)
            call: Any = channel.unary_unary("/shop.v1.Late/Ask")
            assert await call(b"\x08\x05", timeout=PATIENCE) == b"\x08\x05"
            for version in ("v1", "v1alpha"):
                ask: Any = channel.stream_stream(
                    f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )
                stream = ask(iter([reflection_pb2.ServerReflectionRequest(list_services="")]), timeout=PATIENCE)
                listed = (await stream.read()).list_services_response.service
                assert "shop.v1.Late" in {service.name for service in listed}
        await server.stop(0)


# -- the end of the daemon ---------------------------------------------------------------------------------------------


@pytest.fixture
async def mortal(start_daemon: Callable[..., Any]) -> AsyncIterator[tuple[Any, Wire]]:
    """A daemon for one test, with a grace period of some seconds."""
    daemon = start_daemon(str(TYPED_KERNELS), "--launch", "all", "--grace", "5")
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        yield daemon, Wire(channel)


async def test_a_daemon_that_ends_answers_what_it_has_accepted(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "slow_till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id="slow_till"))
    call = service.stream({})
    for _ in range(10):
        await call.write(service.message(amount=50))
    await wire.until("slow_till", queue_depth=10)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id="slow_till"))
    daemon.process.terminate()
    answers, error = await read_to_error(call)
    assert len(answers) == 10
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the daemon is shutting down"
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_daemon_that_ends_lets_a_stream_end_well_that_was_about_to(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "slow_till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id="slow_till"))
    call = service.stream({})
    await write_all(call, [service.message(amount=50)] * 10)
    await wire.until("slow_till", queue_depth=10)
    await wire.kernels.Reactivate(kernel_service_pb2.ReactivateRequest(kernel_id="slow_till"))
    daemon.process.terminate()
    assert len(await read_all(call)) == 10
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_daemon_that_ends_says_which_message_is_not_answered(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "till")
    await wire.kernels.Deactivate(kernel_service_pb2.DeactivateRequest(kernel_id="till"))
    call = service.stream({})
    await call.write(service.message(amount=1))
    await wire.until("till", queue_depth=1)
    daemon.process.terminate()
    _, error = await read_to_error(call)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert (error.details() or "").startswith("the daemon is shutting down: message 1 of the stream: ")
    assert await asyncio.to_thread(daemon.process.wait, PATIENCE) == 0


async def test_a_client_that_does_not_read_does_not_keep_the_daemon(mortal: tuple[Any, Wire]) -> None:
    daemon, wire = mortal
    service = await service_of(wire, "parrot")
    call = service.stream({})
    writing = asyncio.create_task(write_all(call, [service.message(note="x" * 100_000)] * 1000))
    await wire.until("parrot", error_count=0)
    async with asyncio.timeout(PATIENCE):
        while (await wire.counters("parrot")).messages_processed < 10:
            pass
    await asyncio.to_thread(daemon.stop)
    writing.cancel()
    call.cancel()
