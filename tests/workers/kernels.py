"""Kernels that harm their process, for the tests of workers."""

import asyncio
import ctypes
import logging
import os
import signal
import threading
import time
from typing import Any

from pydotcompute import PyDotComputeError, message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
class Ask:
    """What to do, and a number for the answer."""

    number: int = 0
    do: str = ""


@message
class Told:
    """The number, the process that has answered, and who has asked."""

    number: int = 0
    pid: int = 0
    principal: str = ""
    note: str = ""


async def answer(ctx: KernelContext[Ask, Told]) -> None:
    """Answers, or harms its process as it is told."""
    async for ask in ctx:
        harm(ask.do)
        principal = ctx.principal or ""
        await ctx.send(
            Told(ask.number, os.getpid(), principal, correlation_id=ask.message_id)  # type: ignore[call-arg, attr-defined]
        )


def harm(do: str) -> None:
    match do:
        case "segfault":
            ctypes.string_at(0)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exit":
            os._exit(3)
        case "raise":
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
