"""Counts the Python calls of this project that one request and its reply make, in-process and remote.

    python benchmarks/count_calls.py [--functions]

The client and the daemon run in this process, so that all calls of a remote ask are seen. The figure is what the
machine and its load do not change: the median of many warmed asks. Calls into libraries, built-in functions and what
goes on by itself every few milliseconds do not count; a generator or coroutine counts each time it goes on.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median_low
from types import CodeType, FrameType

from calculator_kernel import CalculationRequest, calculator_actor

import pydotcompute
import pydotcompute_client
import pydotcompute_server
from pydotcompute import RingKernelRuntime
from pydotcompute.ring_kernels.declaration import kernel_type_of
from pydotcompute_client import connect
from pydotcompute_server.daemon import Daemon
from pydotcompute_server.limits import Limits
from pydotcompute_server.settings import Settings

KERNEL = "calculator"
WARM_UP_CALLS = 300
COUNTED_CALLS = 101

PRODUCT = {Path(str(package.__file__)).parent for package in (pydotcompute, pydotcompute_client, pydotcompute_server)}

Calls = Counter[CodeType]


@contextmanager
def counted(calls: Calls) -> Iterator[None]:
    """Counts the calls in the block."""

    def count(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            calls[frame.f_code] += 1

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def of_the_product(calls: Calls) -> Counter[tuple[str, str]]:
    """Those of this project, by module and function. Functions that are generated at run time, most of them those that
    check, encode and decode messages, stand together.
    """
    found: Counter[tuple[str, str]] = Counter()
    for code, count in calls.items():
        path = Path(code.co_filename)
        root = next((root for root in PRODUCT if path.is_relative_to(root)), None)
        if root is not None:
            found[str(path.relative_to(root.parent)), code.co_qualname] += count
        elif code.co_filename.startswith("<") and not code.co_filename.startswith("<frozen"):
            found["generated", f"{code.co_filename} {code.co_qualname}"] += count
    return found


async def count(ask: Callable[[int], Awaitable[None]]) -> Counter[tuple[str, str]]:
    """The calls of a typical ask."""
    for number in range(WARM_UP_CALLS):
        await ask(number)
    asks = []
    for number in range(COUNTED_CALLS):
        calls: Calls = Counter()
        with counted(calls):
            await ask(number)
        asks.append(of_the_product(calls))
        await asyncio.sleep(0.001)
    typical = median_low(each.total() for each in asks)
    return next(each for each in asks if each.total() == typical)


async def count_in_process() -> Counter[tuple[str, str]]:
    """The calls of an ask of a kernel in this process."""
    async with RingKernelRuntime() as runtime, runtime.kernel_scope(KERNEL):

        async def ask(number: int) -> None:
            await runtime.send_and_receive(KERNEL, CalculationRequest(a=float(number)))

        return await count(ask)


async def count_remote() -> Counter[tuple[str, str]]:
    """The calls of an ask of a kernel at a daemon, at both ends."""
    kernel_type = kernel_type_of(calculator_actor)
    assert kernel_type is not None
    daemon = Daemon(Settings(listen="127.0.0.1:0", launch=[KERNEL], limits=Limits(grace=0.1)), {KERNEL: kernel_type})
    await daemon.start()
    async with asyncio.TaskGroup() as group:
        group.create_task(daemon.run())
        async with connect(daemon.address) as runtime:

            async def ask(number: int) -> None:
                await runtime.send_and_receive(KERNEL, CalculationRequest(a=float(number)))

            calls = await count(ask)
        daemon.stop()
    return calls


def print_calls(title: str, calls: Counter[tuple[str, str]], *, functions: bool) -> None:
    """Prints how many there are, by module."""
    print(f"{title}: {calls.total()} calls of {len(calls)} functions")
    by_module: Counter[str] = Counter()
    for (module, _), number in calls.items():
        by_module[module] += number
    for module, number in by_module.most_common():
        print(f"  {number:4}  {module}")
        if functions:
            for (where, name), times in calls.most_common():
                if where == module:
                    print(f"         {times:4}  {name}")


def main() -> None:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description="Counts the Python calls of one request and its reply.")
    parser.add_argument("--functions", action="store_true", help="name the functions too")
    functions = parser.parse_args().functions
    print_calls("remote ask", asyncio.run(count_remote()), functions=functions)
    print_calls("in-process ask", asyncio.run(count_in_process()), functions=functions)


if __name__ == "__main__":
    main()
