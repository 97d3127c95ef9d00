"""What the first template runs, and all that is forked from it."""

from __future__ import annotations

import asyncio
import faulthandler
import gc
import io
import os
import random
import resource
import signal
import socket
import sys

from pydotcompute.worker.lifeline import hold_on
from pydotcompute.worker.marks import Marks
from pydotcompute.worker.orders import Order, Received
from pydotcompute.worker.program import Program
from pydotcompute.worker.template import Template, refuse, unfit_after

try:
    import uvloop
except ImportError:
    _LOOP = None
else:  # As in the daemon. It is imported here, so that the workers of a template share it.
    _LOOP = uvloop.new_event_loop

__all__ = ["main"]


def main() -> None:
    """Run the template whose descriptors are named on the command line. In a worker, run that."""
    control, lifeline = map(int, sys.argv[1:])
    sys.argv[1:] = []
    gc.disable()  # As long as this is a template: the memory is to stay as it is.
    hold_on(lifeline)
    files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (files[1], files[1]))  # A template has two for each worker.
    template = Template(socket.socket(fileno=control))
    while (received := template.serve()) is not None:
        _settle_in(received.order, lifeline)
        if received.order.imports is None:
            os.close(lifeline)
            resource.setrlimit(resource.RLIMIT_NOFILE, files)
            _work(received)
            return
        template = _prepared(received)
    os._exit(0)  # What the file has registered for the end of a program is for its workers.


def _settle_in(order: Order, lifeline: int) -> None:
    """Make this process, which was just forked, independent of the template, and what its order says."""
    os.setpgid(0, 0)  # A Ctrl-C in the terminal is for the process that has ordered it, which then ends its workers.
    hold_on(lifeline)
    for name in os.environ.keys() - order.environ.keys():
        del os.environ[name]
    os.environ.update(order.environ)
    if order.directory is not None:
        os.chdir(order.directory)
    sys.path[:] = order.path
    random.seed()
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()


def _prepared(received: Received) -> Template:
    control, output, errors = received.descriptors
    orders = socket.socket(fileno=control)
    reason = unfit_after(received.order, output, errors)
    if reason:
        refuse(orders, reason)
        os._exit(0)
    return Template(orders)


def _work(received: Received) -> None:
    gc.enable()
    link, marks, crash, output, errors = received.descriptors
    for descriptor, target in ((output, 1), (errors, 2)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)
    words = os.fdopen(crash, "w")  # The parent reads this file if the process crashes.
    faulthandler.enable(words)
    # So it says where it was when its parent ends it, for taking too long say. After that the signal does what it does.
    faulthandler.register(signal.SIGTERM, words, chain=True)
    with asyncio.Runner(loop_factory=_LOOP) as runner:
        runner.run(_run(socket.socket(fileno=link), Marks(marks, received.order.capacity)))


async def _run(end: socket.socket, marks: Marks) -> None:
    await Program(marks).run(end)
