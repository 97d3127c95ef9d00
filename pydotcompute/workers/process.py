"""One worker process, from its start to its end, and the link to it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from pydotcompute.wire.exchange.bodies import Opens
from pydotcompute.wire.worker.frames import Frame, LinkError, Note
from pydotcompute.wire.worker.start import Start
from pydotcompute.worker.link import Link
from pydotcompute.worker.marks import Marks

__all__ = ["WorkerProcess"]

PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv.pop()); from pydotcompute.worker.command import main; main()"
)
"""What a worker process runs. It finds modules where this process finds them."""
LAST_WORDS = 64 << 10
"""The most bytes that are read of what a crashed process says of its stack."""
DRAIN = 1.0
"""Seconds in which the link of a process that has ended must end too. A child of the process may hold it open."""


class WorkerProcess:
    """A worker process. Make it with `start`.

    Args:
        marks: what its actor has taken.
        crash: the descriptor of the file for its last words.
    """

    def __init__(self, marks: Marks, crash: int) -> None:
        self._process: subprocess.Popen[bytes]
        self.marks = marks
        self._crash = crash
        self._link: Link
        self._link_ended = asyncio.Event()
        self.exit: asyncio.Task[int]
        """Ends with the process, and all that it had sent has come then. Its result is the exit code.

        As in `subprocess`, that is the negative number of a signal if one has ended the process.
        """
        self.broken: LinkError | None = None
        """How the process has broken the rules of the link; None if it has not."""

    @classmethod
    async def start(cls, start: Start, on_frame: Callable[[Frame], None], capacity: int) -> WorkerProcess:
        """Start a process, and tell it what to run.

        Args:
            start: what the worker runs.
            on_frame: called with each frame that comes from it. If it raises LinkError, the process is killed.
            capacity: the most messages that may be ahead of its actor.

        Raises:
            OSError: the system allows no more processes or files.
        """
        here, there = socket.socketpair()
        marks, marks_file = Marks.create(capacity)
        crash = os.memfd_create("pydotcompute-crash")
        worker = cls(marks, crash)
        try:
            worker._link = await Link.open(here, on_frame, worker._on_end)
            # From here on nothing is awaited, so that no process is left behind if the task is cancelled.
            try:
                worker._process = _spawn(there.fileno(), marks_file, crash, capacity)
            except BaseException:
                worker._link.close()
                raise
        except BaseException:
            os.close(crash)
            raise
        finally:
            there.close()
            os.close(marks_file)
        worker.exit = asyncio.create_task(worker._wait(), name=f"end of worker {worker.pid}")
        worker.send(Note("start", asdict(start)))
        return worker

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def _on_end(self, broken: LinkError | None) -> None:
        self.broken = broken
        if broken is not None:
            self.kill()
        self._link_ended.set()

    def send(self, frame: Frame) -> None:
        """Send a frame. If the process is gone, nothing happens."""
        self._link.send(frame)

    def open_bodies_with(self, bodies: Opens) -> None:
        """Open bodies by this that do not travel in their frames."""
        self._link.open_bodies_with(bodies)

    def kill(self) -> None:
        """End the process at once."""
        if self._process.poll() is None:
            self._process.kill()

    async def _wait(self) -> int:
        try:
            await _exited(self.pid)
        except asyncio.CancelledError:  # The event loop ends.
            self.kill()
            self._process.wait()
            raise
        code = self._process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await self._link_ended.wait()
        self._link.close()
        return code

    async def end(self, grace: float) -> None:
        """Close the link and wait for the end of the process. Kill it after `grace` seconds."""
        self._link.close()
        await asyncio.wait((self.exit,), timeout=grace)
        self.kill()
        await asyncio.wait((self.exit,))

    def last_words(self) -> str:
        """Return what the process has said of its stack when it crashed."""
        return os.pread(self._crash, LAST_WORDS, 0).decode(errors="replace")

    def close(self) -> None:
        """Free what belongs to the process, which has ended."""
        os.close(self._crash)
        self.marks.close()


def _spawn(link: int, marks: int, crash: int, capacity: int) -> subprocess.Popen[bytes]:
    """Start the process. The thread that does this must live as long as the process is wanted: it ends with it."""
    path = json.dumps([entry for entry in sys.path if isinstance(entry, str)])
    arguments = *map(str, (link, marks, crash, capacity, os.getpid())), path
    return subprocess.Popen(  # noqa: S603  # It runs this very Python.
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=subprocess.DEVNULL,
        pass_fds=(link, marks, crash),
        process_group=0,  # A Ctrl-C in the terminal is for this process, which then ends its workers.
    )


async def _exited(pid: int) -> None:
    """Wait until a child process has ended, without a thread and without asking again and again."""
    loop = asyncio.get_running_loop()
    descriptor = os.pidfd_open(pid)
    ended: asyncio.Future[None] = loop.create_future()

    def tell() -> None:
        loop.remove_reader(descriptor)
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, tell)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


def name_of_exit(code: int) -> tuple[str, str]:
    """Return the name of how a process has ended, such as SIGSEGV, and the same in words."""
    if code >= 0:
        return "WorkerExited", f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"SIG{-code}"
    return name, f"was ended by {name}"
