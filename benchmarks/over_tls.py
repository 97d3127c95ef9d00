"""What TLS costs: the same client against a daemon without it and one with certificates of both sides, by turns."""

import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median

from calculator_kernel import CalculationRequest
from daemon import DAEMON
from in_process import FIRST_TRANSFER, KERNEL, transfer
from measure import Metrics, latency, rate_of, serving

from pydotcompute_client import TLS, RemoteRuntime, connect
from pydotcompute_client.authority import Authority

TURNS = 5
"""How often each of the two has its turn: whatever else the machine does meets both alike."""


@asynccontextmanager
async def both() -> AsyncIterator[tuple[RemoteRuntime, RemoteRuntime]]:
    """Two clients, each of a daemon of its own: in plain text, and over TLS."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority.make(Path(folder, "authority"))
        authority.issue_server(Path(folder, "server"), ["127.0.0.1"], days=1)
        authority.issue_client(Path(folder, "client"), "client", days=1)
        with serving(DAEMON) as plain, serving([*DAEMON, f"--tls-directory={folder}/server"]) as encrypted:
            tls = TLS.directory(f"{folder}/client")
            async with connect(plain.address) as first, connect(encrypted.address, tls=tls) as second:
                yield first, second


async def by_turns(
    measure: Callable[[RemoteRuntime, float], Awaitable[Metrics]], metric: str, seconds: float
) -> Metrics:
    """The metric over TLS, and its ratio to that without; medians of the turns."""
    async with both() as runtimes:
        values: list[list[float]] = [[], []]
        for _ in range(TURNS):
            for runtime, measured in zip(runtimes, values, strict=True):
                measured.append((await measure(runtime, seconds / TURNS))[metric])
    plain, encrypted = map(median, values)
    return {metric: encrypted, f"plain_{metric}": plain, "ratio": encrypted / plain}


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


async def measure_tls_piped(seconds: float) -> Metrics:
    """The rate over TLS."""
    return await by_turns(piped, "rate", seconds)


async def measure_tls_ask(seconds: float) -> Metrics:
    """The latency over TLS."""
    return await by_turns(ask, "p50_us", seconds)
