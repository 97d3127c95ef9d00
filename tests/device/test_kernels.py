"""Kernels on a GPU, as far as a fake of CuPy shows what they ask of it."""

import asyncio
import gc
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from pydotcompute import RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.device import Device, DeviceMemoryError
from pydotcompute.exceptions import BackendUnavailableError, KernelFailedError, KernelStateError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelType, kernel_type_of
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.supervision import Supervision
from tests.fake_cupy import ILLEGAL_ADDRESS, CUDARuntimeError, FakeCuda

PATIENCE = 10.0
Context = KernelContext[Any, Any]
Blocking = BlockingContext[Any, Any]


@message
class Vector(RingKernelMessage):
    """An array, and a number."""

    values: np.ndarray
    total: float = 0.0


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    return use(monkeypatch, FakeCuda(devices=2))


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as runtime:
        yield runtime


def use(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> FakeCuda:
    for name, module in cuda.modules().items():
        monkeypatch.setitem(sys.modules, name, module)
    return cuda


def on(device: str, **settings: Any) -> Callable[[Any], Any]:
    return ring_kernel(input_type=Vector, output_type=Vector, device=device, auto_register=False, **settings)


async def launch(runtime: RingKernelRuntime, actor: Any, kernel_id: str = "kernel") -> RingKernel[Any, Any]:
    kernel = await runtime.launch(kernel_id, actor)
    await kernel.activate()
    return kernel


async def ask(kernel: RingKernel[Any, Any], *values: float) -> Any:
    return await kernel.send_and_receive(Vector(np.array(values)), timeout=PATIENCE)


async def eventually(predicate: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not predicate():  # noqa: ASYNC110  # What is asked is a counter, and no event.
            await asyncio.sleep(0.001)


@on("cuda")
async def doubler(ctx: Context) -> None:
    async for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        await ctx.send(Vector(await ctx.to_host(doubled), correlation_id=vector.message_id))


@on("cuda:1")
def blocking_doubler(ctx: Blocking) -> None:
    for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        ctx.send(Vector(ctx.to_host(doubled), correlation_id=vector.message_id))


# -- which device ------------------------------------------------------------------------------------------------------


async def refusal(runtime: RingKernelRuntime, device: str) -> str:
    @on(device)
    async def actor(ctx: Context) -> None:
        raise AssertionError("it is not run")

    with pytest.raises(BackendUnavailableError) as refused:
        await runtime.launch("kernel", actor)
    assert refused.value.backend == device
    assert runtime.kernel_ids == []
    return refused.value.problem


async def test_without_cupy_a_gpu_is_refused_with_what_to_install(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    problem = await refusal(runtime, "cuda")
    assert problem == "CuPy is not installed; pip install 'pydotcompute-grpc[cuda12]'"


async def test_without_a_driver_a_gpu_is_refused_with_what_cuda_says(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeCuda(driver=False))
    problem = await refusal(runtime, "cuda:0")
    assert "cudaErrorInsufficientDriver" in problem
    assert "install an NVIDIA driver" in problem


async def test_without_a_toolkit_a_gpu_is_refused_with_what_cupy_says(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    use(monkeypatch, FakeCuda(toolkit=False))
    problem = await refusal(runtime, "cuda")
    assert problem == (
        'CuPy fake finds no CUDA toolkit (Failure finding "libnvrtc.so"); '
        "install one, or pip install 'cupy-cuda12x[ctk]'"
    )


async def test_an_index_that_is_not_there_is_refused_with_those_that_are(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    problem = await refusal(runtime, "cuda:2")
    assert problem == "there is no device of index 2; devices: 2 (cuda:0 Fake 0, cuda:1 Fake 1)"


@pytest.mark.parametrize("driver", [True, False])
async def test_auto_is_the_first_gpu_or_the_cpu(
    runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch, driver: bool
) -> None:
    use(monkeypatch, FakeCuda(driver=driver))
    seen: list[Any] = []

    @on("auto")
    async def actor(ctx: Context) -> None:
        seen.extend([ctx.device, ctx.xp.__name__, ctx.stream is None])
        async for _ in ctx:
            pass

    await launch(runtime, actor)
    assert seen == ([Device("cuda", 0, "Fake 0"), "cupy", False] if driver else [Device("cpu"), "numpy", True])


async def test_a_launch_can_be_tried_again(runtime: RingKernelRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailableError):
        await runtime.launch("kernel", doubler)
    use(monkeypatch, FakeCuda())
    await launch(runtime, doubler)


async def test_a_kernel_that_is_terminated_while_its_device_is_looked_for_is_not_launched(cuda: FakeCuda) -> None:
    kernel: RingKernel[Any, Any] = RingKernel(
        "kernel", KernelType("doubler", doubler, RingKernelConfig("doubler"), device="cuda")
    )
    launching = asyncio.create_task(kernel.launch())
    await asyncio.sleep(0)
    await kernel.terminate()
    with pytest.raises(KernelStateError):
        await launching
    assert kernel.state is KernelState.TERMINATED


# -- streams -----------------------------------------------------------------------------------------------------------


async def test_its_stream_is_current_at_each_of_its_steps_and_at_nobody_elses(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    seen: dict[str, list[tuple[bool, int]]] = {}

    def watching(device: str) -> Any:
        @on(device)
        async def actor(ctx: Context) -> None:
            async for vector in ctx:
                for _ in range(5):
                    seen.setdefault(ctx.kernel_id, []).append((cuda.stream is ctx.stream, cuda.current.device))
                    await asyncio.sleep(0)
                await ctx.send(vector)

        return actor

    kernels = [await launch(runtime, watching(f"cuda:{index}"), str(index)) for index in range(2)]
    assert len({id(kernel.lease.stream) for kernel in kernels}) == 2
    await asyncio.gather(*(ask(kernel, 1.0) for kernel in kernels))
    assert seen == {str(index): [(True, index)] * 5 for index in range(2)}
    assert (cuda.stream, cuda.current.device, cuda.current.allocator) == (None, 0, None)


async def test_a_thread_has_its_stream_to_itself(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    seen: list[Any] = []

    @on("cuda:1")
    def actor(ctx: Blocking) -> None:
        for vector in ctx:
            seen.append((cuda.stream is ctx.stream, cuda.current.device, ctx.device.name, ctx.xp.__name__))
            ctx.synchronize()
            ctx.send(vector)

    kernel = await launch(runtime, actor)
    await ask(kernel, 1.0)
    assert seen == [(True, 1, "Fake 1", "cupy")]
    assert cuda.waited_in == ["ring kernel kernel"]
    assert cuda.stream is None


async def test_while_one_waits_for_its_device_others_go_on(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    @on("cpu")
    async def echo(ctx: Context) -> None:
        async for vector in ctx:
            await ctx.send(vector)

    slow, other = await launch(runtime, doubler, "slow"), await launch(runtime, echo, "other")
    cuda.busy = 1 << 30
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(ask(slow, 3.0))
        for _ in range(10):
            await ask(other, 1.0)
        await eventually(lambda: slow.queue_depth == 0)
        assert not waiting.done()
        cuda.busy = 0
    assert waiting.result().values.tolist() == [6.0]
    assert cuda.waited_in == [], "nobody has blocked the event loop"


async def test_one_that_waits_for_a_device_that_never_answers_can_be_terminated(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    kernel = await launch(runtime, doubler)
    cuda.busy = 1 << 30
    await kernel.send(Vector(np.ones(3)))
    await eventually(lambda: kernel.queue_depth == 0)
    await kernel.terminate(timeout=0.01)
    assert kernel.state is KernelState.TERMINATED


# -- arrays ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("actor", [doubler, blocking_doubler])
async def test_arrays_go_to_the_device_and_come_back_by_way_of_pinned_memory(
    runtime: RingKernelRuntime, cuda: FakeCuda, actor: Any
) -> None:
    kernel = await launch(runtime, actor)
    assert (await ask(kernel, 1.0, 2.0)).values.tolist() == [2.0, 4.0]
    assert cuda.pinned == 1


async def test_a_reply_is_brought_to_the_host_without_blocking_the_loop(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    @on("cuda")
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            reply = Vector(vector.values, correlation_id=vector.message_id)
            reply.values = ctx.to_device(vector.values) + 1
            await ctx.send(reply)

    cuda.busy = 3
    reply = await ask(await launch(runtime, actor), 1.0, 2.0)
    assert type(reply.values) is np.ndarray
    assert reply.values.tolist() == [2.0, 3.0]
    assert cuda.waited_in == []


@pytest.mark.parametrize("blocking", [False, True])
async def test_a_batch_is_stacked_on_the_device_and_answered_with_one_copy_a_column(
    runtime: RingKernelRuntime, cuda: FakeCuda, blocking: bool
) -> None:
    seen: list[Any] = []

    def columns(ctx: Any, batch: Any) -> dict[str, Any]:
        stacked = batch.stack("values")
        seen.append((type(stacked) is ctx.xp.ndarray, stacked.shape))
        return {"values": stacked * 2, "total": stacked.sum()}

    @on("cuda")
    async def actor(ctx: Context) -> None:
        async for batch in ctx.batches(max_size=3, max_delay=PATIENCE):
            await batch.reply(**columns(ctx, batch))

    @on("cuda")
    def blocking_actor(ctx: Blocking) -> None:
        for batch in ctx.batches(max_size=3, max_delay=PATIENCE):
            batch.reply(**columns(ctx, batch))

    kernel = await launch(runtime, blocking_actor if blocking else actor)
    replies = await asyncio.gather(*(ask(kernel, number, number) for number in range(3)))
    assert [reply.values.tolist() for reply in replies] == [[0, 0], [2, 2], [4, 4]]
    assert {reply.total for reply in replies} == {6.0}
    assert seen == [(True, (3, 2))]
    assert cuda.pinned == 2
    assert [name for name in cuda.waited_in if "get" in name] == []


async def test_on_the_cpu_the_same_actor_has_numpy(runtime: RingKernelRuntime) -> None:
    seen: list[Any] = []

    @on("cpu")
    async def actor(ctx: Context) -> None:
        async for batch in ctx.batches(max_size=2):
            stacked = batch.stack("values")
            await ctx.synchronize()
            seen.append((type(stacked), type(await ctx.to_host(ctx.to_device(stacked)))))
            await batch.reply(values=stacked + 1, total=stacked.sum())

    assert (await ask(await launch(runtime, actor), 1.0)).values.tolist() == [2.0]
    assert seen == [(np.ndarray, np.ndarray)]


# -- memory ------------------------------------------------------------------------------------------------------------


def held(kernel: RingKernel[Any, Any]) -> tuple[int | None, int | None]:
    telemetry = kernel.get_telemetry()
    return telemetry.device_memory_bytes, telemetry.device_memory_peak_bytes


@on("cuda", memory_limit="1MiB")
async def hoarder(ctx: Context) -> None:
    """Keeps every array that it is sent on the device."""
    hoard = []
    async for vector in ctx:
        hoard.append(ctx.to_device(vector.values))
        await ctx.send(Vector(vector.values[:0], correlation_id=vector.message_id))


@on("cuda", memory_limit="1MiB")
def blocking_hoarder(ctx: Blocking) -> None:
    """Likewise."""
    hoard = []
    for vector in ctx:
        hoard.append(ctx.to_device(vector.values))
        ctx.send(Vector(vector.values[:0], correlation_id=vector.message_id))


HOARDERS = pytest.mark.parametrize("actor", [hoarder, blocking_hoarder])


@HOARDERS
async def test_telemetry_tells_what_each_kernel_holds(runtime: RingKernelRuntime, cuda: FakeCuda, actor: Any) -> None:
    kernel, other = await launch(runtime, actor), await launch(runtime, hoarder, "other")
    assert held(kernel) == (0, 0)
    await ask(kernel, *[0.0] * 128)
    assert held(kernel) == (1024, 1024)
    assert held(other) == (0, 0)


async def test_on_the_cpu_it_tells_nothing_and_not_zero(runtime: RingKernelRuntime) -> None:
    @on("cpu")
    async def actor(ctx: Context) -> None:
        async for _ in ctx:
            pass

    assert held(await launch(runtime, actor)) == (None, None)


@HOARDERS
async def test_what_it_holds_is_given_back_when_it_is_terminated(
    runtime: RingKernelRuntime, cuda: FakeCuda, actor: Any
) -> None:
    kernel = await launch(runtime, actor)
    await ask(kernel, *[0.0] * 128)
    gc.disable()  # It would hide that something keeps the arrays for no reason but a circle.
    try:
        await kernel.terminate()
        assert held(kernel) == (0, 1024)
        assert cuda.pools[0].total_bytes() == 0
    finally:
        gc.enable()


@HOARDERS
async def test_one_that_asks_for_too_much_fails_and_gives_all_back_while_others_go_on(
    runtime: RingKernelRuntime, cuda: FakeCuda, actor: Any
) -> None:
    kernel, other = await launch(runtime, actor), await launch(runtime, doubler, "other")
    await ask(kernel, *[0.0] * 65_536)
    with pytest.raises(KernelFailedError) as failed:
        await ask(kernel, *[0.0] * 131_072)
    assert failed.value.cause_type == DeviceMemoryError.__name__
    assert failed.value.cause_message == (
        "kernel 'kernel' holds 512 KiB of cuda:0 and asks for 1 MiB more; its memory_limit is 1 MiB"
    )
    assert isinstance(failed.value.__cause__, MemoryError)
    del failed
    gc.collect()
    await eventually(lambda: held(kernel)[0] == 0)
    assert kernel.state.name == "FAILED"
    assert (await ask(other, 1.0)).values.tolist() == [2.0]
    await kernel.terminate()
    assert kernel.state is KernelState.TERMINATED


@HOARDERS
async def test_one_that_is_started_again_has_its_memory_back(
    runtime: RingKernelRuntime, cuda: FakeCuda, actor: Any
) -> None:
    kernel_type = kernel_type_of(actor)
    assert kernel_type is not None
    kernel = await launch(runtime, replace(kernel_type, supervision=Supervision("on_failure")))
    for _ in range(2):  # The second time it would hold twice as much.
        await ask(kernel, *[0.0] * 65_536)
        with pytest.raises(KernelFailedError, match="holds 512 KiB of cuda:0") as failed:
            await ask(kernel, *[0.0] * 131_072)
        del failed
        gc.collect()
        await eventually(lambda: kernel.is_serving)
    assert kernel.get_telemetry().restarts == 2


async def test_an_actor_can_catch_it_and_go_on(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    @on("cuda", memory_limit=1024)
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            try:
                ctx.to_device(vector.values)
            except DeviceMemoryError:
                vector.total = -1.0
            await ctx.send(vector)

    kernel = await launch(runtime, actor)
    assert (await ask(kernel, *[0.0] * 200)).total == -1.0
    assert (await ask(kernel, 0.0)).total == 0.0


async def test_what_its_pool_keeps_is_no_reason_to_fail(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    @on("cuda", memory_limit="1MiB")
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            await ctx.send(Vector(await ctx.to_host(ctx.to_device(vector.values)), correlation_id=vector.message_id))

    kernel = await launch(runtime, actor)
    for count in (10_000, 50_000, 100_000, 130_000):  # None of them fits where one before was.
        await ask(kernel, *[0.0] * count)
    assert kernel.get_telemetry().device_memory_peak_bytes == 130_000 * 8 + 384, "never more than it may"


async def test_what_someone_else_has_of_it_is_given_back_when_they_let_go(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    kept: list[Any] = []

    @on("cuda")
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            kept.append(ctx.to_device(vector.values))
            await ctx.send(vector)

    kernel = await launch(runtime, actor)
    await ask(kernel, *[0.0] * 128)
    await kernel.terminate()
    assert held(kernel) == (1024, 1024), "to free it would be to take it out of their hands"
    kept.clear()
    await launch(runtime, doubler, "other")
    assert cuda.pools[0].total_bytes() == 0


async def test_a_device_that_fails_fails_its_kernels_and_not_the_runtime(
    runtime: RingKernelRuntime, cuda: FakeCuda
) -> None:
    kernel, other = await launch(runtime, doubler), await launch(runtime, doubler, "other")
    cuda.busy = 1 << 30
    async with asyncio.TaskGroup() as group:
        waiting = group.create_task(failure(ask(kernel, 1.0)))
        await eventually(lambda: len(cuda.events) > 0)
        cuda.failure = ILLEGAL_ADDRESS
    for failed in (waiting.result(), await failure(ask(other, 1.0))):
        assert failed.cause_type == CUDARuntimeError.__name__
        assert "IllegalAddress" in failed.cause_message
    with pytest.raises(BackendUnavailableError, match="IllegalAddress"):
        await launch(runtime, doubler, "a new one")
    for each in (kernel, other):
        await each.terminate()
        assert each.state is KernelState.TERMINATED
        assert held(each)[0] is not None


async def failure(outcome: Awaitable[Any]) -> KernelFailedError:
    with pytest.raises(KernelFailedError) as failed:
        await outcome
    return failed.value


async def test_a_failed_kernel_stays_failed_until_it_is_terminated(runtime: RingKernelRuntime, cuda: FakeCuda) -> None:
    @on("cuda")
    async def actor(ctx: Context) -> None:
        await ctx.receive()
        cuda.busy = 1 << 30
        raise ValueError("as told")

    states: list[KernelState] = []
    kernel = await launch(runtime, actor)
    kernel.gate.on_state = lambda: states.append(kernel.state)
    with pytest.raises(KernelFailedError):
        await ask(kernel, 1.0)
    await kernel.terminate(timeout=0.01)
    assert states == [KernelState.FAILED, KernelState.TERMINATED], "also while it waits for its device"


async def test_its_device_is_looked_for_beside_the_event_loop(
    runtime: RingKernelRuntime, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CuPy takes a second to import, and CUDA another to begin."""
    asked_in: list[threading.Thread] = []
    count = sys.modules["cupy"].cuda.runtime.getDeviceCount

    def counting() -> int:
        asked_in.append(threading.current_thread())
        return count()  # type: ignore[no-any-return]

    monkeypatch.setattr(sys.modules["cupy"].cuda.runtime, "getDeviceCount", counting)
    await launch(runtime, doubler)
    assert len(asked_in) == 1
    assert asked_in[0] is not threading.current_thread()
