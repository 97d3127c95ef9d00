"""One worker process, from its start to its end, and the link to it."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict

from pydotcompute.wire.exchange.bodies import Opens
from pydotcompute.wire.worker.frames import Frame, LinkError, Note
from pydotcompute.wire.worker.overuse import Verdict
from pydotcompute.wire.worker.start import Start
from pydotcompute.worker.link import Link
from pydotcompute.worker.marks import Marks
from pydotcompute.workers.child import Child
from pydotcompute.workers.figures import oom_kills
from pydotcompute.workers.printed import Printed
from pydotcompute.workers.templates import TEMPLATES

__all__ = ["WorkerProcess"]

LAST_WORDS = 64 << 10
"""The most bytes that are read of what a crashed process says of its stack."""
OUT_OF_MEMORY = "OutOfMemory"
"""The name of the end of a process that the system has killed because memory ran out."""
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

    def __init__(self, marks: Marks, crash: int, printed: Sequence[Printed]) -> None:
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
        self._verdict: Verdict | None = None
        self._killing: asyncio.TimerHandle | None = None
        self._oom_kills = oom_kills()
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
        with ExitStack() as given, ExitStack() as kept:
            here, there = socket.socketpair()
            given.callback(there.close)
            kept.callback(here.close)
            marks, marks_file = Marks.create(capacity)
            given.callback(os.close, marks_file)
            kept.callback(marks.close)
            crash = os.memfd_create("pydotcompute-crash")
            kept.callback(os.close, crash)
            printed = []
            for stream in ("stdout", "stderr"):
                printed.append(each := Printed(stream, start.kernel_id))
                given.callback(each.given)
                kept.callback(each.close)
            worker = cls(marks, crash, printed)
            worker._link = await Link.open(here, on_frame, worker._on_end)
            kept.callback(worker._link.close)
            descriptors = there.fileno(), marks_file, crash, *(each.descriptor for each in printed)
            child = worker._child = await TEMPLATES.fork(start, descriptors, capacity)
            kept.pop_all()
        if worker.broken is not None:
            worker.kill()
        worker.exit = asyncio.create_task(worker._wait(child), name=f"end of worker {worker.pid}")
        worker.send(Note("start", asdict(start)))
        return worker

    def condemn(self, verdict: Verdict, grace: float) -> None:
        """End the process: by SIGTERM, and after `grace` seconds by SIGKILL. The first verdict counts."""
        if self._verdict is not None or self._child is None or self.exit.done():
            return
        self._verdict = verdict
        if verdict.is_urgent:
            self.kill()
        else:
            self._child.terminate()
            self._killing = asyncio.get_running_loop().call_later(grace, self.kill)

    def cause(self) -> tuple[str, str]:
        """Return the name of how the process has ended, such as SIGSEGV, and the same in words. It must have ended."""
        code = self.exit.result()
        name, how = name_of_exit(code)
        if self._verdict is not None:
            return self._verdict.cause_type, f"{self._verdict.text}, and {how}"
        if code == -signal.SIGKILL and self._oom_kills is not None and self._oom_kills != oom_kills():
            return OUT_OF_MEMORY, f"{how} of the system, which had no memory left for its control group"
        return name, how

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

    def open_bodies_with(self, bodies: Opens) -> None:
        """Open bodies by this that do not travel in their frames."""
        self._link.open_bodies_with(bodies)

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
            if self._killing is not None:
                self._killing.cancel()
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
