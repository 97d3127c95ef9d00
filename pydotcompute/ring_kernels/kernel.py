"""One kernel: its state, and the task that runs its actor. Its messages pass through `mail`."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from pydotcompute.device.lease import DeviceLease
from pydotcompute.device.open_lease import open_lease
from pydotcompute.exceptions import KernelFailedError, KernelStateError, PyDotComputeError
from pydotcompute.messages.message import door
from pydotcompute.ring_kernels.actor.blocking import run_in_thread
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import KernelFunction, KernelType
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import receive_for_oneself
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetters
from pydotcompute.ring_kernels.mail.gate import OPEN, Gate, KernelState
from pydotcompute.ring_kernels.mail.journal import Journal
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry

__all__ = ["RingKernel", "current_kernel_id", "managed_kernel"]

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)

current_kernel_id: ContextVar[str | None] = ContextVar("pydotcompute_kernel_id", default=None)
"""The id of the kernel whose actor runs in this context: for whoever labels logs."""


class RingKernel(Generic[TIn, TOut]):
    """One kernel. It owns the task that runs its actor, its mail, and its state.

    A runtime makes kernels; one can also be used by itself, in the order launch, activate, send and receive,
    terminate. All of it belongs to one event loop.

    Args:
        kernel_type: what the kernel is an instance of; or a function, which becomes a type of the kernel's name.
        config: the settings in the place of the type's. Its `kernel_id` does not matter.
        input_type, output_type: the message classes in the place of the type's.
        find: returns the other kernels of the runtime, by their ids, to which the actor may forward.
        sends_to: what gets what the actor sends; see `KernelContext.sends_to`.
        dead_letters: those of an earlier kernel of this id, which this one goes on with.
        journal: where accepted messages are kept until they are done; None if the kernel is not durable.

    Raises:
        InvalidConfigurationError, MessageTypeError: see `KernelType`.
    """

    def __init__(
        self,
        kernel_id: str,
        kernel_type: KernelType | KernelFunction,
        *,
        config: RingKernelConfig | None = None,
        input_type: type[TIn] | None = None,
        output_type: type[TOut] | None = None,
        find: Callable[[str], Receiver] | None = None,
        sends_to: DeviceLease | None = None,
        dead_letters: DeadLetters | None = None,
        journal: Journal | None = None,
        limits: RuntimeLimits = DEFAULT_LIMITS,
    ) -> None:
        if not isinstance(kernel_type, KernelType):
            kernel_type = KernelType(kernel_id, kernel_type, config or RingKernelConfig(kernel_id))
        if input_type is not None or output_type is not None:
            kernel_type = replace(
                kernel_type,
                input_type=input_type or kernel_type.input_type,
                output_type=output_type or kernel_type.output_type,
            )
        self.kernel_id = kernel_id
        self.type = kernel_type
        self.config = replace(config or kernel_type.config, kernel_id=kernel_id)
        """The kernel's settings."""
        self.gate = Gate(kernel_id)
        """The kernel's state, for those who wait for it."""
        self.mail: Mail[TIn, TOut] = Mail(
            self.gate,
            self.config,
            door(kernel_type.input_type),
            door(kernel_type.output_type, kernel_type.input_type),  # An echo is of the input type.
            limits=limits,
            dead_letters=dead_letters,
            journal=journal,
        )
        """The kernel's messages."""
        self._context: KernelContext[TIn, TOut] = KernelContext(
            self.mail, cast(type[TOut] | None, kernel_type.output_type), find=find, sends_to=sends_to, limits=limits
        )
        self._task: asyncio.Task[None] | None = None
        self._at_first_wait = kernel_type.executor == "loop"  # Whether the actor has got as far as `launch` waits for.
        self._termination: asyncio.Task[None] | None = None
        self._cancel_at = math.inf  # The earliest time that any `terminate` gave.
        self._cancellation_grace = limits.cancellation_grace
        self._hurry = Signal()

    def __repr__(self) -> str:
        return f"<RingKernel {self.kernel_id!r} {self.state.name}>"

    @property
    def state(self) -> KernelState:
        """What the kernel is doing."""
        return self.gate.state

    @property
    def failure(self) -> KernelFailedError | None:
        """Why the kernel is FAILED."""
        return self.gate.failure

    @property
    def queue_depth(self) -> int:
        """How many messages wait in the input mailbox."""
        return len(self.mail.inbox)

    @property
    def lease(self) -> DeviceLease:
        """What the kernel has of its device, from its launch on."""
        return self._context.lease

    @property
    def dead_letters(self) -> DeadLetters:
        """The messages that could not be delivered."""
        return self.mail.dead_letters

    def get_telemetry(self) -> RingKernelTelemetry:
        """What the kernel has done."""
        return self.mail.counters.snapshot(self.kernel_id, self.state.name, self.queue_depth, self.lease.memory())

    # -- messages ------------------------------------------------------------------------------------------------------

    def send(self, message: TIn, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Put a message into the input mailbox; the task that calls this gets the reply.

        Under `block` it waits for room, and, if as many replies wait for this task as the output mailbox holds, until
        it has received some.

        Raises:
            KernelStateError: the kernel is neither ACTIVE nor DEACTIVATED.
            KernelFailedError: it has failed.
            QueueFullError: no room: at once under `reject`, after `timeout` seconds under `block`.
            MessageTypeError, MessageSerializationError: the message is not of the kernel's input type.
        """
        return self.mail.send_as(self.mail.replies.callers.sending(), message, timeout)

    def receive(self, *, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """The next reply to the task that calls this, or the next output; for the rules see
        `pydotcompute.ring_kernels.mail.replies`.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds; what comes later waits for the next `receive`.
            KernelStateError: the kernel is not launched yet, or has ended and all has been received.
            KernelFailedError: likewise, when it has failed.
            QueueFullError: a request of this task was dropped to make room.
        """
        return self.mail.receive_as(self.mail.replies.callers.receiving(), timeout)

    def send_and_receive(self, message: TIn, *, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """Send one request and wait for its own reply.

        A request that the actor has not taken when the time-out ends becomes a dead letter; one whose caller is
        cancelled is withdrawn. Where the actor has taken it, the reply that comes too late becomes a dead letter.

        Raises:
            QueueTimeoutError: no reply came within `timeout` seconds.
            KernelStateError, KernelFailedError, QueueFullError, MessageTypeError, MessageSerializationError: as `send`.
        """
        return self.mail.ask(message, timeout)

    async def requeue_dead_letters(self, ids: Iterable[int] | None = None) -> list[int]:
        """Put the dead letters of these ids, or all, back, oldest first, and forget them: requests into the input
        mailbox, replies and outputs into the output mailbox, where anyone can receive them.

        It waits for nothing: what finds no room stays a dead letter, and so does what is not of the kernel's types. Ids
        of no dead letter are passed over. What a requeued request is answered with is an output, for its caller was
        told that there would be no reply; unless a caller waits for a reply to a request of this id all the same.

        Returns:
            The ids of those that were put back.

        Raises:
            KernelStateError: the kernel is neither ACTIVE nor DEACTIVATED.
        """
        return self.mail.requeue(ids)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the actor, as far as it gets before it first waits. It is handed no message yet.

        Raises:
            KernelStateError: the kernel is not CREATED.
            KernelFailedError: that part of the actor raised; `__cause__` is the exception.
            BackendUnavailableError: the kernel's device is not there. The kernel stays CREATED.
        """
        self.gate.require("launch", KernelState.CREATED)
        lease = await open_lease(self.type.device, self.kernel_id, cast(int | None, self.type.memory_limit))
        try:
            self.gate.require("launch", KernelState.CREATED)  # It may have been terminated meanwhile.
        except KernelStateError:
            await lease.close()
            raise
        self._context.lease = lease
        self.gate.enter(KernelState.LAUNCHED)
        self.mail.begin()
        self._task = asyncio.create_task(self._run(), name=f"ring kernel {self.kernel_id}")
        try:
            await asyncio.sleep(0)  # One turn of the loop: the task has taken its first step.
            while not (self._at_first_wait or self.gate.has_ended):  # A thread has not.
                await self.gate.changed.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self.gate.failure is not None:
            raise self.gate.failure

    def _first_wait(self) -> None:
        self._at_first_wait = True
        self.gate.changed.notify_all()

    async def activate(self) -> None:
        """Begin to hand messages to the actor. KernelStateError if the kernel is not LAUNCHED."""
        self.gate.require("activate", KernelState.LAUNCHED)
        self._resume()

    async def deactivate(self) -> None:
        """Pause: from now on the actor is handed no message, also if it is waiting for one. KernelStateError if not
        ACTIVE.
        """
        self.gate.require("deactivate", KernelState.ACTIVE)
        self.mail.inbox.pause()
        self.gate.enter(KernelState.DEACTIVATED)

    async def reactivate(self) -> None:
        """End the pause. KernelStateError if the kernel is not DEACTIVATED."""
        self.gate.require("reactivate", KernelState.DEACTIVATED)
        self._resume()

    def _resume(self) -> None:
        self.mail.inbox.resume()
        self.gate.enter(KernelState.ACTIVE)

    async def terminate(self, timeout: float = 5.0) -> None:
        """End the kernel: refuse new messages, ask the actor to end, and cancel it after `timeout` seconds.

        Requests that were never handled become dead letters and their callers are told. Replies already made can still
        be received. A kernel that has ended already just becomes TERMINATED. Cancelling this call does not stop the
        ending.
        """
        self._cancel_at = min(self._cancel_at, monotonic() + max(0.0, timeout))
        self._hurry.notify_all()
        if self._termination is None:
            self._termination = asyncio.create_task(self._terminate(), name=f"end of ring kernel {self.kernel_id}")
        await asyncio.shield(self._termination)

    async def _terminate(self) -> None:
        task = self._task
        if task is not None and not task.done():
            if not self.gate.has_ended:  # Else it gives back what it had of its device.
                self.gate.enter(KernelState.TERMINATING)
                self.mail.inbox.close(self.gate.error("send", *OPEN))
            task.add_done_callback(lambda _: self._hurry.notify_all())
            while not task.done() and (left := self._cancel_at - monotonic()) > 0:
                await self._hurry.wait(left)
            if not task.done():
                logger.warning("the actor did not end in time: cancelled", extra={"kernel_id": self.kernel_id})
                task.cancel()
                await asyncio.wait((task,), timeout=self._cancellation_grace)
            if not task.done():
                logger.error("the actor ignores its cancellation: abandoned", extra={"kernel_id": self.kernel_id})
        self._end(KernelState.TERMINATED)

    @property
    def is_idle(self) -> bool:
        """Whether the kernel is not ACTIVE, or has handled all it was sent."""
        return self.state is not KernelState.ACTIVE or not (self.mail.inbox or not self._context.is_idle)

    async def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the kernel is idle; False if `timeout` seconds pass first."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.is_idle:
            if not await wait_any(
                (self._context.idle, self.gate.changed), None if deadline is None else deadline - monotonic()
            ):
                return False
        return True

    # -- the actor -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """The actor's task: whatever leaves the actor ends here."""
        current_kernel_id.set(self.kernel_id)
        receive_for_oneself()
        try:
            if self.type.executor == "thread":
                await run_in_thread(cast(Any, self.type.func), self._context, self._first_wait)
            else:
                await self.lease.drive(cast(Any, self.type.func)(self._context))
        except asyncio.CancelledError:
            if self.state is not KernelState.TERMINATING:
                self._fail(asyncio.CancelledError("the actor was cancelled"))
        except KernelStateError as error:
            # Let pass by an actor that was told to end in `ctx.receive`.
            if self.state is not KernelState.TERMINATING:
                self._fail(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an actor does not end the daemon.
            self._fail(error)
        else:
            self._context.complete_all()  # To return is as good as to ask for the next.
            if self.state is not KernelState.TERMINATING:
                self._end(KernelState.TERMINATED)
        finally:
            if self.lease.on_gpu:
                _forget_variables(self.gate.failure)
                await self.lease.close()

    def _fail(self, error: BaseException) -> None:
        if self.gate.has_ended:
            logger.error("an abandoned actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
            return
        text = _text(error)
        self.gate.failure = KernelFailedError(self.kernel_id, type(error).__name__, text)
        self.gate.failure.__cause__ = error
        self.mail.counters.error_count += 1
        self.mail.counters.last_error = f"{type(error).__name__}: {text}"
        logger.error("the actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
        self._end(KernelState.FAILED)

    def _end(self, state: KernelState) -> None:
        """The actor has ended: tell everyone who still waits for it."""
        ended_before = self.gate.has_ended
        self.gate.enter(state)
        if not ended_before:  # Else this is a failed kernel that is terminated.
            error: PyDotComputeError = self.gate.failure or self.gate.error("handle messages", *OPEN)
            self.mail.end(error, self._context.take_what_is_left())


def _forget_variables(failure: BaseException | None) -> None:
    """Let go of the actor's variables, which its exception keeps, and with them of arrays on the device."""
    left = [failure]
    met: set[int] = set()
    while left:
        error = left.pop()
        if error is None or id(error) in met:
            continue
        met.add(id(error))
        traceback.clear_frames(error.__traceback__)
        left += [error.__cause__, error.__context__, *getattr(error, "exceptions", ())]


def _text(error: BaseException) -> str:
    """The text of an exception of an actor's, which may have none, or none that is Unicode."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its text cannot be made: {type(broken).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()


@asynccontextmanager
async def managed_kernel(
    kernel_id: str,
    kernel_func: KernelFunction,
    *,
    config: RingKernelConfig | None = None,
    input_type: type[TIn] | None = None,
    output_type: type[TOut] | None = None,
) -> AsyncIterator[RingKernel[TIn, TOut]]:
    """A kernel that is active inside the block and terminated after it."""
    kernel: RingKernel[TIn, TOut] = RingKernel(
        kernel_id, kernel_func, config=config, input_type=input_type, output_type=output_type
    )
    await kernel.launch()
    try:
        await kernel.activate()
        yield kernel
    finally:
        await kernel.terminate()
