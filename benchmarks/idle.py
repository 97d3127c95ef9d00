"""What kernels cost that have nothing to do."""

import asyncio
from time import perf_counter

from calculator_kernel import calculator_actor
from daemon import LAUNCH_NOTHING
from measure import Metrics, serving
from processes import cpu_seconds, resident_bytes

from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute_client import RemoteRuntime, connect

KERNELS = 1_000
TIMES_AS_LONG = 5
"""CPU time is counted in hundredths of a second, so it takes longer than other figures."""


async def measure_idle(seconds: float) -> Metrics:
    """A thousand calculators that wait for messages, each with `receive(timeout=0.1)` in a loop.

    `cpu_share` is the daemon's share of one core, `kib_per_kernel` its growth in memory.
    """
    with serving(LAUNCH_NOTHING) as server:
        async with connect(server.address) as runtime:
            await start(runtime, "first")  # what all kernels share is not counted
            memory_before = resident_bytes(server.process_id)
            # One by one: calls that wait in the daemon would be counted as the kernels' memory.
            for number in range(KERNELS):
                await start(runtime, f"calculator-{number}")
            await asyncio.sleep(min(1.0, seconds))  # so that the CPU time of starting them is past

            cpu_before, start_time = cpu_seconds(server.process_id), perf_counter()
            await asyncio.sleep(TIMES_AS_LONG * seconds)
            cpu, elapsed = cpu_seconds(server.process_id) - cpu_before, perf_counter() - start_time
            memory = resident_bytes(server.process_id) - memory_before

            for kernel_id in await runtime.fetch_kernel_ids():
                if (state := await runtime.fetch_kernel_state(kernel_id)) != KernelState.ACTIVE:
                    raise RuntimeError(f"{kernel_id} is {state.name}")
    return {"cpu_share": cpu / elapsed, "kib_per_kernel": memory / KERNELS / 1024}


async def start(runtime: RemoteRuntime, kernel_id: str) -> None:
    """Launches and activates one calculator."""
    await runtime.launch(kernel_id, calculator_actor)
    await runtime.activate(kernel_id)
