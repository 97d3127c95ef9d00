"""Vectors as messages: an actor adds them, with CuPy where there is a GPU and with NumPy where there is none.

    python examples/vector_add.py                           in this process
    python examples/vector_add.py --target 127.0.0.1:50051  at a daemon

Where the actor runs decides what adds: with `--target`, it is the daemon's GPU that counts.
"""

import argparse
import asyncio

import numpy as np

from pydotcompute import KernelContext, KernelRuntime, RingKernelMessage, RingKernelRuntime, message, ring_kernel


@message
class VectorAddRequest(RingKernelMessage):
    """Two arrays whose shapes fit together."""

    a: np.ndarray
    b: np.ndarray


@message
class VectorAddResponse(RingKernelMessage):
    """The sum, or why there is none."""

    total: np.ndarray | None = None
    computed_with: str = ""
    error: str | None = None


@ring_kernel(
    kernel_id="vector_add",
    input_type=VectorAddRequest,
    output_type=VectorAddResponse,
    device="auto",
)
async def vector_add_actor(ctx: KernelContext[VectorAddRequest, VectorAddResponse]) -> None:
    """Adds arrays, on the GPU if there is one."""
    async for request in ctx:
        response = VectorAddResponse(computed_with=ctx.xp.__name__, correlation_id=request.message_id)
        try:
            response.total = await ctx.to_host(ctx.to_device(request.a) + ctx.to_device(request.b))
        except ValueError as error:
            response.error = str(error).strip()
        await ctx.send(response)


async def use(runtime: KernelRuntime) -> None:
    await runtime.launch("vector_add")
    await runtime.activate("vector_add")
    million = np.arange(1_000_000, dtype=np.float32)
    for a, b in [
        (np.array([1.0, 2.0, 3.0]), np.array([10.0, 20.0, 30.0])),
        (np.array([[1], [2]], dtype=np.int64), np.array([10, 20], dtype=np.int64)),
        (million, 2 * million),
        (np.zeros(3), np.zeros(4)),
    ]:
        response = await runtime.send_and_receive("vector_add", VectorAddRequest(a=a, b=b), timeout=60.0)
        outcome = f"ERROR: {response.error}"
        if response.total is not None:
            outcome = np.array2string(response.total, threshold=10).replace("\n", "")
        print(f"  {a.dtype}{list(a.shape)} + {b.dtype}{list(b.shape)} = {outcome}")
    print(f"Computed with: {response.computed_with}")


async def main(target: str | None) -> None:
    if target is None:
        async with RingKernelRuntime() as runtime:
            await use(runtime)
    else:
        from pydotcompute_client import connect

        async with connect(target, scoped=True) as runtime:
            await use(runtime)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Vectors as messages.")
    parser.add_argument("--target", help="HOST:PORT of a daemon; in this process if absent")
    asyncio.run(main(parser.parse_args().target))
