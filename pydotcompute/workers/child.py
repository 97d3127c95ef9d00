"""A process that a template has forked for this process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from contextlib import suppress

from pydotcompute.worker.orders import hear

__all__ = ["Child", "TemplateLostError", "UnfitFileError"]


class TemplateLostError(Exception):
    """A template has ended, or cannot fork what it was asked for."""


class UnfitFileError(TemplateLostError):
    """A file cannot be imported by a template, because of what it does while it is imported."""


class Child:
    """A process that a template has forked for this process.

    Args:
        pid: the number of the process.
        descriptor: the descriptor of the process.
        report: where its template tells how it has ended.
    """

    def __init__(self, pid: int, descriptor: int, report: socket.socket) -> None:
        self.pid = pid
        self._descriptor = descriptor
        self._report = report
        self._closed = False

    @classmethod
    async def born(cls, report: socket.socket) -> Child:
        """Wait for the process of which this socket tells.

        Raises:
            TemplateLostError: the template has ended before, or its file cannot be imported.
            OSError: the system allows no more processes.
        """
        try:
            await _readable(report.fileno())
            data, descriptors = hear(report)
            if not data:
                raise TemplateLostError("it has ended")
            told = json.loads(data)
            if "unfit" in told:
                raise UnfitFileError(told["unfit"])
            if "failed" in told:
                raise TemplateLostError(told["failed"])
            if "error" in told:
                raise OSError(told["error"])
        except BaseException:
            report.close()
            raise
        return cls(told["pid"], descriptors[0], report)

    async def wait(self) -> int | None:
        """Wait until the process has ended, and return its exit code.

        As in `subprocess`, that is the negative number of a signal if one has ended the process. None stands for an
        exit code that nobody knows, because the template has ended before the process.
        """
        await _readable(self._report.fileno())
        data, _ = hear(self._report)
        if data:
            code: int | None = json.loads(data)["exit"]
            return code
        await _readable(self._descriptor)
        return self._inherited()

    def _inherited(self) -> int | None:
        """Return the exit code if this process has inherited it, as the first process of a container does."""
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, os.WNOHANG)[1])
        except ChildProcessError:
            return None

    def kill(self) -> None:
        """End the process at once. If it has ended, nothing happens."""
        self._send(signal.SIGKILL)

    def terminate(self) -> None:
        """Ask the process to end. If it has ended, nothing happens."""
        self._send(signal.SIGTERM)

    def _send(self, number: signal.Signals) -> None:
        if not self._closed:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._descriptor, number)

    def close(self) -> None:
        """Close what belongs to a process that has ended, or that is left to itself."""
        self._closed = True
        os.close(self._descriptor)
        self._report.close()


async def _readable(descriptor: int) -> None:
    """Wait until there is something to read, without a thread and without asking again and again."""
    loop = asyncio.get_running_loop()
    readable: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(descriptor)
        if not readable.done():
            readable.set_result(None)

    loop.add_reader(descriptor, tell)
    try:
        await readable
    finally:
        loop.remove_reader(descriptor)
