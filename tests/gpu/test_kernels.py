"""Kernels on a real GPU: what `tests/device/test_kernels.py` shows with a fake, and what a fake cannot show."""

import asyncio
import gc
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pytest

from pydotcompute import RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.device import DeviceMemoryError
from pydotcompute.device.monitor import read_devices
from pydotcompute.exceptions import BackendUnavailableError, KernelFailedError
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.kernel import RingKernel

pytestmark = [pytest.mark.gpu, pytest.mark.usefixtures("cupy")]
# CuPy, not we, warns of the CUDA toolkit that it does not find.
pytestmark.append(pytest.mark.filterwarnings("ignore::UserWarning"))

PATIENCE = 60.0
"""Seconds. The first use of an operation compiles it."""
MEGA = 1 << 20

Context = KernelContext[Any, Any]
Blocking = BlockingContext[Any, Any]


@message
class Vector(RingKernelMessage):
    """An array, and a number."""

    values: np.ndarray
    total: float = 0.0


SPIN = r"""
extern "C" __global__ void spin(long long cycles) {
    long long start = clock64();
    while (clock64() - start < cycles) { }
}
"""


def on(device: str, **settings: Any) -> Callable[[Any], Any]:
    return ring_kernel(input_type=Vector, output_type=Vector, device=device, auto_register=False, **settings)


@pytest.fixture
async def runtime() -> AsyncIterator[RingKernelRuntime]:
    async with RingKernelRuntime() as runtime:
        yield runtime


async def launch(runtime: RingKernelRuntime, actor: Any, kernel_id: str = "kernel") -> RingKernel[Any, Any]:
    kernel = await runtime.launch(kernel_id, actor)
    await kernel.activate()
    return kernel


async def ask(kernel: RingKernel[Any, Any], values: Any) -> Any:
    return await kernel.send_and_receive(Vector(np.asarray(values)), timeout=PATIENCE)


def held(kernel: RingKernel[Any, Any]) -> int:
    count = kernel.get_telemetry().device_memory_bytes
    assert count is not None
    return count


@on("cuda")
async def doubler(ctx: Context) -> None:
    async for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        await ctx.send(Vector(await ctx.to_host(doubled), correlation_id=vector.message_id))


@on("cuda")
def blocking_doubler(ctx: Blocking) -> None:
    for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        ctx.send(Vector(ctx.to_host(doubled), correlation_id=vector.message_id))


@on("cuda")
async def spinner(ctx: Context) -> None:
    """Keeps the GPU busy for so many clock cycles."""
    spin = ctx.xp.RawKernel(SPIN, "spin")
    spin((1,), (1,), (np.int64(1),))
    async for vector in ctx:
        spin((1,), (1,), (np.int64(vector.values[0]),))
        await ctx.synchronize()
        await ctx.send(vector)


@pytest.mark.parametrize("actor", [doubler, blocking_doubler])
@pytest.mark.parametrize(
    "values",
    [
        np.arange(5.0),
        np.zeros((0, 3), "f4"),
        np.float32(2.5),
        np.asfortranarray(np.arange(12, dtype="i8").reshape(3, 4)),
        np.arange(20)[::2],
        np.arange(4 * MEGA, dtype="f4"),
    ],
    ids=["plain", "empty", "no dimension", "Fortran", "strided", "16 MiB"],
)
async def test_every_array_comes_back_whole(runtime: RingKernelRuntime, actor: Any, values: Any) -> None:
    kernel = await launch(runtime, actor)
    for _ in range(3):
        reply = await ask(kernel, values)
        np.testing.assert_array_equal(reply.values, np.asarray(values) * 2)
        assert reply.values.dtype == np.asarray(values).dtype


async def test_the_stream_of_a_kernel_is_current_in_it_and_nowhere_else(runtime: RingKernelRuntime, cupy: Any) -> None:
    seen: list[bool] = []

    @on("cuda")
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            for _ in range(5):
                seen.append(cupy.cuda.get_current_stream() == ctx.stream and ctx.stream.ptr != 0)
                await asyncio.sleep(0)
            await ctx.send(vector)

    first, second = await launch(runtime, actor, "first"), await launch(runtime, actor, "second")
    assert first.lease.stream != second.lease.stream
    await asyncio.gather(ask(first, [1.0]), ask(second, [1.0]))
    assert seen == [True] * 10
    assert cupy.cuda.get_current_stream() == cupy.cuda.Stream.null


async def test_while_one_waits_for_the_gpu_the_event_loop_goes_on(runtime: RingKernelRuntime) -> None:
    kernel = await launch(runtime, spinner)
    await ask(kernel, [1])
    cycles = 1 << 24
    while True:  # Until it takes long enough to be seen, whatever the clock of this GPU.
        start = perf_counter()
        await ask(kernel, [cycles])
        if perf_counter() - start > 0.2:
            break
        cycles *= 2
    longest, last = 0.0, perf_counter()
    asked = asyncio.create_task(ask(kernel, [cycles]))
    while not asked.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, perf_counter() - last), perf_counter()
    await asked
    assert longest < 0.1


async def test_a_thread_and_a_coroutine_share_the_gpu(runtime: RingKernelRuntime) -> None:
    kernels = [await launch(runtime, actor, str(index)) for index, actor in enumerate([doubler, blocking_doubler] * 2)]
    sent = [index * 10 + number for index in range(4) for number in range(5)]
    replies = await asyncio.gather(*(ask(kernels[value // 10], np.full(MEGA, value)) for value in sent))
    assert [np.unique(reply.values).tolist() for reply in replies] == [[2 * value] for value in sent]


async def test_a_batch_is_computed_at_once(runtime: RingKernelRuntime, cupy: Any) -> None:
    @on("cuda")
    async def actor(ctx: Context) -> None:
        async for batch in ctx.batches(max_size=8, max_delay=PATIENCE):
            stacked = batch.stack("values")
            assert isinstance(stacked, cupy.ndarray)
            await batch.reply(values=stacked + 1, total=stacked.sum(axis=1))

    kernel = await launch(runtime, actor)
    replies = await asyncio.gather(*(ask(kernel, [number, number]) for number in range(8)))
    assert [reply.values.tolist() for reply in replies] == [[n + 1, n + 1] for n in range(8)]
    assert [reply.total for reply in replies] == [2.0 * n for n in range(8)]


@on("cuda", memory_limit="64MiB")
async def hoarder(ctx: Context) -> None:
    hoard = []
    async for vector in ctx:
        hoard.append(ctx.xp.ones(int(vector.values[0]), "u1"))
        await ctx.send(vector)


async def free_bytes(cupy: Any) -> int:
    gc.collect()
    cupy.cuda.Device(0).synchronize()
    free: int = cupy.cuda.runtime.memGetInfo()[0]
    return free


async def test_all_memory_is_given_back_at_the_end(runtime: RingKernelRuntime, cupy: Any) -> None:
    await ask(await launch(runtime, hoarder, "first"), [MEGA])  # What CUDA itself takes at the first use.
    before = await free_bytes(cupy)
    kernel = await launch(runtime, hoarder)
    await ask(kernel, [32 * MEGA])
    assert held(kernel) >= 32 * MEGA
    assert await free_bytes(cupy) <= before - 32 * MEGA
    await kernel.terminate()
    assert held(kernel) == 0
    assert kernel.get_telemetry().device_memory_peak_bytes >= 32 * MEGA  # type: ignore[operator]
    assert await free_bytes(cupy) >= before - MEGA


async def test_too_much_memory_fails_that_kernel_alone(runtime: RingKernelRuntime, cupy: Any) -> None:
    kernel, other = await launch(runtime, hoarder), await launch(runtime, doubler, "other")
    await ask(kernel, [48 * MEGA])
    with pytest.raises(KernelFailedError, match="its memory_limit is 64 MiB") as failed:
        await ask(kernel, [32 * MEGA])
    assert failed.value.cause_type == DeviceMemoryError.__name__
    np.testing.assert_array_equal((await ask(other, [1.0])).values, [2.0])
    await kernel.terminate()
    assert held(kernel) == 0


async def test_what_the_pool_keeps_is_no_reason_to_fail(runtime: RingKernelRuntime) -> None:
    @on("cuda", memory_limit="64MiB")
    async def actor(ctx: Context) -> None:
        async for vector in ctx:
            ctx.xp.ones(int(vector.values[0]), "u1")
            await ctx.send(vector)

    kernel = await launch(runtime, actor)
    for size in (10, 20, 40, 60):  # None of them fits where one before was.
        await ask(kernel, [size * MEGA])
    assert held(kernel) <= 64 * MEGA


@pytest.mark.timeout(300)
def test_a_fault_fails_the_kernels_of_its_process_and_not_the_process() -> None:
    program = Path(__file__).with_name("failing_gpu.py")
    ran = subprocess.run([sys.executable, str(program)], capture_output=True, encoding="utf-8", timeout=2 * PATIENCE)
    first, faulty, second, last = ran.stdout.splitlines()
    assert (first, last, ran.returncode) == ("[2.]", "ended", 0), ran.stderr
    for line in (faulty, second):
        assert line.startswith("CUDARuntimeError: cudaError"), line


async def test_an_index_that_is_not_there_is_refused_with_those_that_are(runtime: RingKernelRuntime) -> None:
    with pytest.raises(BackendUnavailableError, match=r"there is no device of index 99; devices: [1-9]"):
        await runtime.launch("kernel", on("cuda:99")(lambda ctx: None))


def test_the_driver_tells_of_the_gpus() -> None:
    pytest.importorskip("pynvml", reason="nvidia-ml-py is not installed")
    reading = read_devices()[0]
    assert reading.name
    assert reading.uuid
    assert reading.memory_total_bytes is not None
    assert reading.memory_total_bytes > 0
