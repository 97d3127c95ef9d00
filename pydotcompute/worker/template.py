"""A template: a process with one thread from which workers are forked, so that they need not import what it has.

The first template has imported this package and no code of a user. Others are forked from it, one for each file of
kernels, and have imported that file. A template never has a GPU.
"""

from __future__ import annotations

import gc
import os
import select
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pydotcompute.schema import lock
from pydotcompute.worker.importing import find
from pydotcompute.worker.orders import Order, Received, receive, tell

__all__ = ["Template", "refuse", "unfit_after"]

LONGEST_REASON = 500
"""The most characters of what is told about a failed import."""


class Template:
    """Forks processes as it is asked.

    Args:
        control: where the orders come from.
    """

    def __init__(self, control: socket.socket) -> None:
        self._control: socket.socket | None = control
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)
        self._children: dict[int, tuple[int, socket.socket]] = {}  # By descriptor of the process.

    def serve(self) -> Received | None:
        """Fork as is ordered. Return the order in each process that was forked.

        Returns:
            In the template itself: None, when no more orders come and all children have ended.
        """
        while self._control is not None or self._children:
            for descriptor, _ in self._poll.poll():
                if descriptor in self._children:
                    self._ended(descriptor)
                elif self._control is not None:
                    try:
                        received = receive(self._control)
                    except OSError:  # Too many files are open. Who has ordered sees the end of the socket for reports.
                        continue
                    if received is None:
                        self._poll.unregister(self._control)
                        self._control.close()
                        self._control = None
                    elif self._fork(received):
                        return received
        return None

    def _fork(self, received: Received) -> bool:
        """Fork. Return True in the child."""
        gc.freeze()  # The collector of the child does not look at what it has from here, so the memory stays shared.
        try:
            child = os.fork()
        except OSError as error:
            tell(received.report, error=str(error))
            received.close()
            received.report.close()
            return False
        if child == 0:
            self._forget()
            received.report.close()
            return True
        received.close()
        descriptor = os.pidfd_open(child)  # There is room for it: more than one file was just closed.
        tell(received.report, [descriptor], pid=child)
        self._children[descriptor] = child, received.report
        self._poll.register(descriptor, select.POLLIN)
        return False

    def _forget(self) -> None:
        """Close in a child what is the template's."""
        for descriptor, (_, report) in self._children.items():
            os.close(descriptor)
            report.close()
        if self._control is not None:
            self._control.close()

    def _ended(self, descriptor: int) -> None:
        child, report = self._children.pop(descriptor)
        self._poll.unregister(descriptor)
        os.close(descriptor)
        code = None
        with suppress(ChildProcessError):  # The file has set that the system forgets children.
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        tell(report, exit=code)
        report.close()


def refuse(control: socket.socket, reason: dict[str, Any]) -> None:
    """Answer one order with a reason."""
    received = receive(control)
    if received is not None:
        tell(received.report, (), **reason)


def unfit_after(order: Order, output: int, errors: int) -> dict[str, str]:
    """Import the file that the order names. Return why this process cannot be a template; nothing if it can.

    What is opened or started while a file is imported would be shared by all workers, or would be missing there.

    Args:
        order: an order for a template.
        output, errors: the descriptors for what the file prints meanwhile.
    """
    assert order.imports is not None
    opened = _open_files()
    try:
        with _printing_to(output, errors):
            lock.use(lock.parse(order.lock))
            find(order.imports)
    except BaseException as error:
        return {"failed": f"{type(error).__name__}: {error}"[:LONGEST_REASON]}
    new = [each for each in _open_files() if each not in opened]
    gpu = next((each for each in new if each.startswith("/dev/nvidia")), None)
    if gpu is not None:
        return {"unfit": "it uses a GPU while it is imported"}
    if new:
        return {"unfit": f"what it opens while it is imported stays open ({new[0]})"}
    if _has_children():
        return {"unfit": "it starts a process while it is imported"}
    if _threads_at_a_fork() > 1:
        return {"unfit": "it starts a thread while it is imported"}
    return {}


def _open_files() -> list[str]:
    """Return what is open, as the system names it."""
    names = []
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # It was that of the list itself.
            names.append(os.readlink(f"/proc/self/fd/{descriptor}"))
    return names


def _has_children() -> bool:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def _threads_at_a_fork() -> int:
    """Fork, and return how many threads this process has then.

    Libraries such as OpenBLAS end their threads before a fork, and start them again when they need them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python warns if there are threads.
        child = os.fork()
    if child == 0:
        os._exit(0)
    with suppress(ChildProcessError):
        os.waitpid(child, 0)
    return len(os.listdir("/proc/self/task"))


@contextmanager
def _printing_to(output: int, errors: int) -> Iterator[None]:
    """Let standard output and standard error go to these descriptors in a block. They are closed then."""
    kept = os.dup(1), os.dup(2)
    try:
        for descriptor, target in zip((output, errors), (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        yield
    finally:
        for stream in (sys.stdout, sys.stderr):
            with suppress(Exception):
                stream.flush()
        for descriptor, target in zip(kept, (1, 2), strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
