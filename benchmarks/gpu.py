"""What the GPU path of a kernel costs, in-process: `python benchmarks/gpu.py [--seconds 2]`.

It has not been run yet: the machines on which it was written have no GPU. It exits with 1 and the reason where there is
none.
"""

import argparse
import asyncio
import platform
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Annotated, Any

import numpy as np

from pydotcompute import Array, RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import BackendUnavailableError
from pydotcompute.ring_kernels.actor.context import KernelContext

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "examples"))

import inference

SIZES = [1 << 10, 1 << 20, 16 << 20, 64 << 20]
"""Bytes of an array."""
BATCH = 256

Context = KernelContext[Any, Any]


@message
class Vector(RingKernelMessage):
    """An array."""

    values: np.ndarray


@message
class Staying(RingKernelMessage):
    """An array that stays on the GPU between kernels of it."""

    values: Annotated[np.ndarray, Array(on_device=True)]


def kernel_type(actor: Any) -> Any:
    return ring_kernel(input_type=Vector, output_type=Vector, device="cuda", auto_register=False)(actor)


def stage_type(actor: Any) -> Any:
    return ring_kernel(input_type=Staying, output_type=Vector, device="cuda", auto_register=False)(actor)


@kernel_type
async def stepping(ctx: Context) -> None:
    """Echoes: what is left is the price of entering the device and the stream at each step."""
    async for vector in ctx:
        await ctx.send(vector)


@kernel_type
async def waiting(ctx: Context) -> None:
    """A wait for a device that has nothing to do."""
    async for vector in ctx:
        await ctx.synchronize()
        await ctx.send(vector)


@kernel_type
async def round_trip(ctx: Context) -> None:
    """To the device, one operation, and back."""
    async for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        await ctx.send(Vector(await ctx.to_host(doubled), correlation_id=vector.message_id))


@kernel_type
async def batched(ctx: Context) -> None:
    """Likewise, by the batch."""
    async for batch in ctx.batches(max_size=BATCH):
        await batch.reply(values=batch.stack("values") * 2)


@kernel_type
async def by_reference(ctx: Context) -> None:
    """To the device, and on to a kernel that brings it back."""
    async for vector in ctx:
        await ctx.forward("back", Staying(ctx.to_device(vector.values), correlation_id=vector.message_id))


@stage_type
async def back(ctx: Context) -> None:
    """The last stage."""
    async for vector in ctx:
        doubled = ctx.to_device(vector.values) * 2
        await ctx.send(Vector(await ctx.to_host(doubled), correlation_id=vector.message_id))


@kernel_type
async def by_the_host(ctx: Context) -> None:
    """To the device, and on by way of the host."""
    async for vector in ctx:
        values = await ctx.to_host(ctx.to_device(vector.values))
        await ctx.forward("back", Staying(values, correlation_id=vector.message_id))


async def median(call: Callable[[], Awaitable[Any]], seconds: float) -> float:
    """The median time of a call in microseconds; the first calls, which compile, do not count."""
    for _ in range(3):
        await call()
    times: list[float] = []
    end = perf_counter() + seconds
    while perf_counter() < end or len(times) < 5:
        start = perf_counter()
        await call()
        times.append(perf_counter() - start)
    return float(np.median(times)) * 1e6


async def measure(seconds: float) -> None:
    async with RingKernelRuntime() as runtime:

        async def start(actor: Any, name: str) -> Callable[[Any], Awaitable[Any]]:
            kernel = await runtime.launch(name, actor)
            await kernel.activate()

            async def call(values: Any) -> None:
                reply = await kernel.send_and_receive(Vector(values), timeout=60.0)
                if (
                    actor in (round_trip, batched, by_reference, by_the_host)
                    and reply.values.flat[-1] != 2 * values.flat[-1]
                ):
                    raise RuntimeError("a wrong reply")

            return call

        few = np.ones(4, "f4")
        echo, wait = await start(stepping, "stepping"), await start(waiting, "waiting")
        device = runtime.kernel("stepping").lease
        print(f"{device.device} {device.device.name}, CuPy {device.xp.__version__}, Python {platform.python_version()}")
        print(f"echo, no work on the device   {await median(lambda: echo(few), seconds):10.1f} us")
        print(f"synchronize, idle device      {await median(lambda: wait(few), seconds):10.1f} us")
        trip = await start(round_trip, "round_trip")
        for size in SIZES:
            values = np.ones(size // 4, "f4")
            taken = await median(partial(trip, values), seconds)
            print(f"there and back, {size >> 10:8} KiB  {taken:10.1f} us  {2 * size / taken / 1000:8.2f} GB/s")
        await start(back, "back")
        for actor, name in ((by_reference, "by reference"), (by_the_host, "by the host ")):
            forward = await start(actor, name)
            for size in SIZES:
                values = np.ones(size // 4, "f4")
                taken = await median(partial(forward, values), seconds)
                print(f"forwarded {name}, {size >> 10:8} KiB  {taken:10.1f} us")
        batch = await start(batched, "batched")

        async def together() -> None:
            await asyncio.gather(*(batch(few) for _ in range(BATCH)))

        taken = await median(together, seconds)
        print(f"a batch of {BATCH}                {taken:10.1f} us  {taken / BATCH:8.2f} us a message")
        for network in (inference.classify, inference.classify_one):
            await infer(runtime, network, seconds)


async def infer(runtime: RingKernelRuntime, network: Any, seconds: float) -> None:
    """The network of examples/inference.py, of which many pictures are asked at once."""
    kernel = await runtime.launch(network.__name__, network)
    await kernel.activate()
    pictures = np.random.default_rng(2).standard_normal((BATCH, inference.FEATURES), dtype=np.float32)
    taken = await median(lambda: inference.ask_all(runtime, network.__name__, pictures), seconds)
    print(f"{network.__name__:12}, {BATCH} at once       {taken:10.1f} us  {BATCH / taken * 1e6:8.0f} a second")


def main() -> int:
    parser = argparse.ArgumentParser(description="What the GPU path of a kernel costs.")
    parser.add_argument("--seconds", type=float, default=2.0, help="for each figure")
    try:
        asyncio.run(measure(parser.parse_args().seconds))
    except BackendUnavailableError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
