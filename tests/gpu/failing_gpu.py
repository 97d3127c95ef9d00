"""A program whose GPU fails: a fault ends CUDA for its process, so it has one of its own.

It prints what the kernel that is at fault, and one that is not, fail with.
"""

import asyncio
from typing import Any

import numpy as np

from pydotcompute import RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.actor.context import KernelContext

FAULT = r"""
extern "C" __global__ void fault(int* nowhere) { *nowhere = 1; }
"""


@message
class Vector(RingKernelMessage):
    """An array."""

    values: np.ndarray


@ring_kernel(input_type=Vector, output_type=Vector, device="cuda", kernel_id="faulty")
async def faulty(ctx: KernelContext[Vector, Vector]) -> None:
    """Writes to where nothing is."""
    fault = ctx.xp.RawKernel(FAULT, "fault")
    async for vector in ctx:
        fault((1,), (1,), (np.uint64(1 << 20),))
        await ctx.synchronize()
        await ctx.send(vector)


@ring_kernel(input_type=Vector, output_type=Vector, device="cuda", kernel_id="innocent")
async def innocent(ctx: KernelContext[Vector, Vector]) -> None:
    """Doubles."""
    async for vector in ctx:
        doubled = await ctx.to_host(ctx.to_device(vector.values) * 2)
        await ctx.send(Vector(doubled, correlation_id=vector.message_id))


async def use(runtime: RingKernelRuntime, kernel_id: str) -> Any:
    try:
        return (await runtime.send_and_receive(kernel_id, Vector(np.ones(1)), timeout=60.0)).values
    except KernelFailedError as error:
        return f"{error.cause_type}: {error.cause_message}".splitlines()[0]


async def main() -> None:
    async with RingKernelRuntime() as runtime:
        for kernel_id in ("innocent", "faulty"):
            await runtime.launch(kernel_id)
            await runtime.activate(kernel_id)
        for kernel_id in ("innocent", "faulty", "innocent"):
            print(await use(runtime, kernel_id))
    print("ended")


asyncio.run(main())
