"""What it costs, and brings, that kernels have processes of their own: each figure beside the same without that.

    python benchmarks/isolated.py piped [--seconds N] [--uvloop]

One process measures both, by turns, so that whatever else the machine does meets them alike.
"""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from statistics import median, quantiles
from time import perf_counter
from typing import Any

import arrays
import daemon
import numpy
from array_kernel import Samples
from beside_kernels import Work
from calculator_kernel import CalculationRequest
from in_process import FIRST_TRANSFER, KERNEL, transfer
from measure import Metrics, latency, main, serving

from pydotcompute import KernelFailedError
from pydotcompute_client import RemoteRuntime, connect

ISOLATED = "--isolation=process"
TURNS = 5
WORK = [
    daemon.LAUNCH_NOTHING[0],
    str(Path(__file__).with_name("beside_kernels.py")),
    "--listen=127.0.0.1:0",
    "--launch=all",
    "--log-level=error",
    "--limit=max_restarts=1000000",
    "--limit=restart_window=0.001",
]
"""A daemon that starts a worker again at once, however often it dies."""


@asynccontextmanager
async def two_daemons(command: list[str], **options: Any) -> Any:
    """Give a client of a daemon whose actors run in its process, and one of a daemon whose actors run in others."""
    async with AsyncExitStack() as stack:
        servers = [stack.enter_context(serving([*command, *more])) for more in ([], [ISOLATED])]
        yield [await stack.enter_async_context(connect(server.address, **options)) for server in servers]


async def by_turns(*measures: Callable[[], Awaitable[float]]) -> tuple[list[float], float]:
    """Measure each by turns. Return the medians, and the median of what the last is, divided by the first."""
    turns = [[await measure() for measure in measures] for _ in range(TURNS)]
    return [median(each) for each in zip(*turns, strict=True)], median(turn[-1] / turn[0] for turn in turns)


async def measure_piped(seconds: float) -> Metrics:
    """Messages a second through a calculator at a daemon."""

    async def rate(runtime: RemoteRuntime, messages: int) -> float:
        start = perf_counter()
        await transfer(runtime, messages)
        return messages / (perf_counter() - start)

    async with two_daemons(daemon.DAEMON) as runtimes:
        speeds = [await rate(runtime, FIRST_TRANSFER) for runtime in runtimes]
        messages = max(FIRST_TRANSFER, int(min(speeds) * seconds / 2))
        (_, isolated), ratio = await by_turns(*(partial(rate, runtime, messages) for runtime in runtimes))
    return {"rate": isolated, "ratio": ratio}


async def measure_ask(seconds: float) -> Metrics:
    """Latency of asking a calculator at a daemon."""

    async def p50(runtime: RemoteRuntime) -> float:
        async def call(number: int) -> None:
            await runtime.send_and_receive(KERNEL, CalculationRequest(a=float(number), b=1.0))

        return (await latency(call, seconds / 2))["p50_us"]

    async with two_daemons(daemon.DAEMON) as runtimes:
        (_, isolated), ratio = await by_turns(*(partial(p50, runtime) for runtime in runtimes))
    return {"p50_us": isolated, "ratio": ratio}


async def measure_array(seconds: float) -> Metrics:
    """64 MiB of an array there and back, in MiB a second."""
    array = numpy.random.default_rng(1).random(arrays.ARRAY_BYTES // 4, numpy.float32)

    async def rate(runtime: RemoteRuntime) -> float:
        start = perf_counter()
        reply = await runtime.send_and_receive("echo", Samples(array))
        if reply.values[-1] != array[-1]:
            raise RuntimeError("wrong reply")
        return arrays.ARRAY_BYTES / (1 << 20) / (perf_counter() - start)

    async with two_daemons(arrays.DAEMON, max_message_bytes=arrays.LIMIT) as runtimes:
        for runtime in runtimes:
            await rate(runtime)  # The first time takes longer.
        (_, isolated), ratio = await by_turns(*(partial(rate, runtime) for runtime in runtimes))
    return {"mib_rate": isolated, "ratio": ratio}


async def measure_cores(seconds: float) -> Metrics:
    """A kernel that computes 2 ms a message, by two instances and by one."""

    async def rate(runtime: RemoteRuntime, kernel: str) -> float:
        messages, start = max(20, int(200 * seconds)), perf_counter()
        await asyncio.gather(*(runtime.send_and_receive(kernel, Work(0.002), timeout=60.0) for _ in range(messages)))
        return messages / (perf_counter() - start)

    with serving(WORK) as server:
        async with connect(server.address) as runtime:
            await rate(runtime, "computes_twice")
            (_, two), ratio = await by_turns(*(partial(rate, runtime, name) for name in ("computes", "computes_twice")))
    return {"rate": two, "ratio": ratio}


async def measure_beside(seconds: float, kernel: str, work: Work, pause: float, percentile: int) -> Metrics:
    """Latency of a kernel while another one is given work again and again, and while it is not."""
    with serving(WORK) as server:
        async with connect(server.address) as runtime:

            async def asked() -> float:
                times = []
                end = perf_counter() + seconds
                for number in count():
                    start = perf_counter()
                    await runtime.send_and_receive("answers", Work())
                    times.append(perf_counter() - start)
                    if perf_counter() >= end and number > 100:
                        break
                return quantiles(times, n=100)[percentile - 1]

            async def asked_meanwhile() -> float:
                async def disturb() -> None:
                    while True:
                        with suppress(KernelFailedError):
                            await runtime.send_and_receive(kernel, work, timeout=60.0)
                        await asyncio.sleep(pause)

                disturbing = asyncio.create_task(disturb())
                try:
                    return await asked()
                finally:
                    disturbing.cancel()
                    await asyncio.wait((disturbing,))

            await asked()
            (_, loaded), ratio = await by_turns(asked, asked_meanwhile)
    return {f"p{percentile}_us": loaded * 1e6, "ratio": ratio}


async def measure_beside_computing(seconds: float) -> Metrics:
    """Beside a kernel that computes for 1 s without `await`."""
    return await measure_beside(seconds, "computes", Work(1.0), 0.0, 50)


async def measure_beside_crashing(seconds: float) -> Metrics:
    """Beside a kernel that crashes every 100 ms."""
    return await measure_beside(seconds, "crashes", Work(), 0.1, 99)


async def measure_slow_among_short(seconds: float) -> Metrics:
    """1,000 messages of 1 ms for four instances, with one of 1 s among them and without: the p99 of the short ones."""
    with serving(WORK) as server:
        async with connect(server.address) as runtime:

            async def ask(length: float) -> float:
                start = perf_counter()
                await runtime.send_and_receive("blocks", Work(length), timeout=60.0)
                return perf_counter() - start

            async def p99(with_slow: bool) -> float:
                asking = [asyncio.create_task(ask(0.001)) for _ in range(500)]
                slow = [asyncio.create_task(ask(1.0))] if with_slow else []
                asking += [asyncio.create_task(ask(0.001)) for _ in range(500)]
                times = await asyncio.gather(*asking)
                await asyncio.gather(*slow)
                return quantiles(times, n=100)[98]

            await p99(False)
            (_, loaded), ratio = await by_turns(partial(p99, False), partial(p99, True))
    return {"p99_us": loaded * 1e6, "ratio": ratio}


if __name__ == "__main__":
    main(
        {
            "piped": measure_piped,
            "ask": measure_ask,
            "array": measure_array,
            "cores": measure_cores,
            "beside_computing": measure_beside_computing,
            "beside_crashing": measure_beside_crashing,
            "slow_among_short": measure_slow_among_short,
        }
    )
