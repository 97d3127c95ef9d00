"""What holds at a daemon and has no counterpart in-process."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute import ring_kernel
from pydotcompute.exceptions import InvalidConfigurationError, KernelNotFoundError, MessageSerializationError
from pydotcompute.ring_kernels.lifecycle import KernelContext
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute_client import RemoteRuntime, connect
from tests.contract import kernels
from tests.contract.conftest import KERNELS
from tests.contract.kernels import Job, Result
from tests.contract.world import PATIENCE, eventually, new_kernel_id

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
async def runtime(contract_daemon: Any) -> AsyncIterator[RemoteRuntime]:
    """A client whose kernels end with the test."""
    async with connect(contract_daemon.target, scoped=True) as runtime:
        yield runtime


@pytest.fixture
async def health(contract_daemon: Any) -> AsyncIterator[Any]:
    """A stub of the health service."""
    async with grpc.aio.insecure_channel(contract_daemon.target) as channel:
        yield health_pb2_grpc.HealthStub(channel)


async def launched(runtime: RemoteRuntime, kernel_func: Any) -> str:
    kernel_id = new_kernel_id(kernel_func)
    await runtime.launch(kernel_id, kernel_func)
    await runtime.activate(kernel_id)
    return kernel_id


# -- health ------------------------------------------------------------------------------------------------------------


async def test_health_shows_a_failure_within_a_second_to_who_asks_and_to_who_watches(
    runtime: RemoteRuntime, health: Any
) -> None:
    kernel_id = await launched(runtime, kernels.fragile)
    request = health_pb2.HealthCheckRequest(service=kernel_id)
    watch = health.Watch(request)
    while (await watch.read()).status != SERVING:
        pass
    assert (await health.Check(request)).status == SERVING
    await runtime.send(kernel_id, Job(7, note="boom"))
    async with asyncio.timeout(1.0):
        assert (await watch.read()).status == NOT_SERVING
        assert (await health.Check(request)).status == NOT_SERVING
    watch.cancel()


async def test_health_follows_a_kernel_from_its_launch_to_its_end(runtime: RemoteRuntime, health: Any) -> None:
    kernel_id = new_kernel_id(kernels.square)
    request = health_pb2.HealthCheckRequest(service=kernel_id)
    with pytest.raises(grpc.aio.AioRpcError) as unknown:
        await health.Check(request)
    assert unknown.value.code() is grpc.StatusCode.NOT_FOUND
    await runtime.launch(kernel_id, kernels.square)
    watch = health.Watch(request)
    async with asyncio.timeout(PATIENCE):
        assert (await watch.read()).status == NOT_SERVING, "launched, not yet active"
        await runtime.activate(kernel_id)
        assert (await watch.read()).status == SERVING
        await runtime.terminate(kernel_id)
        assert (await watch.read()).status == NOT_SERVING
    watch.cancel()


async def test_a_failed_kernel_does_not_make_the_daemon_unhealthy(runtime: RemoteRuntime, health: Any) -> None:
    kernel_id = await launched(runtime, kernels.fragile)
    await runtime.send(kernel_id, Job(7, note="boom"))
    await eventually(lambda: runtime.get_kernel_state(kernel_id) is KernelState.FAILED)
    assert (await health.Check(health_pb2.HealthCheckRequest())).status == SERVING


# -- kernels and their clients -----------------------------------------------------------------------------------------


async def test_a_kernel_outlives_the_client_that_launched_it(runtime: RemoteRuntime, contract_daemon: Any) -> None:
    kernel_id = new_kernel_id(kernels.square)
    async with connect(contract_daemon.target) as launcher:
        await launcher.launch(kernel_id, kernels.square)
        await launcher.activate(kernel_id)
    assert (await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)).number == 9
    await runtime.terminate(kernel_id)


async def test_a_scoped_client_takes_its_kernels_with_it(runtime: RemoteRuntime, contract_daemon: Any) -> None:
    async with connect(contract_daemon.target, scoped=True) as launcher:
        kernel_id = await launched(launcher, kernels.square)
        assert runtime.get_kernel_state(kernel_id) is KernelState.ACTIVE
    assert runtime.get_kernel_state(kernel_id) is KernelState.TERMINATED


async def test_replies_to_a_client_that_is_gone_go_to_nobody(runtime: RemoteRuntime, contract_daemon: Any) -> None:
    kernel_id = await launched(runtime, kernels.gate)
    async with connect(contract_daemon.target) as another:
        for number in range(3):
            await another.send(kernel_id, Job(number))
    await runtime.send(kernel_id, Job(7, note="open"))
    assert (await runtime.receive(kernel_id, timeout=PATIENCE)).number == 49
    with pytest.raises(TimeoutError):
        await runtime.receive(kernel_id, timeout=0.1)
    telemetry = await runtime.fetch_telemetry(kernel_id)
    assert telemetry is not None
    assert (telemetry.messages_processed, telemetry.messages_dropped) == (4, 3)


async def test_what_a_client_sent_before_it_left_is_handled(runtime: RemoteRuntime, contract_daemon: Any) -> None:
    kernel_id = await launched(runtime, kernels.sink)
    async with connect(contract_daemon.target) as another:
        for number in range(1_000):
            await another.send(kernel_id, Job(number))
    await eventually(lambda: runtime.get_all_telemetry()[kernel_id].messages_processed == 1_000)


# -- no code travels ---------------------------------------------------------------------------------------------------


async def undeclared(ctx: KernelContext[Job, Result]) -> None:
    """A function that is no kernel type."""


@ring_kernel(input_type=Job, output_type=Result, auto_register=False)
async def unknown_to_the_daemon(ctx: KernelContext[Job, Result]) -> None:
    """A kernel type of this program alone."""


async def test_a_function_that_is_not_declared_cannot_be_launched(runtime: RemoteRuntime) -> None:
    with pytest.raises(InvalidConfigurationError):
        await runtime.launch("x", undeclared)


async def test_a_kernel_type_that_the_daemon_has_not_loaded_is_not_found(runtime: RemoteRuntime) -> None:
    with pytest.raises(KernelNotFoundError) as refused:
        await runtime.launch("x", unknown_to_the_daemon)
    assert refused.value.kernel_id == "unknown_to_the_daemon"
    assert "batched" in refused.value.available, "one of those that it names"


# -- sizes, and calls that wait ----------------------------------------------------------------------------------------


async def test_a_payload_over_the_limit_is_refused_and_the_daemon_goes_on(start_daemon: Callable[..., Any]) -> None:
    daemon = start_daemon(str(KERNELS), "--max-message-bytes", "1000")
    async with connect(daemon.target, scoped=True) as runtime:
        kernel_id = await launched(runtime, kernels.echo_job)
        for put in (runtime.send, runtime.send_and_receive):
            with pytest.raises(MessageSerializationError) as refused:
                await put(kernel_id, Job(note="x" * 1_001), timeout=PATIENCE)
            assert refused.value.message_type == "Job"
        sent = Job(note="x" * 900)
        assert await runtime.send_and_receive(kernel_id, sent, timeout=PATIENCE) == sent
    daemon.stop()


async def test_the_awaitable_twins_say_what_the_plain_calls_say(runtime: RemoteRuntime) -> None:
    kernel_id = await launched(runtime, kernels.square)
    await runtime.send_and_receive(kernel_id, Job(3), timeout=PATIENCE)
    await runtime.terminate(kernel_id)
    assert await runtime.fetch_kernel_state(kernel_id) is runtime.get_kernel_state(kernel_id)
    assert await runtime.fetch_telemetry(kernel_id) == runtime.get_telemetry(kernel_id)
    assert await runtime.fetch_all_telemetry() == runtime.get_all_telemetry()
    assert await runtime.fetch_kernel_ids() == runtime.kernel_ids
    assert await runtime.fetch_summary() == runtime.get_summary()
