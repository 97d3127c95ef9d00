"""Kernels that write wherever a program can."""

import ctypes
import logging
import os
import subprocess
import sys
import warnings

from pydotcompute import message, ring_kernel

os.write(1, b"written while the file is loaded\n")


@message(package="loud.v1")
class Line:
    """A text."""

    text: str = ""


@ring_kernel(input_type=Line, output_type=Line)
async def loud(ctx):
    """Writes to everything that there is, once for each message."""
    async for line in ctx:
        print(".", end="", flush=True)
        print("waits for its end", end="")
        await ctx.send(Line("begun", correlation_id=line.message_id))
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
        subprocess.run("echo by a child process; echo by its stderr >&2", shell=True, check=True)
        await ctx.send(Line("done", correlation_id=line.message_id))


@ring_kernel(input_type=Line, output_type=Line)
async def failing(ctx):
    """Fails with the text that it is sent."""
    async for line in ctx:
        raise ValueError(line.text)


@ring_kernel(input_type=Line, output_type=Line)
async def dying(ctx):
    """Ends the whole process, with an unfinished line."""
    async for line in ctx:
        os.write(1, b"so far")
        os.write(2, line.text.encode())
        os.abort()


@ring_kernel(input_type=Line, output_type=Line)
async def parent(ctx):
    """Starts a process that outlives the daemon, and speaks at its own end."""
    try:
        async for line in ctx:
            child = subprocess.Popen(["sleep", "600"])
            await ctx.send(Line(str(child.pid), correlation_id=line.message_id))
    finally:
        os.write(1, b"goodbye")
