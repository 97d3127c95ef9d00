"""What a client that asks now and then feels of another that sends all it can.

    python benchmarks/under_load.py ADDRESS

is that other: it pipes messages through the calculator at ADDRESS until it is ended.
"""

import asyncio
import sys

from calculator_kernel import CalculationRequest, calculator_actor
from daemon import DAEMON
from in_process import FIRST_TRANSFER, transfer
from measure import Metrics, latency, running, serving

from pydotcompute_client import connect

ALONE = "alone"


async def measure_alone_under_load(seconds: float) -> Metrics:
    """Latency of `send_and_receive` on a kernel of its own while another process saturates the daemon's other kernel.

    `quiet_p50_us` is the latency just before, `ratio` how many times as long it takes under load.
    """
    with serving(DAEMON) as server:
        async with connect(server.address) as runtime:
            await runtime.launch(ALONE, calculator_actor)
            await runtime.activate(ALONE)

            async def call(number: int) -> None:
                response = await runtime.send_and_receive(ALONE, CalculationRequest(a=float(number), b=1.0))
                if response.result != number + 1:
                    raise RuntimeError(f"wrong reply: {response}")

            quiet = await latency(call, seconds)
            with running([sys.executable, __file__, server.address]):
                loaded = await latency(call, seconds)
    return {**loaded, "quiet_p50_us": quiet["p50_us"], "ratio": loaded["p50_us"] / quiet["p50_us"]}


async def saturate(address: str) -> None:
    """Pipes messages without end."""
    async with connect(address) as runtime:
        await transfer(runtime, FIRST_TRANSFER)
        print("saturates", flush=True)
        while True:
            await transfer(runtime, 20 * FIRST_TRANSFER)


if __name__ == "__main__":
    asyncio.run(saturate(sys.argv[1]))
