"""What a worker process runs first."""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import os
import signal
import socket
import sys

from pydotcompute.worker.marks import Marks
from pydotcompute.worker.program import Program

__all__ = ["main"]

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Run the worker whose descriptors and parent are named on the command line."""
    link, marks, crash, count, parent = map(int, sys.argv[1:])
    sys.argv[1:] = []
    # Whatever the actor does, it ends when its parent does.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit(1)
    words = os.fdopen(crash, "w")  # The parent reads this file if the process crashes.
    faulthandler.enable(words)
    # So it says where it was when its parent ends it, for taking too long say. After that the signal does what it does.
    faulthandler.register(signal.SIGTERM, words, chain=True)
    asyncio.run(_run(socket.socket(fileno=link), Marks(marks, count)))


async def _run(end: socket.socket, marks: Marks) -> None:
    await Program(marks).run(end)
