"""One kernel: its state, and the task that runs its actor. What messages pass through is in `mail`."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeVar, cast

from pydotcompute.device.lease import HOST, Session
from pydotcompute.device.open_lease import open_session
from pydotcompute.exceptions import KernelFailedError, KernelStateError, PyDotComputeError
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.actor.blocking import run_in_thread
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.declaration import KernelFunction, KernelType, RingKernelConfig
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetterReason
from pydotcompute.ring_kernels.mail.gate import ENDED, OPEN, KernelState
from pydotcompute.ring_kernels.mail.mail import KernelMail
from pydotcompute.ring_kernels.mail.replies import receive_for_oneself
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry

__all__ = [
    "KernelContext",
    "KernelState",
    "RingKernel",
    "RingKernelConfig",
    "current_kernel_id",
    "managed_kernel",
]

CANCELLATION_GRACE = 1.0
"""Seconds that a cancelled actor has to end before the kernel goes on without it."""

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)

current_kernel_id: ContextVar[str | None] = ContextVar("pydotcompute_kernel_id", default=None)
"""The id of the kernel whose actor runs in this context: for whoever labels logs."""


class RingKernel(KernelMail[TIn, TOut]):
    """One kernel. It owns the task that runs its actor, its two mailboxes, the replies on their way, and its counters.

    A runtime makes kernels; one can also be used by itself, in the order launch, activate, send and receive,
    terminate. All of it belongs to one event loop.

    Raises:
        InvalidConfigurationError, MessageTypeError: see `KernelType`.
    """

    def __init__(
        self,
        kernel_id: str,
        kernel_func: KernelFunction,
        *,
        config: RingKernelConfig | None = None,
        input_type: type[TIn] | None = None,
        output_type: type[TOut] | None = None,
        type_name: str | None = None,
        service: str = "",
        device: str = "cpu",
        memory_limit: int | str | None = None,
    ) -> None:
        config = RingKernelConfig(kernel_id) if config is None else config
        kernel_type = KernelType(kernel_func, config, input_type, output_type, service, device, memory_limit)
        super().__init__(kernel_id, kernel_type)
        self.type_name = type_name or kernel_id
        """The name of the kernel type that this is an instance of."""
        self.session: Session = HOST
        """What the kernel has of its device, from its launch on."""
        self._context: KernelContext[TIn, TOut] = KernelContext(self)
        self._task: asyncio.Task[None] | None = None
        self._at_first_wait = self.type.executor == "loop"  # Whether the actor has got as far as `launch` waits for.
        self.find: Callable[[str], RingKernel[Any, Any]] | None = None
        """The other kernels of its runtime, by their ids, to which its actor may forward."""
        self.sends_to: Session | None = None
        """What gets what the actor sends; None is anything in this process, where arrays may stay on a device."""
        self._termination: asyncio.Task[None] | None = None
        self._cancel_at = math.inf  # The earliest time that any `terminate` gave.
        self._hurry = Signal()
        self.on_state: Callable[[RingKernel[Any, Any]], None] | None = None
        """Called after each change of state."""

    def __repr__(self) -> str:
        return f"<RingKernel {self.kernel_id!r} {self._state.name}>"

    def get_telemetry(self) -> RingKernelTelemetry:
        """What the kernel has done."""
        return self._counters.snapshot(self.kernel_id, self._state.name, len(self.inbox), self.session.memory())

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the actor, as far as it gets before it first waits. It is handed no message yet.

        Raises:
            KernelStateError: the kernel is not CREATED.
            KernelFailedError: that part of the actor raised; `__cause__` is the exception.
            BackendUnavailableError: the kernel's device is not there. The kernel stays CREATED.
        """
        self._require("launch", KernelState.CREATED)
        session = await open_session(self.type.device, self.kernel_id, cast(int | None, self.type.memory_limit))
        try:
            self._require("launch", KernelState.CREATED)  # It may have been terminated meanwhile.
        except KernelStateError:
            await session.close()
            raise
        self.session = session
        self._enter(KernelState.LAUNCHED)
        self.replies.begin(asyncio.get_running_loop())
        self._task = asyncio.create_task(self._run(), name=f"ring kernel {self.kernel_id}")
        try:
            await asyncio.sleep(0)  # One turn of the loop: the task has taken its first step.
            while not (self._at_first_wait or self._has_ended):  # A thread has not.
                await self.changed.wait()
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure is not None:
            raise self._failure

    def _first_wait(self) -> None:
        self._at_first_wait = True
        self.changed.notify_all()

    async def activate(self) -> None:
        """Begin to hand messages to the actor. KernelStateError if the kernel is not LAUNCHED."""
        self._require("activate", KernelState.LAUNCHED)
        self._resume()

    async def deactivate(self) -> None:
        """Pause: from now on the actor is handed no message, also if it is waiting for one. KernelStateError if not
        ACTIVE.
        """
        self._require("deactivate", KernelState.ACTIVE)
        self.inbox.pause()
        self._enter(KernelState.DEACTIVATED)

    async def reactivate(self) -> None:
        """End the pause. KernelStateError if the kernel is not DEACTIVATED."""
        self._require("reactivate", KernelState.DEACTIVATED)
        self._resume()

    def _resume(self) -> None:
        self.inbox.resume()
        self._enter(KernelState.ACTIVE)

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
            if not self._has_ended:  # Else it gives back what it had of its device.
                self._enter(KernelState.TERMINATING)
                self.inbox.close(self._state_error("send", *OPEN))
            task.add_done_callback(lambda _: self._hurry.notify_all())
            while not task.done() and (left := self._cancel_at - monotonic()) > 0:
                await self._hurry.wait(left)
            if not task.done():
                logger.warning("the actor did not end in time: cancelled", extra={"kernel_id": self.kernel_id})
                task.cancel()
                await asyncio.wait((task,), timeout=CANCELLATION_GRACE)
            if not task.done():
                logger.error("the actor ignores its cancellation: abandoned", extra={"kernel_id": self.kernel_id})
        self._end(KernelState.TERMINATED)

    @property
    def is_idle(self) -> bool:
        """Whether the kernel is not ACTIVE, or has handled all it was sent."""
        return self._state is not KernelState.ACTIVE or not (self.inbox or self._in_hand is not None or self._batch)

    async def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the kernel is idle; False if `timeout` seconds pass first."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.is_idle:
            if not await wait_any((self._idle, self.changed), None if deadline is None else deadline - monotonic()):
                return False
        return True

    def _enter(self, state: KernelState) -> None:
        if state is self._state:
            return
        self._state = state
        self._is_open = state in OPEN
        self._has_ended = state in ENDED
        self._context.is_active = state is KernelState.ACTIVE
        self._context.should_terminate = (
            state is KernelState.TERMINATING or self._has_ended
        )  # Also if it was abandoned.
        self.changed.notify_all()
        if self.on_state is not None:
            self.on_state(self)

    async def _run(self) -> None:
        """The actor's task: whatever leaves the actor ends here."""
        current_kernel_id.set(self.kernel_id)
        receive_for_oneself()
        try:
            if self.type.executor == "thread":
                await run_in_thread(cast(Any, self.type.func), self._context, self._first_wait)
            else:
                await self.session.drive(cast(Any, self.type.func)(self._context))
        except asyncio.CancelledError:
            if self._state is not KernelState.TERMINATING:
                self._fail(asyncio.CancelledError("the actor was cancelled"))
        except KernelStateError as error:
            # Let pass by an actor that was told to end in `ctx.receive`.
            if self._state is not KernelState.TERMINATING:
                self._fail(error)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # SystemExit too: an actor does not end the daemon.
            self._fail(error)
        else:
            if self._in_hand is not None or self._batch:
                self._complete()  # To return is as good as to ask for the next.
            if self._state is not KernelState.TERMINATING:
                self._end(KernelState.TERMINATED)
        finally:
            if self.session.on_gpu:
                _forget_variables(self._failure)
                await self.session.close()

    def _fail(self, error: BaseException) -> None:
        if self._has_ended:
            logger.error("an abandoned actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
            return
        text = _text(error)
        self._failure = KernelFailedError(self.kernel_id, type(error).__name__, text)
        self._failure.__cause__ = error
        self._counters.error_count += 1
        self._counters.last_error = f"{type(error).__name__}: {text}"
        logger.error("the actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
        self._end(KernelState.FAILED)

    def _end(self, state: KernelState) -> None:
        """The actor has ended: tell everyone who still waits for it."""
        if self._state in ENDED:
            self._enter(state)  # A failed kernel that is terminated.
            return
        self._enter(state)
        self._counters.end()
        error: PyDotComputeError = self._failure or self._state_error("handle messages", *OPEN)
        self.inbox.close(error)
        left = [*self._batch.values(), *self.inbox.drain()]
        self._batch.clear()
        if self._in_hand is not None:
            left.insert(0, self._in_hand)
            self._in_hand = None
        for message, _, _ in left:
            self.bury(message, str(error), DeadLetterReason.KERNEL_ENDED)
            self.replies.fail(cast(Header, message).message_id, error)
        self.replies.end(error)


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
