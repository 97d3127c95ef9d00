"""A client that does nothing wrong: it asks one kernel again and again, and measures how long each answer takes.

    python -m tests.chaos.neighbour 127.0.0.1:50051 PID [PRINCIPAL]

PID is the process of the daemon. It says `under way`. For each line of input it then prints, as JSON, the `Waits` since
the line before.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from time import clock_gettime, perf_counter

from pydotcompute_client import connect
from tests.chaos.attack_kernels import Number
from tests.principals import saying

__all__ = ["Waits"]

EVERY = 0.005
PATIENCE = 120.0


@dataclass(frozen=True)
class Waits:
    """How long answers took, in seconds."""

    asked: int
    median: float
    p99: float
    worst: float
    longest_work: float
    """The longest answer, where each counts for no more than the processor time that the daemon took meanwhile, and
    without time in which this client had to wait for a processor.

    Other programs on the machine make an answer take longer, but they hardly add to this time. So it tells what the
    attack did.
    """
    wrong: int
    """How many answers were wrong, or errors."""


def delay() -> float:
    """The seconds in which this process's main thread could have run, and had no processor."""
    return int(Path("/proc/self/schedstat").read_text().split()[1]) / 1e9


async def main(target: str, pid: int, principal: str = "") -> None:
    """Ask until the input ends."""
    waits: list[float] = []
    works: list[float] = []
    wrong = 0
    asking = worked = delayed = 0.0
    clock = ~pid << 3 | 2  # What C's `clock_getcpuclockid` returns.

    def end_of_wait() -> tuple[float, float]:
        wait = perf_counter() - asking
        return wait, min(wait - (delay() - delayed), clock_gettime(clock) - worked)

    async def ask_on() -> None:
        nonlocal wrong, asking, worked, delayed
        async with connect(target, interceptors=saying(principal) if principal else ()) as runtime:
            for number in range(1_000_000_000):
                worked, delayed, asking = clock_gettime(clock), delay(), perf_counter()
                try:
                    reply = await runtime.send_and_receive("square", Number(number), timeout=PATIENCE)
                    wrong += reply.value != number**2
                except Exception as error:  # Whatever it is, it is counted and shown.
                    print(f"neighbour: {error!r}", file=sys.stderr)
                    wrong += 1
                wait, work = end_of_wait()
                waits.append(wait)
                works.append(work)
                if number == 0:
                    print("under way", flush=True)
                await asyncio.sleep(EVERY)

    task = asyncio.create_task(ask_on())
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        wait, work = end_of_wait()
        now = [*waits, wait]
        p99 = sorted(now)[int(0.99 * len(now))]
        told = Waits(len(waits), statistics.median(now), p99, max(now), max([*works, work]), wrong)
        waits.clear()
        works.clear()
        wrong = 0
        print(json.dumps(asdict(told)), flush=True)
    task.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:]))
