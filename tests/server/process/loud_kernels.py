"""Kernels that write wherever a program can."""

import ctypes
import logging
import os
import subprocess
import sys
import warnings
from typing import Any

from pydotcompute import message, ring_kernel
from pydotcompute.ring_kernels.lifecycle import KernelContext

Context = KernelContext[Any, Any]

os.write(1, b"written while the file is loaded\n")


@message(package="loud.v1")
class Line:
    """A text."""

    text: str = ""


def by_a_child_process() -> None:
    """Prints in another process."""
    subprocess.run("echo by a child process; echo by its stderr >&2", shell=True, check=True)


def a_child_process() -> int:
    """The id of a process that goes on."""
    return subprocess.Popen(["sleep", "600"]).pid


@ring_kernel(input_type=Line, output_type=Line)
async def loud(ctx: Context) -> None:
    """Writes to everything that there is, once for each message."""
    async for line in ctx:
        print(".", end="", flush=True)
        print("waits for its end", end="")
        line.text = "begun"
        await ctx.send(line)
        line = await ctx.receive()
        print(", which comes")
        print("\r 50%|##  |\x1b[2K\r2026-01-01T00:00:00 [info     ] forged\u202e")
        sys.stderr.write("to sys.stderr\n")
        sys.stdout.buffer.write(b"bytes to sys.stdout\n")
        warnings.warn("take care\nof two lines", stacklevel=1)
        logging.getLogger("mine").info("two\n2026-01-01 lines", extra={"key": "a\x1b\nb"})
        logging.getLogger("mine").info("%d", "no number")
        ctypes.CDLL(None).printf(b"by C, which keeps it until it is flushed\n")
        os.write(2, b"to descriptor 2\xff\n")
        by_a_child_process()
        line.text = "done"
        await ctx.send(line)


@ring_kernel(input_type=Line, output_type=Line)
async def talkative(ctx: Context) -> None:
    """Writes more than a pipe holds, in two ways."""
    async for line in ctx:
        for _ in range(2_000):
            print("x" * 100)
            os.write(1, b"y" * 100 + b"\n")
        await ctx.send(line)


@ring_kernel(input_type=Line, output_type=Line)
async def failing(ctx: Context) -> None:
    """Fails with the text that it is sent."""
    async for line in ctx:
        raise ValueError(line.text)


@ring_kernel(input_type=Line, output_type=Line)
async def dying(ctx: Context) -> None:
    """Ends the whole process, with an unfinished line."""
    async for line in ctx:
        os.write(1, b"so far")
        os.write(2, line.text.encode())
        os.abort()


@ring_kernel(input_type=Line, output_type=Line)
async def parent(ctx: Context) -> None:
    """Starts a process that outlives the daemon, and speaks at its own end."""
    try:
        async for line in ctx:
            line.text = str(a_child_process())
            await ctx.send(line)
    finally:
        os.write(1, b"goodbye")
