"""The health service: what it says of the daemon, of its services and of kernels, and to clients that do not read."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.supervision import Supervision
from pydotcompute.v1 import kernel_service_pb2 as kernel_pb
from pydotcompute_server import Daemon, Limits, Settings
from tests.embedded import EmbeddedWire, Order, echo
from tests.server.deaf_watcher import DeafWatcher
from tests.server.process.processes import serving
from tests.stubs import KERNELS, PATIENCE, Failure, failure_of, read_error

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
OWN = ("", "pydotcompute.v1.KernelService", "pydotcompute.v1.MessageService", "grpc.health.v1.Health", "shop.v1.Echo")


class Health:
    """A daemon in this process, and its health."""

    def __init__(self, wire: EmbeddedWire, daemon: Daemon) -> None:
        self.wire = wire
        self.daemon = daemon
        self._stub: Any = health_pb2_grpc.HealthStub(wire.channel)

    async def check(self, service: str = "") -> Any:
        return (await self._stub.Check(health_pb2.HealthCheckRequest(service=service))).status

    async def refusal(self, service: str) -> Failure:
        return await failure_of(self._stub.Check(health_pb2.HealthCheckRequest(service=service)))

    async def list(self) -> dict[str, Any]:
        response = await self._stub.List(health_pb2.HealthListRequest())
        return {name: answer.status for name, answer in response.statuses.items()}

    def watch(self, service: str = "") -> Any:
        return self._stub.Watch(health_pb2.HealthCheckRequest(service=service))

    async def launch(self, kernel_id: str, kernel_type: str = "echo") -> None:
        await self.wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id=kernel_id, kernel_type=kernel_type))
        await self.wire.kernels.Activate(kernel_pb.ActivateRequest(kernel_id=kernel_id))


@asynccontextmanager
async def health_of(**limits: Any) -> AsyncIterator[Health]:
    """A daemon with the kernel types `echo` and `failing`, of which `echo` is launched."""
    types = {
        name: KernelType(name, actor, RingKernelConfig(name), Order, Order, service=f"shop.v1.{name.title()}")
        for name, actor in (("echo", echo), ("failing", failing))
    }
    types["stumbling"] = KernelType(
        "stumbling", stumbling, RingKernelConfig("stumbling"), Order, Order, supervision=Supervision("always")
    )
    daemon = Daemon(Settings(listen="127.0.0.1:0", launch=["echo"], limits=Limits(grace=1.0, **limits)), types)
    async with asyncio.timeout(PATIENCE):
        await daemon.start()
        running = asyncio.create_task(daemon.run())
        try:
            async with grpc.aio.insecure_channel(daemon.address) as channel:
                yield Health(EmbeddedWire(channel, daemon.address), daemon)
        finally:
            daemon.stop()
            await running


async def failing(ctx: Any) -> None:
    raise ValueError("at once")


async def stumbling(ctx: Any) -> None:
    await ctx.receive()
    raise ValueError("every time")


async def until(watch: Any, status: Any) -> None:
    """Read until the watch says this."""
    while (await watch.read()).status != status:
        pass


# -- what it says ------------------------------------------------------------------------------------------------------


async def test_the_daemon_its_services_and_those_of_kernel_types_answer() -> None:
    async with health_of() as health:
        for name in OWN:
            assert await health.check(name) == SERVING, name
        assert (await health.list()).items() >= dict.fromkeys([*OWN, "echo"], SERVING).items()


async def test_everything_is_not_serving_while_the_daemon_drains() -> None:
    async with health_of() as health:
        watches = {name: health.watch(name) for name in (*OWN, "echo")}
        for watch in watches.values():
            assert (await watch.read()).status == SERVING
        health.daemon.stop()
        for name, watch in watches.items():
            assert (await watch.read()).status == NOT_SERVING, name
            watch.cancel()


async def test_a_kernel_that_is_not_launched_is_not_found_and_the_answer_lists_what_is() -> None:
    async with health_of() as health:
        refused = await health.refusal("nobody")
        assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "KERNEL_NOT_FOUND")
        assert refused.detail["kernel_id"] == "nobody"
        assert {'""', *OWN[1:], "echo"} < set(refused.detail["available"])
        assert (await health.refusal("failing")).detail["is_type"] == 1, "what must be launched is said"
    async with health_of(unknown_names_told=2) as health:
        assert (await health.refusal("nobody")).detail["available"] == ['""', "grpc.health.v1.Health", "…"]


async def test_a_terminated_kernel_is_not_serving_until_it_is_forgotten() -> None:
    async with health_of() as health:
        health.daemon._runtime._limits = RuntimeLimits(terminated_kernels=2)
        watch = health.watch("k0")
        assert (await watch.read()).status == SERVICE_UNKNOWN
        for number in range(3):
            await health.launch(f"k{number}")
            assert await health.check(f"k{number}") == SERVING
            if number == 0:
                await until(watch, SERVING)
            await health.wire.terminate(f"k{number}")
        await until(watch, NOT_SERVING)
        assert (await watch.read()).status == SERVICE_UNKNOWN
        watch.cancel()
        assert (await health.refusal("k0")).code is grpc.StatusCode.NOT_FOUND
        assert [await health.check(f"k{number}") for number in (1, 2)] == [NOT_SERVING] * 2
        assert not {"k0", "k1", "k2"} & (await health.list()).keys(), "an alert on what does not serve clears"


async def test_a_kernel_whose_launch_fails_stays_unknown_to_who_watches() -> None:
    async with health_of() as health:
        watch = health.watch("failing")
        assert (await watch.read()).status == SERVICE_UNKNOWN
        with pytest.raises(grpc.aio.AioRpcError):
            await health.wire.kernels.Launch(kernel_pb.LaunchRequest(kernel_id="failing"))
        await health.launch("failing", "echo")
        await until(watch, SERVING)
        watch.cancel()


async def test_a_kernel_that_is_called_as_a_service_does_not_speak_for_it() -> None:
    name = "pydotcompute.v1.KernelService"
    async with health_of() as health:
        await health.launch(name)
        await health.wire.terminate(name)
        assert await health.check(name) == SERVING


async def test_a_kernel_whose_actor_is_started_again_is_active_and_not_serving_meanwhile() -> None:
    async with health_of() as health:
        await health.launch("stumbling", "stumbling")
        watch = health.watch("stumbling")
        await until(watch, SERVING)
        for _ in range(4):  # Each time it is away for longer.
            await health.daemon._runtime.send("stumbling", Order())
        await until(watch, NOT_SERVING)
        (kernel,) = (
            each
            for each in (await health.wire.kernels.ListKernels(kernel_pb.ListKernelsRequest())).kernels
            if each.kernel_id == "stumbling"
        )
        assert kernel.state == kernel_pb.KERNEL_STATE_ACTIVE
        await until(watch, SERVING)
        watch.cancel()


# -- who watches -------------------------------------------------------------------------------------------------------


async def test_one_watcher_too_many_is_refused_and_one_that_leaves_makes_room() -> None:
    async with health_of(max_watchers=2) as health:
        watches = [health.watch() for _ in range(2)]
        for watch in watches:
            await watch.read()
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.watch("echo").read()
        assert read_error(refused.value) == Failure(
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "LIMIT_EXCEEDED",
            {"name": "max_watchers", "limit": 2, "asked": 3, "retry_after": 1.0},
        )
        watches[0].cancel()
        for watch in (watches[1], await first_that_is_taken(health)):
            watch.cancel()


async def first_that_is_taken(health: Health) -> Any:
    """Watch until the daemon has heard that another watcher has left."""
    while True:
        watch = health.watch()
        with suppress(grpc.aio.AioRpcError):
            assert (await watch.read()).status == SERVING
            return watch


async def test_a_name_that_no_kernel_can_have_is_not_watched() -> None:
    async with health_of() as health:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await health.watch("x" * 201).read()
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_a_watcher_that_does_not_read_delays_nobody_and_not_the_end() -> None:
    with (
        serving(str(KERNELS), "--launch", "square", "--grace", "3600") as (daemon, target),
        DeafWatcher(target, "", "square", "echo_job") as deaf,
    ):
        assert await asyncio.to_thread(deaf.has_headers.wait, PATIENCE)
        async with grpc.aio.insecure_channel(target) as channel, asyncio.timeout(PATIENCE):
            health = Health(EmbeddedWire(channel, target), None)  # type: ignore[arg-type]
            for _ in range(3):
                await health.launch("echo_job", "echo_job")
                assert await health.check("echo_job") == SERVING
                await health.wire.terminate("echo_job")
                assert await health.check("echo_job") == NOT_SERVING
            await health.wire.terminate("square")
            assert await health.check("square") == NOT_SERVING
        daemon.ask_to_end()
        assert await asyncio.to_thread(daemon.ended) == 0
