"""One worker process, from its start to its end, and the link to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict

from pydotcompute.wire.worker.frames import Frame, LinkError, Note
from pydotcompute.wire.worker.start import Start
from pydotcompute.worker.link import Link
from pydotcompute.worker.marks import Marks
from pydotcompute.workers.child import Child
from pydotcompute.workers.printed import Printed
from pydotcompute.workers.templates import TEMPLATES

__all__ = ["WorkerProcess"]

LAST_WORDS = 64 << 10
"""The most bytes that are read of what a crashed process says of its stack."""
DRAIN = 1.0
"""Seconds in which the link of a process that has ended must end too, and what it has printed be printed here. A child
of the process may hold the link open, and may go on printing."""


class WorkerProcess:
    """A worker process. Make it with `start`.

    Args:
        marks: what its actor has taken.
        crash: the descriptor of the file for its last words.
        printed: its standard output and standard error.
    """

    def __init__(self, marks: Marks, crash: int, printed: tuple[Printed, Printed]) -> None:
        self._child: Child | None = None  # None until it is born.
        self.marks = marks
        self._crash = crash
        self._printed = printed
        self._link: Link
        self._link_ended = asyncio.Event()
        self.exit: asyncio.Task[int | None]
        """Ends with the process, and all that it had sent and printed has come then. Its result is the exit code.

        As in `subprocess`, that is the negative number of a signal if one has ended the process. It is None if nobody
        knows the exit code.
        """
        self.broken: LinkError | None = None
        """How the process has broken the rules of the link; None if it has not."""

    @classmethod
    async def start(cls, start: Start, on_frame: Callable[[Frame], None], capacity: int) -> WorkerProcess:
        """Start a process, and tell it what to run.

        If this task is cancelled meanwhile, the process ends by itself: its link is closed then.

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
        printed = Printed("stdout", start.kernel_id), Printed("stderr", start.kernel_id)
        worker = cls(marks, crash, printed)
        try:
            worker._link = await Link.open(here, on_frame, worker._on_end)
            try:
                descriptors = there.fileno(), marks_file, crash, *(each.descriptor for each in printed)
                worker._child = await TEMPLATES.fork(start.func, start.environ, descriptors, capacity)
            except BaseException:
                worker._link.close()
                raise
        except BaseException:
            worker.close()
            raise
        finally:
            there.close()
            os.close(marks_file)
            for each in printed:
                each.given()
        if worker.broken is not None:
            worker.kill()
        worker.exit = asyncio.create_task(worker._wait(worker._child), name=f"end of worker {worker.pid}")
        worker.send(Note("start", asdict(start)))
        return worker

    @property
    def pid(self) -> int:
        """The number of the process."""
        assert self._child is not None
        return self._child.pid

    def _on_end(self, broken: LinkError | None) -> None:
        self.broken = broken
        if broken is not None:
            self.kill()
        self._link_ended.set()

    def send(self, frame: Frame) -> None:
        """Send a frame. If the process is gone, nothing happens."""
        self._link.send(frame)

    def kill(self) -> None:
        """End the process at once."""
        if self._child is not None:
            self._child.kill()

    async def _wait(self, child: Child) -> int | None:
        try:
            code = await child.wait()
        except asyncio.CancelledError:  # The event loop ends.
            child.kill()
            raise
        finally:
            child.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN):
                await asyncio.gather(self._link_ended.wait(), *(each.finish() for each in self._printed))
        self._link.close()
        return code

    async def end(self, grace: float) -> None:
        """Close the link and wait for the end of the process. Kill it after `grace` seconds."""
        self._link.close()
        await asyncio.wait((self.exit,), timeout=grace)
        if not self.exit.done():
            self.kill()
            await asyncio.wait((self.exit,))

    def last_words(self) -> str:
        """Return what the process has said of its stack when it crashed."""
        return os.pread(self._crash, LAST_WORDS, 0).decode(errors="replace")

    def close(self) -> None:
        """Free what belongs to the process, which has ended."""
        for each in self._printed:
            each.close()
        os.close(self._crash)
        self.marks.close()


def name_of_exit(code: int | None) -> tuple[str, str]:
    """Return the name of how a process has ended, such as SIGSEGV, and the same in words."""
    if code is None:
        return "WorkerExited", "has ended, and its template before it, so nobody knows how"
    if code >= 0:
        return "WorkerExited", f"ended with exit code {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"SIG{-code}"
    return name, f"was ended by {name}"
