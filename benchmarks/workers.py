"""What worker processes cost: until one serves again that was killed, and while they have nothing to do.

Further figures of workers belong here too: a function for each, and a line in `main`.
"""

import asyncio
import logging
import os
import signal
from contextlib import AsyncExitStack
from statistics import mean, median
from time import perf_counter

from measure import Metrics, main
from processes import cpu_seconds, proportional_bytes
from worker_kernel import Ask, isolated

from pydotcompute import RingKernelRuntime
from pydotcompute.exceptions import KernelFailedError
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.workers.templates import TEMPLATES

WORKERS = 100
TIMES_AS_LONG = 5
"""CPU time is counted in hundredths of a second, so it takes longer than other figures."""
PATIENCE = 60.0


async def measure_restart(seconds: float) -> Metrics:
    """One worker that is killed by SIGKILL again and again: the time until its kernel answers again.

    `p50_ms` is with the template that has the kernel's file, `cold_p50_ms` without any template.
    """
    logging.disable()  # Each death is logged, with a traceback.
    limits = RuntimeLimits(restart_window=1e-9)  # No restart has to wait because of the one before.
    async with RingKernelRuntime(limits=limits) as runtime, runtime.kernel_scope("k", isolated):
        with_template = [await kill(runtime) for _ in range(max(5, int(20 * seconds)))]
        cold = []
        for _ in range(max(3, int(5 * seconds))):
            TEMPLATES.end()
            cold.append(await kill(runtime))
    return {"p50_ms": median(with_template) * 1e3, "cold_p50_ms": median(cold) * 1e3}


async def kill(runtime: RingKernelRuntime) -> float:
    """Kills the worker, and returns the seconds until its kernel answers again."""
    told = await runtime.send_and_receive("k", Ask(), timeout=PATIENCE)
    start = perf_counter()
    os.kill(told.pid, signal.SIGKILL)
    while True:
        try:
            again = await runtime.send_and_receive("k", Ask(), timeout=PATIENCE)
        except KernelFailedError:  # The worker had taken it.
            continue
        if again.pid != told.pid:
            return perf_counter() - start


async def measure_idle(seconds: float) -> Metrics:
    """A hundred workers that have nothing to do.

    `mib_each` is the memory of one, where what several share is divided among them; `cpu_share` the share of one core
    that all take together.
    """
    async with RingKernelRuntime() as runtime, AsyncExitStack() as scopes:
        processes = []
        for number in range(WORKERS):
            await scopes.enter_async_context(runtime.kernel_scope(f"k{number}", isolated))
            told = await runtime.send_and_receive(f"k{number}", Ask(), timeout=PATIENCE)
            processes.append(told.pid)
        await asyncio.sleep(min(1.0, seconds))  # So that the CPU time of starting them is past.
        cpu_before, start = sum(map(cpu_seconds, processes)), perf_counter()
        await asyncio.sleep(TIMES_AS_LONG * seconds)
        cpu, elapsed = sum(map(cpu_seconds, processes)) - cpu_before, perf_counter() - start
        memory = mean(map(proportional_bytes, processes))
    return {"cpu_share": cpu / elapsed, "mib_each": memory / (1 << 20)}


if __name__ == "__main__":
    main({"restart": measure_restart, "idle": measure_idle})
