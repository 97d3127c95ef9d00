"""What a client that asks now and then feels of another that sends all it can.

    python benchmarks/under_load.py ADDRESS [--uvloop]

is that other: it pipes messages through the calculator at ADDRESS until it is ended.
"""

import asyncio
import sys
from time import perf_counter

from calculator_kernel import CalculationRequest, calculator_actor
from daemon import DAEMON
from in_process import FIRST_TRANSFER, KERNEL, transfer
from measure import Metrics, latency, loop_factory, running, serving

from pydotcompute_client import RemoteRuntime, connect

ALONE = "alone"


async def measure_alone_under_load(seconds: float) -> Metrics:
    """Latency of `send_and_receive` on a kernel of its own while another process saturates the daemon's other kernel.

    `quiet_p50_us` is the latency just before, `ratio` how many times as long it takes under load, and `flood_rate` what
    the other process moves meanwhile.
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
            on_uvloop = type(asyncio.get_running_loop()).__module__.startswith("uvloop")
            with running([sys.executable, __file__, server.address] + ["--uvloop"] * on_uvloop):
                flooded, start = await answered(runtime), perf_counter()
                loaded = await latency(call, seconds)
                flood_rate = (await answered(runtime) - flooded) / (perf_counter() - start)
    ratio = loaded["p50_us"] / quiet["p50_us"]
    return {**loaded, "quiet_p50_us": quiet["p50_us"], "ratio": ratio, "flood_rate": flood_rate}


async def answered(runtime: RemoteRuntime) -> int:
    """How many messages of the flood have been answered."""
    telemetry = await runtime.fetch_telemetry(KERNEL)
    assert telemetry is not None  # the daemon is started with that kernel
    return telemetry.messages_processed


async def saturate(address: str) -> None:
    """Pipes messages without end."""
    async with connect(address) as runtime:
        await transfer(runtime, FIRST_TRANSFER)
        print("saturates", flush=True)
        while True:
            await transfer(runtime, 20 * FIRST_TRANSFER)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory("--uvloop" in sys.argv)) as runner:
        runner.run(saturate(sys.argv[1]))
