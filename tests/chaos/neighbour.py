"""A client that does nothing wrong: it asks one kernel again and again, and measures how long each answer takes.

    python -m tests.chaos.neighbour 127.0.0.1:50051 [PRINCIPAL]

It says `under way`. For each line of input it then prints, as JSON, the `Waits` since the line before.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
from dataclasses import asdict, dataclass
from time import perf_counter

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
    wrong: int
    """How many answers were wrong, or errors."""


async def main(target: str, principal: str = "") -> None:
    """Ask until the input ends."""
    waits: list[float] = []
    wrong = 0
    asking = 0.0

    async def ask_on() -> None:
        nonlocal wrong, asking
        async with connect(target, interceptors=saying(principal) if principal else ()) as runtime:
            for number in range(1_000_000_000):
                asking = perf_counter()
                try:
                    reply = await runtime.send_and_receive("square", Number(number), timeout=PATIENCE)
                    wrong += reply.value != number**2
                except Exception as error:  # Whatever it is, it is counted and shown.
                    print(f"neighbour: {error!r}", file=sys.stderr)
                    wrong += 1
                waits.append(perf_counter() - asking)
                if number == 0:
                    print("under way", flush=True)
                await asyncio.sleep(EVERY)

    task = asyncio.create_task(ask_on())
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        now = [*waits, perf_counter() - asking] if waits else [0.0]
        p99 = sorted(now)[int(0.99 * len(now))]
        told = Waits(len(waits), statistics.median(now), p99, max(now), wrong)
        waits.clear()
        wrong = 0
        print(json.dumps(asdict(told)), flush=True)
    task.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
