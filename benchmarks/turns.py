"""Measures two daemons by turns, so that whatever else the machine does meets both alike."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from statistics import median
from typing import TypeVar

from calculator_kernel import CalculationRequest
from in_process import FIRST_TRANSFER, KERNEL, transfer
from measure import Metrics, latency, rate_of

from pydotcompute_client import RemoteRuntime

T = TypeVar("T")

TURNS = 5
"""How often each of the two has its turn."""


async def by_turns(
    both: AbstractAsyncContextManager[tuple[T, T]],
    measure: Callable[[T, float], Awaitable[Metrics]],
    metric: str,
    seconds: float,
) -> Metrics:
    """The metric of the second of two clients, and its ratio to the first, the plain one; medians of the turns."""
    async with both as clients:
        values: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for client, measured in zip(clients, values, strict=True):
                measured.append((await measure(client, seconds / TURNS))[metric])
    plain, other = map(median, values)
    return {metric: other, f"plain_{metric}": plain, "ratio": other / plain}


async def piped(runtime: RemoteRuntime, seconds: float) -> Metrics:
    """Messages a second."""
    await transfer(runtime, 100)
    return await rate_of(lambda messages: transfer(runtime, messages), seconds, first=FIRST_TRANSFER)


async def ask(runtime: RemoteRuntime, seconds: float) -> Metrics:
    """Latency of `send_and_receive`."""

    async def call(number: int) -> None:
        response = await runtime.send_and_receive(KERNEL, CalculationRequest(a=float(number), b=1.0))
        if response.result != number + 1:
            raise RuntimeError(f"wrong reply: {response}")

    return await latency(call, seconds)
