"""What a worker process runs first."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import socket
import sys

from pydotcompute.worker.marks import Marks
from pydotcompute.worker.parent import end_with
from pydotcompute.worker.program import Program

__all__ = ["main"]


def main() -> None:
    """Run the worker whose descriptors and parent are named on the command line."""
    link, marks, crash, count, parent = map(int, sys.argv[1:])
    sys.argv[1:] = []
    end_with(parent)
    faulthandler.enable(os.fdopen(crash, "w"))  # The parent reads this file if the process crashes.
    asyncio.run(_run(socket.socket(fileno=link), Marks(marks, count)))


async def _run(end: socket.socket, marks: Marks) -> None:
    await Program(marks).run(end)
