"""Arrays that stay on a real GPU from kernel to kernel: what `tests/device/test_forwarding.py` shows with a fake,
and that the streams do not overtake each other.
"""

import gc
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any

import numpy as np
import pytest

from pydotcompute import Array, RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.kernel import RingKernel

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cupy")]
# CuPy, not we, warns of the CUDA toolkit that it does not find.
pytestmark.append(pytest.mark.filterwarnings("ignore::UserWarning"))

PATIENCE = 60.0
MEGA = 1 << 20
CYCLES = 1 << 28
"""A tenth of a second or more, whatever the clock of this GPU."""
SPIN = r"""
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) { }
}
"""

Context = KernelContext[Any, Any]


@message
class Samples(RingKernelMessage):
    """What a client sends, and hears."""

    values: np.ndarray


@message
class Staying(RingKernelMessage):
    """An array that stays on the GPU."""

    values: Annotated[np.ndarray, Array(on_device=True)]


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as runtime:
        yield runtime


def keep_busy(ctx: Any) -> None:
    """The stream of this kernel, for a while."""
    ctx.xp.RawKernel(SPIN, "spin")((1,), (1,), (np.int64(CYCLES),))


def sender(sent: list[int], device: str = "cuda") -> Any:
    """Forwards twice what it receives, which takes a while to compute."""

    async def actor(ctx: Context) -> None:
        async for request in ctx:
            values = ctx.to_device(request.values)
            keep_busy(ctx)
            doubled = values * 2
            sent.append(doubled.data.ptr)
            onward: Staying | None = Staying(doubled, correlation_id=request.message_id)
            doubled = None
            await ctx.forward("last", onward)
            onward = None

    return ring_kernel(input_type=Samples, output_type=Samples, device=device, auto_register=False)(actor)


def receiver(work: Callable[[Any, Any], Any], device: str = "cuda") -> Any:
    """Replies with what `work` makes of what it receives."""

    async def actor(ctx: Context) -> None:
        async for request in ctx:
            message_id = request.message_id
            made = work(ctx, request)
            request = None
            await ctx.send(Samples(await ctx.to_host(made), correlation_id=message_id))

    return ring_kernel(input_type=Staying, output_type=Samples, device=device, auto_register=False)(actor)


async def start(runtime: RingKernelRuntime, **actors: Any) -> list[RingKernel[Any, Any]]:
    kernels = [await runtime.launch(kernel_id, actor) for kernel_id, actor in actors.items()]
    for kernel in kernels:
        await kernel.activate()
    return kernels


async def ask(kernel: RingKernel[Any, Any], values: Any) -> Any:
    return await kernel.send_and_receive(Samples(np.asarray(values)), timeout=PATIENCE)


async def test_it_is_the_same_array_and_computed(runtime: RingKernelRuntime, cupy: Any) -> None:
    sent: list[int] = []
    received: list[int] = []

    def work(ctx: Any, request: Any) -> Any:
        assert isinstance(request.values, cupy.ndarray)
        received.append(request.values.data.ptr)
        return request.values[1:] + 1

    kernel, last = await start(runtime, first=sender(sent), last=receiver(work))
    for _ in range(3):
        request = Samples(np.full(MEGA, 20, "f4"))
        reply = await kernel.send_and_receive(request, timeout=PATIENCE)
        assert reply.correlation_id == request.message_id
        assert np.unique(reply.values).tolist() == [41]
    assert received == sent
    assert last.get_telemetry().device_memory_peak_bytes < 3 * 4 * MEGA  # type: ignore[operator]


async def test_its_memory_is_not_used_again_while_the_receivers_stream_is_at_work(runtime: RingKernelRuntime) -> None:
    made: list[Any] = []

    async def careless(ctx: Context) -> None:
        async for request in ctx:
            keep_busy(ctx)
            made.append(request.values + 1)  # Computed long after the array is let go of.
            await ctx.send(Samples(np.zeros(1), correlation_id=request.message_id))

    declare = ring_kernel(input_type=Staying, output_type=Samples, device="cuda", auto_register=False)
    sent: list[int] = []
    kernel, last = await start(runtime, first=sender(sent), last=declare(careless))
    for number in range(8):
        await ask(kernel, np.full(MEGA, number, "f4"))
    assert len(set(sent)) < len(sent), "or nothing is shown: no memory was used again"
    await last.lease.synchronize()
    assert [np.unique(array.get()).tolist() for array in made] == [[2 * number + 1] for number in range(8)]


async def test_a_kernel_on_the_cpu_gets_it_on_the_host(runtime: RingKernelRuntime) -> None:
    kernel, _ = await start(runtime, first=sender([]), last=receiver(lambda ctx, request: request.values + 1, "cpu"))
    assert np.unique((await ask(kernel, np.full(MEGA, 20, "f4"))).values).tolist() == [41]


async def test_a_kernel_on_another_gpu_gets_it_by_way_of_the_host(runtime: RingKernelRuntime, cupy: Any) -> None:
    if cupy.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("there is one GPU")
    work = receiver(lambda ctx, request: ctx.to_device(request.values) + 1, "cuda:1")
    kernel, _ = await start(runtime, first=sender([]), last=work)
    assert np.unique((await ask(kernel, np.full(MEGA, 20, "f4"))).values).tolist() == [41]


async def test_what_the_receiver_has_outlives_its_sender(runtime: RingKernelRuntime, cupy: Any) -> None:
    kept: list[Any] = []

    def work(ctx: Any, request: Any) -> Any:
        kept.append(request.values)
        return np.zeros(1)

    kernel, last = await start(runtime, first=sender([]), last=receiver(work))
    await ask(kernel, np.full(MEGA, 20, "f4"))
    await kernel.terminate()
    held = kernel.get_telemetry().device_memory_bytes
    assert held is not None
    assert held >= 4 * MEGA
    assert np.unique(kept[0].get()).tolist() == [40]
    await last.terminate()
    kept.clear()
    gc.collect()
    assert kernel.get_telemetry().device_memory_bytes == 0


async def test_a_reply_leaves_the_gpu_where_it_leaves_the_process() -> None:
    async def actor(ctx: Context) -> None:
        async for request in ctx:
            await ctx.send(Staying(ctx.to_device(request.values) * 2, correlation_id=request.message_id))

    declared = ring_kernel(input_type=Samples, output_type=Staying, device="cuda", auto_register=False)(actor)
    for sends_to_host in (False, True):
        async with RingKernelRuntime(sends_to_host=sends_to_host) as runtime:
            (kernel,) = await start(runtime, kernel=declared)
            values = (await ask(kernel, np.ones(MEGA))).values
            assert isinstance(values, np.ndarray) is sends_to_host
            assert float(values.sum()) == 2 * MEGA
