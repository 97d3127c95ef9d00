"""What the workloads share: the clock, the statistics, the command line, and a server beside them.

A workload is a script that measures one figure and prints it as the last line of its output, a JSON object. Nothing but
the standard library is imported here, because one of the workloads runs in the peer's environment.
"""

import argparse
import asyncio
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from statistics import quantiles
from threading import Thread
from time import perf_counter
from typing import NamedTuple

Metrics = dict[str, float]
"""What a figure consists of: `p50_us` and `p99_us`, in microseconds, `rate`, in messages a second, and the like.

table.py knows them all.
"""

WARM_UP_CALLS = 200


async def latency(call: Callable[[int], Awaitable[None]], seconds: float) -> Metrics:
    """Makes one call after the other, `seconds` long; `call` gets 0, 1, 2, …."""
    for number in range(WARM_UP_CALLS):
        await call(number)
    microseconds = []
    end = perf_counter() + seconds
    for number in count():
        start = perf_counter()
        await call(number)
        now = perf_counter()
        microseconds.append((now - start) * 1e6)
        if now >= end and number >= 2:
            break
    percentiles = quantiles(microseconds, n=100, method="inclusive")
    return {"p50_us": percentiles[49], "p99_us": percentiles[98]}


async def rate_in_flight(call: Callable[[int], Awaitable[None]], seconds: float, *, in_flight: int) -> Metrics:
    """Makes calls, always `in_flight` at once, `seconds` long."""
    numbers = count()
    made = 0

    async def caller(end: float) -> None:
        nonlocal made
        while perf_counter() < end:
            await call(next(numbers))
            made += 1

    for duration in (seconds / 10, seconds):  # the first only warms up
        made, start = 0, perf_counter()
        async with asyncio.TaskGroup() as callers:
            for _ in range(in_flight):
                callers.create_task(caller(start + duration))
        elapsed = perf_counter() - start
    return {"rate": made / elapsed}


async def rate_of(transfer: Callable[[int], Awaitable[None]], seconds: float, *, first: int) -> Metrics:
    """Transfers `first` messages, and then as many as that speed allows in `seconds`; the second transfer counts."""
    messages = first
    for _ in range(2):
        start = perf_counter()
        await transfer(messages)
        rate = messages / (perf_counter() - start)
        messages = max(first, int(rate * seconds))
    return {"rate": rate}


def loop_factory(uvloop: bool) -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes event loops: of uvloop, or asyncio's own, whatever a library may have set as the policy."""
    if not uvloop:
        return asyncio.SelectorEventLoop
    import uvloop as library

    return library.new_event_loop


def main(figures: Mapping[str, Callable[[float], Awaitable[Metrics]]]) -> None:
    """Measures the figure named on the command line and prints it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("figure", choices=figures)
    parser.add_argument("--seconds", type=float, default=1.0, help="how long to measure")
    parser.add_argument("--uvloop", action="store_true", help="run on uvloop instead of asyncio's own event loop")
    arguments = parser.parse_args()

    async def measure() -> Metrics:
        return await figures[arguments.figure](arguments.seconds)

    with asyncio.Runner(loop_factory=loop_factory(arguments.uvloop)) as runner:
        metrics = runner.run(measure())
    print(json.dumps(metrics))


class Program(NamedTuple):
    """A program that runs beside the workload."""

    first_line: str
    """Of its output: it says that the program is ready."""
    process_id: int


class Server(NamedTuple):
    """A server that runs beside the workload."""

    address: str
    process_id: int


@contextmanager
def running(command: Sequence[str]) -> Iterator[Program]:
    """Runs a program, whose first line of output is waited for, and ends it; RuntimeError if it ended before."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        try:
            first_line = program.stdout.readline().strip()
            # Whatever else it prints must not fill the pipe and stop it.
            Thread(target=shutil.copyfileobj, args=(program.stdout, sys.stderr), daemon=True).start()
            yield Program(first_line, program.pid)
            if program.poll() is not None:
                raise RuntimeError(f"{shlex.join(command)} ended by itself, with exit code {program.returncode}")
        finally:
            program.terminate()
            try:
                program.wait(timeout=15)
            except subprocess.TimeoutExpired:
                program.kill()
                raise


@contextmanager
def serving(command: Sequence[str]) -> Iterator[Server]:
    """Runs a server whose first line of output is `listening on HOST:PORT`, and ends it."""
    with running(command) as program:
        prefix, found, address = program.first_line.partition("listening on ")
        if prefix or not found:
            raise RuntimeError(f"{shlex.join(command)} did not start")
        yield Server(address, program.process_id)
