"""Kernels that harm their process, for the tests of workers."""

import asyncio
import ctypes
import logging
import mmap
import os
import signal
import sys  # noqa: F401  # The code that `printing` runs uses it.
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from pydotcompute import PyDotComputeError, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
class Ask:
    """What to do, and a number for the answer."""

    number: int = 0
    do: str = ""


@message
class Told:
    """The number, the process that has answered, who has asked, and what else there is to tell."""

    number: int = 0
    pid: int = 0
    principal: str = ""
    deliveries: int = 0
    text: str = ""
    note: str = ""


async def answer(ctx: KernelContext[Ask, Told]) -> None:
    """Answers, or harms its process as it is told."""
    async for ask in ctx:
        harm(ask.do if not (ctx.redelivered and ask.do.endswith("once")) else "")
        principal = ctx.principal or ""
        await ctx.send(
            Told(ask.number, os.getpid(), principal, ctx.deliveries, correlation_id=ask.message_id)  # type: ignore[call-arg, attr-defined]
        )


hoard: list[bytes] = []


def harm(do: str) -> None:
    match do:
        case "segfault":
            ctypes.string_at(0)
        case "kill" | "kill once":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "raise" | "raise once":
            raise ValueError("as told")
        case "compute":
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                pass
        case "compute forever":
            while True:
                pass
        case "log":
            logging.getLogger("shop").warning("said by %d", os.getpid())
        case "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        case "allocate":
            hoard.append(b"x" * (256 << 20))
        case "share":
            with mmap.mmap(-1, 256 << 20) as shared:
                for _ in range(256):
                    shared.write(b"x" * (1 << 20))
                harm("compute forever")
        case "log a flood":
            for number in range(20_000):
                logging.getLogger("shop").warning("number %d", number)
        case "thread":
            threading.Thread(target=threading.Event().wait).start()


@ring_kernel(input_type=Ask, output_type=Told, isolation="process")
async def fragile(ctx: KernelContext[Ask, Told]) -> None:
    """Is not started again."""
    await answer(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure")
async def restarted(ctx: KernelContext[Ask, Told]) -> None:
    """Is started again."""
    await answer(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="always")
async def eternal(ctx: KernelContext[Ask, Told]) -> None:
    """Answers once, and is started again."""
    ask = await ctx.receive()
    await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure", queue_size=8)
async def unlucky(ctx: KernelContext[Ask, Told]) -> None:
    """Fails whenever it has a message."""
    await ctx.receive()
    raise ValueError("every time")


@ring_kernel(input_type=Ask, output_type=Told)
async def here(ctx: KernelContext[Ask, Told]) -> None:
    """Runs in the process of its runtime."""
    await answer(ctx)


def not_at_the_top() -> Any:
    """A kernel that another process cannot import."""

    @ring_kernel(input_type=Ask, output_type=Told, isolation="process", auto_register=False)
    async def hidden(ctx: KernelContext[Ask, Told]) -> None:
        await answer(ctx)

    return hidden


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure", instances=3)
async def shared(ctx: KernelContext[Ask, Told]) -> None:
    """Shares its mailbox with two others."""
    await answer(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", instances=2)
async def holding(ctx: KernelContext[Ask, Told]) -> None:
    """Holds a request that says so until the kernel ends, and answers all others."""
    async for ask in ctx:
        while ask.do == "hold" and not ctx.should_terminate:  # noqa: ASYNC110  # There is no event to wait for.
            await asyncio.sleep(0.01)
        await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


async def where(ctx: KernelContext[Ask, Told]) -> None:
    """Tells once its device, and which GPUs its process sees."""
    ask = await ctx.receive()
    text = f"{ctx.device} of {os.environ['CUDA_VISIBLE_DEVICES']}"
    await ctx.send(Told(ask.number, os.getpid(), text=text, correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


def is_there(path: str) -> bool:
    return Path(path).exists()


def touch(path: str | Path) -> None:
    Path(path).touch()


def remove(path: str | Path) -> None:
    Path(path).unlink()


@ring_kernel(input_type=Ask, output_type=Told, isolation="process")
async def patient(ctx: KernelContext[Ask, Told]) -> None:
    """Waits with its answer until there is a file of the name that it is told. It does not begin if its id is one."""
    if is_there(ctx.kernel_id):
        raise ValueError("not now")
    async for ask in ctx:
        harm(ask.do)
        while ask.do and not is_there(ask.do):  # noqa: ASYNC110  # There is no event to wait for.
            await asyncio.sleep(0.005)
        await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure", on_crash="redeliver")
async def again(ctx: KernelContext[Ask, Told]) -> None:
    """Gets again what it had in hand."""
    await answer(ctx)


@ring_kernel(
    input_type=Ask,
    output_type=Told,
    isolation="process",
    restart="on_failure",
    on_crash="redeliver",
    max_deliveries=2,
)
async def again_in_batches(ctx: KernelContext[Ask, Told]) -> None:
    """Gets again, one by one, the batch that it had in hand."""
    async for batch in ctx.batches(max_size=4, max_delay=0.0):
        for ask in batch:
            harm(ask.do)
        deliveries = ctx.deliveries
        await batch.reply(
            number=[ask.number for ask in batch], pid=[os.getpid()] * len(batch), deliveries=[deliveries] * len(batch)
        )


@ring_kernel(
    input_type=Ask,
    output_type=Told,
    isolation="process",
    restart="on_failure",
    time_limit=1.5,
    memory_limit="192MiB",
    cpus=(0,),
    nice=1,
)
async def limited(ctx: KernelContext[Ask, Told]) -> None:
    """May not take much."""
    await answer(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure", hang_timeout=1.0)
async def lively(ctx: KernelContext[Ask, Told]) -> None:
    """Must show that it lives."""
    await answer(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", cpus=(4095,))
async def elsewhere(ctx: KernelContext[Ask, Told]) -> None:
    """Wants a CPU that there is not."""
    await answer(ctx)


async def ask_on(ctx: KernelContext[Ask, Told]) -> None:
    """For each message, what the kernel replies that it names, or the id of the process if it names none."""
    async for request in ctx:
        told = Told(request.number, os.getpid(), correlation_id=request.message_id)  # type: ignore[call-arg, attr-defined]
        if request.do:
            kernel_id, _, others = request.do.partition(" ")
            try:
                reply = await ctx.ask(kernel_id, Ask(request.number, others))
                told.pid = getattr(reply, "pid", 0)
                told.note = getattr(reply, "note", "") or type(reply).__name__
            except PyDotComputeError as error:
                told.note = f"{type(error).__name__}: {error}"
        await ctx.send(told)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure")
async def asks(ctx: KernelContext[Ask, Told]) -> None:
    """Asks on, in a worker."""
    await ask_on(ctx)


@ring_kernel(input_type=Ask, output_type=Told)
async def asks_here(ctx: KernelContext[Ask, Told]) -> None:
    """Asks on, without a worker."""
    await ask_on(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", instances=2)
async def asks_in_two(ctx: KernelContext[Ask, Told]) -> None:
    """Asks on, in two workers."""
    await ask_on(ctx)


async def pass_on(ctx: KernelContext[Ask, Told]) -> None:
    """Forwards to the kernel that the request names, or answers."""
    async for ask in ctx:
        if ask.do:
            ask.do, kernel_id = "", ask.do
            await ctx.forward(kernel_id, ask)
        else:
            await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


@ring_kernel(input_type=Ask, output_type=Told, isolation="process")
async def passing_on(ctx: KernelContext[Ask, Told]) -> None:
    """Forwards from a worker."""
    await pass_on(ctx)


@ring_kernel(input_type=Ask, output_type=Told)
async def passing_on_here(ctx: KernelContext[Ask, Told]) -> None:
    """Forwards from the process of its runtime."""
    await pass_on(ctx)


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure")
async def printing(ctx: KernelContext[Ask, Told]) -> None:
    """Runs the code that it is told."""
    async for ask in ctx:
        exec(ask.do)
        await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


@ring_kernel(input_type=Ask, output_type=Told, isolation="process", restart="on_failure", output_queue_size=4)
async def talkative(ctx: KernelContext[Ask, Told]) -> None:
    """Sends three outputs before it answers."""
    async for ask in ctx:
        harm(ask.do)
        for _ in range(3):
            await ctx.send(Told(pid=os.getpid()))
        await ctx.send(Told(ask.number, os.getpid(), correlation_id=ask.message_id))  # type: ignore[call-arg, attr-defined]


@message
class Picture:
    """Long, as a rule."""

    pixels: np.ndarray[Any, Any]
    do: str = ""


@ring_kernel(input_type=Picture, output_type=Picture, isolation="process", restart="on_failure")
async def doubled(ctx: KernelContext[Picture, Picture]) -> None:
    """Doubles what is in a picture, or sends the picture itself back."""
    async for picture in ctx:
        harm(picture.do)
        if picture.do == "echo":
            await ctx.send(picture)
        else:
            await ctx.send(Picture(2 * picture.pixels, correlation_id=picture.message_id))  # type: ignore[call-arg, attr-defined]


@ring_kernel(input_type=Picture, output_type=Picture, isolation="process")
async def lets_double(ctx: KernelContext[Picture, Picture]) -> None:
    """Asks "doubled" for the double of a picture; or forwards the picture, if that says so."""
    async for picture in ctx:
        if picture.do == "forward":
            await ctx.forward("doubled", picture)
        else:
            reply = await ctx.ask("doubled", Picture(picture.pixels + 1))
            await ctx.send(Picture(reply.pixels, correlation_id=picture.message_id))  # type: ignore[call-arg, attr-defined]
