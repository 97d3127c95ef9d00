"""A small neural network behind a mailbox: requests come one by one, and are computed by the batch; on the GPU if
there is one.

    python examples/inference.py                           in this process
    python examples/inference.py --isolated                each actor in a process of its own
    python examples/inference.py --target 127.0.0.1:50051  at a daemon

`classify` gathers what arrives within two milliseconds; `classify_one` is its twin that computes each by itself.
"""

import argparse
import asyncio
from functools import cache
from time import perf_counter
from typing import Annotated, Any

import numpy as np

from pydotcompute import Array, KernelContext, KernelRuntime, RingKernelMessage, RingKernelRuntime, message, ring_kernel

FEATURES, HIDDEN, CLASSES = 1024, 16_384, 10
CLIENTS = 64


@message
class Picture(RingKernelMessage):
    """What the network is asked about."""

    pixels: Annotated[np.ndarray, Array(dtype="float32", shape=(FEATURES,))]


@message
class Scores(RingKernelMessage):
    """How well each class fits."""

    scores: Annotated[np.ndarray, Array(dtype="float32", shape=(CLASSES,))]


@cache
def weights() -> tuple[np.ndarray, np.ndarray]:
    """Those that both kernels use: random, but always the same."""
    dice = np.random.default_rng(1)
    first = dice.standard_normal((FEATURES, HIDDEN), dtype=np.float32) / np.float32(FEATURES**0.5)
    second = dice.standard_normal((HIDDEN, CLASSES), dtype=np.float32) / np.float32(HIDDEN**0.5)
    return first, second


class Network:
    """Two layers, whose weights are brought to where the kernel computes, once."""

    def __init__(self, ctx: KernelContext[Picture, Scores]) -> None:
        self.xp = ctx.xp
        self.first, self.second = map(ctx.to_device, weights())

    def __call__(self, pixels: Any) -> Any:
        """The scores of pictures, a row each; or of a single one. Both are arrays of `ctx.xp`."""
        return self.xp.maximum(pixels @ self.first, 0) @ self.second


@ring_kernel(input_type=Picture, output_type=Scores, device="auto")
async def classify(ctx: KernelContext[Picture, Scores]) -> None:
    """Answers up to 256 pictures with one pass through the network."""
    network = Network(ctx)
    async for batch in ctx.batches(max_size=256, max_delay=0.002):
        await batch.reply(scores=network(batch.stack("pixels")))


@ring_kernel(input_type=Picture, output_type=Scores, device="auto")
async def classify_one(ctx: KernelContext[Picture, Scores]) -> None:
    """Answers each picture with a pass of its own."""
    network = Network(ctx)
    async for picture in ctx:
        scores = await ctx.to_host(network(ctx.to_device(picture.pixels)))
        await ctx.send(Scores(scores=scores, correlation_id=picture.message_id))


async def ask_all(runtime: KernelRuntime, kernel_id: str, pictures: np.ndarray) -> np.ndarray:
    """The scores of pictures, which as many clients ask for at once."""

    async def ask(pixels: np.ndarray) -> np.ndarray:
        reply: Scores = await runtime.send_and_receive(kernel_id, Picture(pixels=pixels), timeout=60.0)
        return reply.scores

    async with asyncio.TaskGroup() as clients:
        asked = [clients.create_task(ask(pixels)) for pixels in pictures]
    return np.stack([each.result() for each in asked])


async def use(runtime: KernelRuntime) -> None:
    pictures = np.random.default_rng(2).standard_normal((CLIENTS, FEATURES), dtype=np.float32)
    scores = {}
    for kernel_id in ("classify", "classify_one"):
        await runtime.launch(kernel_id)
        await runtime.activate(kernel_id)
        await ask_all(runtime, kernel_id, pictures)  # The first time takes longer.
        start = perf_counter()
        scores[kernel_id] = await ask_all(runtime, kernel_id, pictures)
        rate = len(pictures) / (perf_counter() - start)
        telemetry = runtime.get_telemetry(kernel_id)
        batches = f"batches of {telemetry.avg_batch_size:.0f}" if telemetry and telemetry.batches else "one by one"
        print(f"  {kernel_id}: {rate:,.0f} a second, {batches}")
    print(f"Same scores: {np.allclose(scores['classify'], scores['classify_one'], atol=1e-4)}")


async def main(target: str | None, isolated: bool) -> None:
    if target is None:
        async with RingKernelRuntime(isolation="process" if isolated else "none") as runtime:
            await use(runtime)
    else:
        from pydotcompute_client import connect

        async with connect(target, scoped=True) as runtime:
            await use(runtime)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A small neural network behind a mailbox.")
    parser.add_argument("--target", help="HOST:PORT of a daemon; in this process if absent")
    parser.add_argument("--isolated", action="store_true", help="run each actor in a process of its own")
    arguments = parser.parse_args()
    asyncio.run(main(arguments.target, arguments.isolated))
