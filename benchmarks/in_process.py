"""The calculator in one process: this project in its own environment, the peer when the peer's Python runs this file.

`ping_pong` and `transfer` are also what remote.py measures: the same code on a remote runtime.
"""

import asyncio
from typing import TYPE_CHECKING

from calculator_kernel import CalculationRequest
from measure import Metrics, latency, main, rate_of

from pydotcompute import RingKernelRuntime

if TYPE_CHECKING:  # the peer does not have it
    from pydotcompute.ring_kernels.api import KernelRuntime

KERNEL = "calculator"
FIRST_TRANSFER = 5_000


async def ping_pong(runtime: "KernelRuntime", seconds: float) -> Metrics:
    """One request after the other, each sent and then received."""

    async def call(number: int) -> None:
        await runtime.send(KERNEL, CalculationRequest(a=float(number), b=1.0))
        response = await runtime.receive(KERNEL)
        if response.result != number + 1:
            raise RuntimeError(f"wrong reply: {response}")

    return await latency(call, seconds)


async def transfer(runtime: "KernelRuntime", messages: int) -> None:
    """One task sends `messages` requests as fast as it can, another receives the replies, and their sum is checked.

    This is the fastest use of the peer's API: bursts by a single task are as fast, more tasks are slower.
    """

    async def produce() -> None:
        for number in range(messages):
            await runtime.send(KERNEL, CalculationRequest(a=float(number), b=1.0))

    async def consume() -> float:
        total = 0.0
        for _ in range(messages):
            total += (await runtime.receive(KERNEL)).result
        return total

    async with asyncio.TaskGroup() as both:
        both.create_task(produce())
        consumer = both.create_task(consume())
    if consumer.result() != messages * (messages + 1) / 2:
        raise RuntimeError("a reply was lost, doubled or wrong")


async def measure_ping_pong(seconds: float) -> Metrics:
    """Latency in-process."""
    async with RingKernelRuntime(enable_telemetry=True) as runtime:
        await runtime.launch(KERNEL)
        await runtime.activate(KERNEL)
        return await ping_pong(runtime, seconds)


async def measure_piped(seconds: float) -> Metrics:
    """Messages a second in-process, there and back counted once."""
    async with RingKernelRuntime(enable_telemetry=True) as runtime:
        await runtime.launch(KERNEL)
        await runtime.activate(KERNEL)
        return await rate_of(lambda messages: transfer(runtime, messages), seconds, first=FIRST_TRANSFER)


if __name__ == "__main__":
    main({"ping_pong": measure_ping_pong, "piped": measure_piped})
