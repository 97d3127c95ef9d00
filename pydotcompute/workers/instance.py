"""One instance of a kernel: a worker process at a time, with what was handed on to it."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from time import monotonic
from typing import Any

from pydotcompute.device.settings import text_of_bytes
from pydotcompute.ring_kernels.actor.runner import ActorError, WorkerLostError
from pydotcompute.ring_kernels.declaration import KernelType
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.telemetry import WorkerTelemetry
from pydotcompute.wire.worker.errors import from_values
from pydotcompute.wire.worker.frames import Frame, LinkError, Note, Recall
from pydotcompute.wire.worker.ledger import Entry, Ledger, Window
from pydotcompute.wire.worker.memory import LinkMemory
from pydotcompute.wire.worker.overuse import Look, Overuse
from pydotcompute.wire.worker.pace import Pace
from pydotcompute.wire.worker.start import Start
from pydotcompute.wire.worker.types import LinkTypes
from pydotcompute.workers.figures import allocated_bytes, figures_of
from pydotcompute.workers.placing import as_asked
from pydotcompute.workers.process import WorkerProcess

__all__ = ["Instance"]

logger = logging.getLogger(__name__)

SLOTS = 1 << 16
"""The most messages that may be ahead of one actor, and no more than its mailbox holds."""
TOGETHER = 64
"""The window of messages from which on those that are handed on wait for each other."""
AHEAD = 256
"""The most messages that are ahead of an actor, beside more urgent ones and larger batches."""
AHEAD_BYTES = 4 << 20
"""No more messages are handed on while this many bytes are ahead of an actor."""

EXITED = Note("exited")
"""Stands in the place of a note of a worker that can send none any more."""


class Instance:
    """One instance of a kernel.

    Args:
        kernel: the kernel.
        kernel_type: the type of the kernel, as its file says now.
        start: what the worker runs.
        on_frame: called with this instance and each frame that is about messages, or forwards one.
        number: its number among the instances of the kernel, from 0. One that takes its place has the same.
    """

    def __init__(
        self,
        kernel: RingKernel[Any, Any],
        kernel_type: KernelType,
        start: Start,
        on_frame: Callable[[Instance, Frame], None],
        number: int,
    ) -> None:
        self.number = number
        self._kernel = kernel
        self._type = kernel_type
        self._start = start
        self._on_frame = on_frame
        self.window = Window(1, AHEAD_BYTES)
        """How much may be ahead of the actor."""
        self._pace: Pace | None = None  # Says how many messages should be ahead; None leaves it at the window.
        self._batch = 1  # The largest batch that the actor asks for, which must be ahead as a whole.
        self.process: WorkerProcess | None = None
        """The worker process; None while there is none."""
        self.ledger: Ledger[Item[Any]]
        """What the worker process has."""
        self.types: LinkTypes
        """The message classes of the link."""
        self.memory: LinkMemory
        """The memory that is shared with the worker process, for long bodies."""
        self._grace = kernel.limits.cancellation_grace  # Seconds that the process has to end by itself.
        self.is_ready = False
        """True from the launch in the worker to the end of the actor."""
        self.is_leaving = False
        """True once the actor was told to end while the kernel goes on: it is handed nothing more."""
        self._told_outputs = 0  # The outputs for which the worker knows that it has room.
        self.outputs = 0
        """The outputs of this worker, and of those before it, that still take room, as the worker knows it."""
        self.calls: dict[int, asyncio.Task[None]] = {}
        """What the actor wants of other kernels, by the numbers of its calls. It ends with the worker process."""
        self.completed = 0
        """The messages that the actor has done, in all processes of this instance."""
        self._alone: int | None = None  # The sequence of a message beside which the actor gets no other.
        self._overuse: Overuse
        self._news: asyncio.Future[Note]  # The first that is heard of the process: a note, or `EXITED`.
        self._end: asyncio.Future[Note]  # How the actor has ended: a note, or `EXITED`.
        self._pauses: deque[asyncio.Future[None]] = deque()

    # -- the process ---------------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start a worker process, and wait until its actor first waits.

        Raises:
            ActorError: the actor has failed, or the kernel's file cannot be imported.
            WorkerLostError: the process has died.
            PyDotComputeError: the worker refuses to launch the kernel, for example because there is no GPU.
        """
        kernel_type = self._type
        assert kernel_type.input_type is not None
        self.types = LinkTypes(kernel_type.input_type, kernel_type.output_type)
        loop = asyncio.get_running_loop()
        self._news, self._end = loop.create_future(), loop.create_future()
        start = replace(self._start, outputs=self.outputs)
        self._told_outputs = self._start.config["output_queue_size"]
        capacity = min(SLOTS, self._kernel.config.input_queue_size + 1)
        patience = self._kernel.limits.worker_start
        own = self._kernel.type.worker_limits
        self._overuse = Overuse(own.time_limit, own.hang_timeout, self._start.memory)
        self._alone = None
        try:
            async with asyncio.timeout(patience):
                self.process = process = await WorkerProcess.start(start, self._frame, capacity)
                self.memory = LinkMemory(self.types.codecs)
                process.open_bodies_with(self.memory)
                self.ledger = Ledger(process.marks.taken, self.window)
                process.exit.add_done_callback(lambda _: self._tell(EXITED))
                await asyncio.wait((self._news,))
        except TimeoutError:
            problem = f"its worker was not ready within {patience:g} seconds"
            raise WorkerLostError("TimeoutError", problem) from None
        except OSError as error:
            raise WorkerLostError("OSError", f"no worker process can be started: {error}") from error
        note = self._news.result()
        if note.what == "refused to launch":
            raise as_asked(from_values(note.values), self._start)
        if note.what == "failed":
            raise self._failure(note)
        if note is EXITED:
            raise self._lost(process)
        self.is_ready = note.what == "ready"
        self._tell_room()

    async def serve(self) -> None:
        """Wait until the actor returns.

        Raises:
            ActorError: the actor has failed.
            WorkerLostError: the process has died.
        """
        process = self.process
        assert process is not None
        try:
            while not (await asyncio.wait((self._end,), timeout=self._overuse.interval))[0]:
                self._look(process)
        except asyncio.CancelledError:
            self.tell("cancel")
            # The kernel waits no longer than its grace for all of this.
            self._grace = 0.1 * self._kernel.limits.cancellation_grace
            await asyncio.wait((self._end,), timeout=0.7 * self._kernel.limits.cancellation_grace)
            raise
        finally:
            self.is_ready = False
            self._release_pauses()
        note = self._end.result()
        if note is EXITED:
            raise self._lost(process)
        if note.what == "failed":
            raise self._failure(note)

    def _lost(self, process: WorkerProcess) -> WorkerLostError:
        """Return the error about a process that has ended without a word."""
        if process.broken is not None:
            return WorkerLostError("LinkError", f"its worker (process {process.pid}) was killed: {process.broken}")
        name, how = process.cause()
        error = WorkerLostError(name, f"its worker (process {process.pid}) {how}")
        if words := process.last_words():
            error.add_note(words)
        return error

    def _look(self, process: WorkerProcess) -> None:
        """End the process if it takes more than it may. This is called now and then, and only if there is a limit."""
        marks = process.marks
        taken = [entry.sequence for entry in self.ledger.taken()]
        look = Look(
            monotonic(),
            marks.beat,
            0 if self._start.memory is None else allocated_bytes(process.pid),
            (self.completed, len(taken), taken[-1]) if taken else None,
            bool(marks.stuck_since_ns),
        )
        verdict = self._overuse.judge(look)
        if verdict is not None:
            process.condemn(verdict, self._kernel.limits.cancellation_grace)

    def telemetry(self) -> WorkerTelemetry | None:
        """Return the figures of the process; None if there is none."""
        process = self.process
        figures = None if process is None else figures_of(process.pid)
        if process is None or figures is None:
            return None
        in_hand = sum(1 for _ in self.ledger.taken())
        ahead = sum(1 for _ in self.ledger.untaken())
        return WorkerTelemetry(process.pid, figures.resident_bytes, figures.cpu_seconds, in_hand, ahead)

    def _failure(self, note: Note) -> ActorError:
        """Return the error about an actor that has raised."""
        values = note.values
        cause_type, text = str(values.get("cause_type")), str(values.get("text"))
        if cause_type == "MemoryError" and self._start.memory is not None:
            limit = f"its worker may have {text_of_bytes(self._start.memory)} of memory"
            text = f"{text} ({limit})" if text else limit
        error = ActorError(cause_type, text)
        error.add_note(str(values.get("traceback", "")))
        return error

    async def stop(self) -> None:
        """End the process, if there is one."""
        process = self.process
        self.is_ready = False
        self._release_pauses()
        if process is not None:
            await process.end(self._grace)
            self.process = None
            process.close()
            self.memory.close()

    def kill(self) -> None:
        """End the process at once, if there is one."""
        if self.process is not None:
            self.process.kill()

    # -- what is sent and what comes -----------------------------------------------------------------------------------

    def tell(self, what: str, **values: Any) -> None:
        """Send a note, if there is a process."""
        if self.process is not None:
            self.process.send(Note(what, values))

    def share_memory(self) -> None:
        """Offer the worker memory for long bodies, unless that was done."""
        if self.memory.want() and self.process is not None and (offer := self.memory.offer()):
            self.process.send(Note("memory", body=offer))

    def takes(self, priority: int) -> bool:
        """Return True if a message of this priority may be handed on now.

        Nothing may while a pause is under way, or it would come before what then comes back.
        """
        if self._alone is not None:
            if self.ledger.has(self._alone):
                return False
            self._alone = None
        return self.is_ready and not (self._pauses or self.is_leaving) and self.ledger.takes(priority)

    def gets_alone(self, entry: Entry[Item[Any]], deliveries: int) -> None:
        """Note that the next message handed on is given again, and that the actor gets no other before it is done."""
        self._alone = entry.sequence
        self.tell("redelivered", deliveries=deliveries)

    def has_enough(self, priority: int) -> bool:
        """Return True if a message of this priority may wait until more goes to the worker together."""
        return self.window.messages >= TOGETHER and self.ledger.has_enough and not self.ledger.is_urgent(priority)

    def handed(self) -> None:
        """Note that messages were handed on."""
        if self._pace is not None:
            self._pace.handed(monotonic())

    def done(self, count: int) -> None:
        """Note that the actor is done with so many messages: what is ahead of it follows its pace."""
        self.completed += count
        if self._pace is not None and count:
            ahead = self._pace.done(count, monotonic(), left=bool(self.ledger.ahead or self.ledger.in_hand))
            self.window.messages = max(self._batch, ahead)

    @property
    def is_free(self) -> bool:
        """True if the actor has nothing to do, and could have."""
        return self.takes(0) and not (self.ledger.ahead or self.ledger.in_hand or self.calls)

    def call_back(self) -> None:
        """Call back what is ahead of the actor."""
        entries = [entry for entry in self.ledger.untaken() if not (entry.recalled or entry.withdrawn)]
        for entry in entries:
            entry.recalled = True
        if entries and self.process is not None:
            self.process.send(Recall([entry.sequence for entry in entries]))

    def share(self, count: int) -> None:
        """Note how many instances share the mailboxes now. One of several has ahead what it does in a moment."""
        # Under `drop_oldest` the oldest is dropped, and only what is not ahead can be.
        drops = self._kernel.mail.inbox.backpressure.drops
        if drops or count == 1:
            self._pace = None
            self.window.messages = max(self._batch, 1 if drops else AHEAD)
        elif self._pace is None:
            self._pace = Pace(AHEAD)
            self.window.messages = self._batch
        # Each actor may fill its share of the output mailbox.
        outputs = max(1, self._kernel.config.output_queue_size // count)
        self._start = replace(self._start, config={**self._start.config, "output_queue_size": outputs})
        if self.is_ready:
            self._tell_room()

    def _tell_room(self) -> None:
        """Tell the worker for how many outputs there is room, if that has changed since it was told."""
        outputs = self._start.config["output_queue_size"]
        if outputs != self._told_outputs:
            self.tell("room", outputs=outputs - self._told_outputs)
            self._told_outputs = outputs

    def leave(self) -> None:
        """Tell the actor to end once it has finished what it has in hand. What it has ahead comes back."""
        self.is_leaving = True
        if self.is_ready:
            self.call_back()
            self.tell("end")

    async def pause(self) -> None:
        """Pause the actor, and wait until everything that it has not taken is back."""
        if not self.is_ready:
            return
        paused = asyncio.get_running_loop().create_future()
        self._pauses.append(paused)
        self.tell("pause")
        await paused

    def _release_pauses(self) -> None:
        while self._pauses:
            if not (paused := self._pauses.popleft()).done():
                paused.set_result(None)

    def _frame(self, frame: Frame) -> None:
        match frame:
            case Note("ready"):
                if not self._news.done():
                    self._news.set_result(frame)
            case Note("refused to launch" | "failed" | "ended"):
                self._tell(frame)
            case Note("paused"):
                if not self._pauses:
                    raise LinkError("the worker says that it has paused, and was not asked to")
                if not (paused := self._pauses.popleft()).done():
                    paused.set_result(None)
                self._on_frame(self, frame)
            case Note("type", {"name": str(name)}, files):
                self.types.add_named(name, files)
            case Note("long"):
                self.share_memory()
            case Note("attached"):
                self.memory.settle()
            case Note("batches", {"size": int(size)}):
                self._batch = max(self._batch, size)
                self.window.messages = max(self.window.messages, size)
            case Note("log", values):
                self._log(values)
            case _:
                self._on_frame(self, frame)

    def _tell(self, end: Note) -> None:
        for future in (self._news, self._end):
            if not future.done():
                future.set_result(end)
        for call in self.calls.values():
            call.cancel()

    def _log(self, values: dict[str, Any]) -> None:
        try:
            level, text, name = int(values["level"]), str(values["text"]), str(values["logger"])
        except (KeyError, ValueError, TypeError) as error:
            raise LinkError(f"a note for the log is malformed: {error}") from error
        if values.get("traceback"):
            text = f"{text}\n{values['traceback']}"
        logging.getLogger(name).log(level, "%s", text, extra={"kernel_id": self._kernel.kernel_id})
