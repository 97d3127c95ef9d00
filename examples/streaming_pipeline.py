"""A pipeline of three actors: lines of text become readings, readings become measurements, measurements become reports.
The readings of a line are an array, which stays on the GPU from stage to stage, if there is one.

    python examples/streaming_pipeline.py                           in this process
    python examples/streaming_pipeline.py --target 127.0.0.1:50051  at a daemon

The client sends each line to the first stage and hears from the last: the stages hand on among themselves, where they
run. Several items are under way at once; the reports come in order.
"""

import argparse
import asyncio
from collections import deque
from typing import Annotated

import numpy as np

from pydotcompute import Array, KernelContext, KernelRuntime, RingKernelMessage, RingKernelRuntime, message, ring_kernel

ITEMS_AT_ONCE = 8

Series = Annotated[np.ndarray, Array(dtype="float64", shape=("n",), on_device=True)]


@message
class Line(RingKernelMessage):
    """What a sensor sends, such as `cellar 50.9 51 53.5`."""

    text: str


@message
class Reading(RingKernelMessage):
    """A line taken apart."""

    sensor: str
    fahrenheit: Series


@message
class Measurement(RingKernelMessage):
    """A reading in the unit that people here use."""

    sensor: str
    celsius: Series


@message
class Report(RingKernelMessage):
    """What a person should know of a measurement, or of a line."""

    text: str


@ring_kernel(input_type=Line, output_type=Report, device="auto")
async def parse(ctx: KernelContext[Line, Report]) -> None:
    """The first stage; who sends it a line is answered with a report by the last, or at once if nothing can be read."""
    async for line in ctx:
        sensor, *numbers = line.text.split(" ")
        try:
            fahrenheit = ctx.to_device(np.array([float(number) for number in numbers]))
        except ValueError:
            await ctx.send(Report(text=f"{sensor}: not a number", correlation_id=line.message_id))
            continue
        onward = Reading(sensor=sensor, fahrenheit=fahrenheit, correlation_id=line.message_id)
        await ctx.forward("convert", onward)


@ring_kernel(input_type=Reading, output_type=Report, device="auto")
async def convert(ctx: KernelContext[Reading, Report]) -> None:
    """The second stage."""
    async for reading in ctx:
        celsius = (ctx.to_device(reading.fahrenheit) - 32) / 1.8
        onward = Measurement(sensor=reading.sensor, celsius=celsius, correlation_id=reading.message_id)
        await ctx.forward("judge", onward)


@ring_kernel(input_type=Measurement, output_type=Report, device="auto")
async def judge(ctx: KernelContext[Measurement, Report]) -> None:
    """The third stage."""
    async for measurement in ctx:
        text = f"{measurement.sensor}: silent"
        if len(measurement.celsius):
            celsius = ctx.to_device(measurement.celsius)
            low, high = await ctx.to_host(ctx.xp.stack([celsius.min(), celsius.max()]))
            verdict = "FROST" if low < 0 else "HEAT" if high > 30 else "fine"
            text = f"{measurement.sensor}: {low:.1f} to {high:.1f} °C, {verdict}"
        await ctx.send(Report(text=text, correlation_id=measurement.message_id))


STAGES = ("parse", "convert", "judge")


async def report_on(runtime: KernelRuntime, line: str) -> str:
    report: Report = await runtime.send_and_receive("parse", Line(text=line), timeout=10.0)
    return report.text


async def use(runtime: KernelRuntime) -> None:
    for stage in STAGES:
        await runtime.launch(stage)
        await runtime.activate(stage)
    rooms = ("cellar", "kitchen", "attic")
    days = ("14 23 5", "50 59 68", "68.5 86 77", "95 104 86", "50 ? 59")
    under_way: deque[asyncio.Task[str]] = deque()
    async with asyncio.TaskGroup() as group:
        for line in (f"{room} {temperatures}" for temperatures in days for room in rooms):
            if len(under_way) == ITEMS_AT_ONCE:
                print(f"  {await under_way.popleft()}")
            under_way.append(group.create_task(report_on(runtime, line)))
        while under_way:
            print(f"  {await under_way.popleft()}")
    for stage in STAGES:
        if telemetry := runtime.get_telemetry(stage):
            print(f"Items through {stage}: {telemetry.messages_processed}")


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
