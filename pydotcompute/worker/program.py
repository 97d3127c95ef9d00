"""The program of a worker: it runs a kernel whose messages come over the link."""

from __future__ import annotations

import asyncio
import logging
import math
import os
import socket
import traceback
from contextlib import suppress
from typing import Any

from pydotcompute.device.lease import HOST
from pydotcompute.exceptions import KernelFailedError, PyDotComputeError
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.schema import lock
from pydotcompute.wire.worker.errors import to_values
from pydotcompute.wire.worker.frames import Frame, Handed, Letter, LinkError, Note, Recall, Returned
from pydotcompute.wire.worker.start import Start
from pydotcompute.wire.worker.types import LinkTypes
from pydotcompute.worker.importing import find
from pydotcompute.worker.link import Link
from pydotcompute.worker.logs import LinkHandler
from pydotcompute.worker.mail import WorkerMail
from pydotcompute.worker.marks import Marks
from pydotcompute.worker.others import Others
from pydotcompute.worker.outbox import Outbox
from pydotcompute.worker.own_limits import limit_memory, settle_in, show_life

__all__ = ["Program"]


class Program:
    """Runs one kernel.

    Args:
        marks: what the actor has taken; the other side maps it too.
    """

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._starting: asyncio.Future[Start] = asyncio.get_running_loop().create_future()
        self._over = asyncio.Event()
        self._link: Link

    async def run(self, end: socket.socket) -> None:
        """Run the kernel until its actor has ended and everything is told."""
        self._link = await Link.open(end, self._on_frame, self._on_end)
        start = await self._starting
        logging.getLogger("pydotcompute.ring_kernels.kernel").disabled = True  # The other side says the same.
        logging.basicConfig(level=start.log_level, handlers=[LinkHandler(self._send, start.log_level)], force=True)
        if await self._launch(start):
            await self._over.wait()
        self._over.set()
        self._link.finish()
        await self._link.wait_closed()

    async def _launch(self, start: Start) -> bool:
        """Import the kernel's file and launch the kernel. Return False if there is no kernel."""
        lock.use(lock.parse(start.lock))
        try:
            settle_in(start.cpus, start.nice)
        except PyDotComputeError as error:
            self._link.send(Note("refused to launch", to_values(error)))
            return False
        if start.beat is not None:
            show_life(self._marks, start.beat)
        try:
            kernel_type = start.kernel_type(find)
            assert kernel_type.input_type is not None
            types = LinkTypes(kernel_type.input_type, kernel_type.output_type)
        except BaseException as error:
            self._tell_failure(error, "the file of the kernel cannot be imported by its worker: ")
            return False
        if start.memory is not None:
            limit_memory(start.memory)
        self._outbox = outbox = Outbox(self._send, types)
        self._link.open_bodies_with(outbox.memory)
        self._others = Others(outbox, types)
        kernel: RingKernel[Any, Any] = RingKernel(
            start.kernel_id,
            kernel_type,
            find=self._others.find,
            sends_to=HOST,
            limits=RuntimeLimits(**start.limits),
            make_mail=WorkerMail.maker(outbox, self._marks, types),
        )
        self._kernel = kernel
        assert isinstance(kernel.mail, WorkerMail)
        self._mail = kernel.mail
        self._mail.outputs.lend(start.outputs)
        kernel.gate.on_state = self._state_changed
        try:
            await kernel.launch()
        except KernelFailedError:  # It has been told.
            return True
        except PyDotComputeError as error:
            self._send(Note("refused to launch", to_values(error)))
            return False
        outbox.tell("ready", {"device": kernel.lease.device.kind})
        return True

    # -- what comes ----------------------------------------------------------------------------------------------------

    def _on_end(self, broken: LinkError | None) -> None:
        """End at once: whoever has started this process is gone, or does not want it any more."""
        if not self._over.is_set():
            os._exit(1)

    def _on_frame(self, frame: Frame) -> None:
        match frame:
            case Handed():
                self._mail.take(frame)
            case Recall(sequences):
                self._send(Returned(self._mail.give_back(sequences)))
            case Note("start", values):
                self._starting.set_result(Start.read(values))
            case Note("redelivered", {"deliveries": int(deliveries)}):
                self._mail.deliveries = deliveries
            case Note("resume"):
                if not self._kernel.gate.should_terminate:
                    self._mail.inbox.resume()
                    self._kernel.gate.enter(KernelState.ACTIVE)
            case Note("pause"):
                if not self._kernel.gate.should_terminate:
                    self._mail.inbox.pause()
                    self._kernel.gate.enter(KernelState.DEACTIVATED)
                self._outbox.flush()
                self._send(Returned(self._mail.give_back()))
                self._outbox.tell("paused")
            case Note("end"):
                self._kernel.begin_termination(math.inf)
            case Note("cancel"):
                self._kernel.begin_termination(0.0)
            case Note("room", {"outputs": count}):
                self._mail.outputs.lend(-count)
            case Letter("answered"):
                self._others.answered(frame)
            case Note("memory", _, offer):
                self._outbox.memory.attach(offer)
                self._outbox.tell("attached")
            case _:
                raise LinkError(f"a worker does not know what to do with {frame}")

    # -- what goes -----------------------------------------------------------------------------------------------------

    def _send(self, frame: Frame) -> None:
        """Send a frame. If that fails, for want of memory say, end: the kernel would wait for ever for what is lost."""
        try:
            self._link.send(frame)
        except BaseException:
            with suppress(BaseException):
                traceback.print_exc()
            os._exit(1)

    def _state_changed(self) -> None:
        gate = self._kernel.gate
        if not gate.has_ended or self._over.is_set():
            return
        if gate.failure is not None:
            assert gate.failure.__cause__ is not None
            self._outbox.flush()
            self._tell_failure(gate.failure.__cause__, cause=gate.failure)
        else:
            self._outbox.tell("ended", {"returned": gate.returned_after is not None})
        self._over.set()

    def _tell_failure(self, error: BaseException, prefix: str = "", cause: KernelFailedError | None = None) -> None:
        text = f"{prefix}{error}" if cause is None else cause.cause_message
        trace = "".join(traceback.format_exception(error))
        values = {"cause_type": type(error).__name__, "text": text, "traceback": trace}
        self._send(Note("failed", values))
