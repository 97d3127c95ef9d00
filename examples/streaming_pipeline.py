"""A pipeline of three actors: lines of text become readings, readings become measurements, measurements become reports.

    python examples/streaming_pipeline.py                           in this process
    python examples/streaming_pipeline.py --target 127.0.0.1:50051  at a daemon

The client sends each line to the first stage and hears from the last: the stages hand on among themselves, where they
run. Several items are under way at once; the reports come in order.
"""

import argparse
import asyncio
from collections import deque

from pydotcompute import KernelRuntime, RingKernelMessage, RingKernelRuntime, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext

ITEMS_AT_ONCE = 8


@message
class Line(RingKernelMessage):
    """What a sensor sends, such as `cellar 50.9`."""

    text: str


@message
class Reading(RingKernelMessage):
    """A line taken apart."""

    sensor: str = ""
    fahrenheit: float | None = None


@message
class Measurement(RingKernelMessage):
    """A reading in the unit that people here use."""

    sensor: str = ""
    celsius: float | None = None


@message
class Report(RingKernelMessage):
    """What a person should know of a measurement."""

    text: str = ""


@ring_kernel(input_type=Line, output_type=Report)
async def parse(ctx: KernelContext[Line, Report]) -> None:
    """The first stage; who sends it a line is answered with a report by the last."""
    async for line in ctx:
        sensor, _, number = line.text.partition(" ")
        try:
            fahrenheit = float(number)
        except ValueError:
            fahrenheit = None
        await ctx.forward("convert", Reading(sensor=sensor, fahrenheit=fahrenheit, correlation_id=line.message_id))


@ring_kernel(input_type=Reading, output_type=Report)
async def convert(ctx: KernelContext[Reading, Report]) -> None:
    """The second stage."""
    async for reading in ctx:
        celsius = None if reading.fahrenheit is None else (reading.fahrenheit - 32) / 1.8
        onward = Measurement(sensor=reading.sensor, celsius=celsius, correlation_id=reading.message_id)
        await ctx.forward("judge", onward)


@ring_kernel(input_type=Measurement, output_type=Report)
async def judge(ctx: KernelContext[Measurement, Report]) -> None:
    """The third stage."""
    async for measurement in ctx:
        celsius = measurement.celsius
        if celsius is None:
            text = f"{measurement.sensor}: not a number"
        else:
            verdict = "FROST" if celsius < 0 else "HEAT" if celsius > 30 else "fine"
            text = f"{measurement.sensor}: {celsius:.1f} °C, {verdict}"
        await ctx.send(Report(text=text, correlation_id=measurement.message_id))


STAGES = ("parse", "convert", "judge")


async def report_on(runtime: KernelRuntime, line: str) -> str:
    report = await runtime.send_and_receive("parse", Line(text=line), timeout=10.0)
    return report.text


async def use(runtime: KernelRuntime) -> None:
    for stage in STAGES:
        await runtime.launch(stage)
        await runtime.activate(stage)
    rooms = ("cellar", "kitchen", "attic")
    under_way: deque[asyncio.Task[str]] = deque()
    async with asyncio.TaskGroup() as group:
        for line in (f"{room} {temperature}" for temperature in (14, 50, 68.5, 95, "?") for room in rooms):
            if len(under_way) == ITEMS_AT_ONCE:
                print(f"  {await under_way.popleft()}")
            under_way.append(group.create_task(report_on(runtime, line)))
        while under_way:
            print(f"  {await under_way.popleft()}")
    for stage in STAGES:
        print(f"Items through {stage}: {runtime.get_telemetry(stage).messages_processed}")


async def main(target: str | None) -> None:
    if target is None:
        async with RingKernelRuntime() as runtime:
            await use(runtime)
    else:
        from pydotcompute_client import connect

        async with connect(target, scoped=True) as runtime:
            await use(runtime)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A pipeline of three actors.")
    parser.add_argument("--target", help="HOST:PORT of a daemon; in this process if absent")
    asyncio.run(main(parser.parse_args().target))
