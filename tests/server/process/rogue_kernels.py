"""Kernels that do to the daemon's process whatever a message says."""

import asyncio
import contextlib
import ctypes
import logging
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace

from pydotcompute import message, ring_kernel
from pydotcompute.ring_kernels.actor.blocking import BlockingContext
from pydotcompute.ring_kernels.lifecycle import KernelContext


@message
@dataclass
class Deed:
    """What to do, and how it went."""

    what: str = ""
    seconds: float = 0.0


logger = logging.getLogger("rogue")
tasks: list[asyncio.Task[None]] = []


async def raises(error: BaseException) -> None:
    raise error


async def raises_at_the_end(error: BaseException) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        raise error


class RaisesWhenForgotten:
    def __del__(self) -> None:
        raise KeyboardInterrupt("a finalizer's")


def start_program() -> int:
    child = subprocess.Popen(["sleep", "3600"])
    child.terminate()
    return child.wait()


def blocks(seconds: float) -> None:
    time.sleep(seconds)


async def do(deed: Deed) -> str:
    """Do it; returns how it went."""
    logger.info("does: %s", deed.what)
    loop = asyncio.get_running_loop()
    match deed.what:
        case "interrupt":
            raise KeyboardInterrupt("a rogue's")
        case "task interrupts":
            tasks.append(asyncio.create_task(raises(KeyboardInterrupt("a task's"))))
        case "task exits":
            tasks.append(asyncio.create_task(raises(SystemExit(7))))
        case "task exits at the end":
            tasks.append(asyncio.create_task(raises_at_the_end(SystemExit(7))))
        case "finalizer interrupts":
            RaisesWhenForgotten()
        case "callback interrupts":
            loop.call_soon(lambda: sys.exit(8))
        case "block":
            blocks(deed.seconds)
        case "block with C":
            ctypes.PyDLL(None).usleep(int(1e6 * deed.seconds))  # It keeps Python's lock.
        case "spin":
            while True:
                pass
        case "recurse":

            def recurse(depth: int) -> None:
                for _ in range(2):
                    if depth:
                        recurse(depth - 1)

            recurse(500)
        case "crash":
            ctypes.string_at(0)
        case "ignore SIGTERM":
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        case "take the wakeup":
            signal.set_wakeup_fd(-1)
        case "add a handler":
            loop.add_signal_handler(signal.SIGTERM, print)
        case "start a program":
            return str(start_program())
        case "start a program asynchronously":
            process = await asyncio.create_subprocess_exec("sleep", "3600")
            process.terminate()
            return str(await process.wait())
        case "start a thread":
            threading.Thread(target=threading.Event().wait).start()
        case "resist":
            while True:
                with contextlib.suppress(asyncio.CancelledError):
                    await asyncio.Event().wait()
        case "wait":
            await asyncio.Event().wait()
    return "done"


@ring_kernel(input_type=Deed, output_type=Deed)
async def rogue(ctx: KernelContext[Deed, Deed]) -> None:
    async for deed in ctx:
        try:
            outcome = await do(deed)
        except (ValueError, RuntimeError) as error:
            outcome = str(error)
        await ctx.send(replace(deed, what=outcome))


@ring_kernel(input_type=Deed, output_type=Deed)
def rogue_thread(ctx: BlockingContext[Deed, Deed]) -> None:
    for _ in ctx:
        raise KeyboardInterrupt("a rogue's")


@ring_kernel(input_type=Deed, output_type=Deed)
async def rogue_batch(ctx: KernelContext[Deed, Deed]) -> None:
    async for batch in ctx.batches(max_size=2):
        await batch.reply(what=[(await do(deed)) for deed in batch])


@ring_kernel(input_type=Deed, output_type=Deed)
async def bystander(ctx: KernelContext[Deed, Deed]) -> None:
    async for deed in ctx:
        await ctx.send(replace(deed, what="fine"))
