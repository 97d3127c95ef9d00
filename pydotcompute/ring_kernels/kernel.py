"""One kernel: its state, and the task that runs its actor. Its messages pass through `mail`."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic
from typing import Any, Generic, TypeVar, cast

from pydotcompute.device.lease import DeviceLease
from pydotcompute.exceptions import (
    InvalidConfigurationError,
    KernelFailedError,
    KernelStateError,
    LimitExceededError,
    PyDotComputeError,
)
from pydotcompute.messages.message import door
from pydotcompute.messages.raw import door_of_raw, opened
from pydotcompute.ring_kernels.actor.asking import Asker, ask
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.actor.failures import count_failure, forget_variables
from pydotcompute.ring_kernels.actor.forwarding import Receiver, forward
from pydotcompute.ring_kernels.actor.here import RunsHere
from pydotcompute.ring_kernels.actor.isolation import runs_in_workers
from pydotcompute.ring_kernels.actor.restarting import RestartsHere
from pydotcompute.ring_kernels.actor.room import ENDLESS, Room
from pydotcompute.ring_kernels.actor.runner import Decide, Runner
from pydotcompute.ring_kernels.actor.supervisor import Supervisor
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import Isolation, KernelFunction, KernelType
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import receive_for_oneself
from pydotcompute.ring_kernels.mail.dead_letters import DeadLetters
from pydotcompute.ring_kernels.mail.gate import OPEN, Gate, KernelState
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.journal import Journal
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry
from pydotcompute.ring_kernels.places import Places

__all__ = ["LIVING", "RingKernel", "current_kernel_id", "kernel_id_of", "managed_kernel"]

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)

LIVING = (KernelState.LAUNCHED, *OPEN)
"""The states in which a kernel has an actor that goes on."""

current_kernel_id: ContextVar[str | None] = ContextVar("pydotcompute_kernel_id", default=None)
"""The id of the kernel whose actor runs in this context. Use it to label logs."""

ACTOR_TASK = "ring kernel "
"""The beginning of the name of an actor's task; the kernel's id follows."""


def kernel_id_of(task: asyncio.Task[Any]) -> str | None:
    """Return the id of the kernel that a task belongs to: as its actor or, since Python 3.12, as started by it.

    It is None for a task of no kernel. Any thread may call this.
    """
    if (name := task.get_name()).startswith(ACTOR_TASK):
        return name.removeprefix(ACTOR_TASK)
    if sys.version_info < (3, 12):
        return None
    return task.get_context().get(current_kernel_id)


def _door_for_both(*classes: type | None) -> Callable[[object], None]:
    """Return a door that also lets `Raw` messages of these classes pass."""
    return door_of_raw(door(*classes), *classes)


async def _opened(message: Coroutine[Any, Any, Any]) -> Any:
    """Return what the coroutine returns, as a message of its own class."""
    return opened(await message)


class RingKernel(Generic[TIn, TOut]):
    """One kernel. It owns the task that runs its actor, its mail, and its state.

    A runtime makes kernels. A kernel can also be used without a runtime, in the order launch, activate, send and
    receive, terminate. Use a kernel on one event loop only.

    Args:
        kernel_id: the id of the kernel.
        kernel_type: the type of the kernel; or a function, which becomes a kernel type named `kernel_id`.
        config: settings that replace those of the type. `config.kernel_id` is ignored.
        input_type, output_type: message classes that replace those of the type.
        find: returns the kernel of a given id in the same runtime, so that the actor can send to it.
        sends_to: the receiver of the actor's messages; see `KernelContext.sends_to`.
        dead_letters: the dead letters of an earlier kernel of this id, which this kernel takes over.
        journal: keeps accepted messages until they are done; None if the kernel is not durable.
        limits: the limits on what the kernel keeps, and for how long.
        threads: the places for threads, of which an actor in a thread takes one. A runtime's kernels share its places.
        make_mail: makes the kernel's mail; it takes the arguments of `Mail`.
        isolation: whether the actor runs in a worker process, if its type leaves that open.

    Raises:
        InvalidConfigurationError, MessageTypeError: see `KernelType`.
        LimitExceededError: a mailbox is longer than `limits` allows.
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
        threads: Places | None = None,
        make_mail: Callable[..., Mail[TIn, TOut]] = Mail,
        isolation: Isolation = "none",
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
        longest = max(self.config.input_queue_size, self.config.output_queue_size)
        if longest > limits.max_queue_size:
            raise LimitExceededError("max_queue_size", limits.max_queue_size, longest)
        self.number = 0
        """The kernel's place in the order in which its runtime launched all of its kernels."""
        self.gate = Gate(kernel_id)
        """The kernel's state. Other tasks wait on it for a change."""
        is_elsewhere = (kernel_type.isolation or isolation) == "process"
        make_door = _door_for_both if is_elsewhere else door
        self.mail: Mail[TIn, TOut] = make_mail(
            self.gate,
            self.config,
            make_door(kernel_type.input_type),
            make_door(kernel_type.output_type, kernel_type.input_type),  # An echo is of the input type.
            limits=limits,
            dead_letters=dead_letters,
            journal=journal,
        )
        """The kernel's messages."""
        self.limits = limits
        """The limits on what the kernel keeps, and for how long."""
        self._runner: Runner
        """What runs the actor."""
        self.mail.takes_raw = is_elsewhere
        if is_elsewhere:
            self._runner = runs_in_workers()(self, find)
        elif kernel_type.instances != 1:
            problem = 'only worker processes can share a mailbox; declare the kernel with isolation="process" too'
            raise InvalidConfigurationError("instances", kernel_type.instances, problem)
        elif kernel_type.devices:
            problem = 'only worker processes have a device each; declare the kernel with isolation="process" too'
            raise InvalidConfigurationError("devices", kernel_type.devices, problem)
        else:
            kernel_type.worker_limits.refuse_here()
            if kernel_type.device == "cpu" and kernel_type.memory_limit is not None:
                problem = 'on the CPU it is of a worker process; declare the kernel with isolation="process" too'
                raise InvalidConfigurationError("memory_limit", kernel_type.memory_limit, problem)
            output_type = cast(type[TOut] | None, kernel_type.output_type)
            context = KernelContext(self.mail, output_type, find=find, sends_to=sends_to, limits=limits)
            if threads is None:
                threads = Places("max_threads", limits.max_threads)
            memory_limit = cast(int | None, kernel_type.memory_limit)
            arguments = kernel_type.func, context, kernel_type.device, memory_limit, threads
            if kernel_type.supervision.restart == "never":
                self._runner = RunsHere(*arguments)
            else:
                supervisor = Supervisor(self.mail, kernel_type.supervision, limits)
                self._runner = RestartsHere(supervisor, self.mail, *arguments)
        self._task: asyncio.Task[None] | None = None
        self._at_first_wait = False  # True once the actor is as far as `launch` waits for.
        self._termination: asyncio.Task[None] | None = None
        self._cancel_at = math.inf  # When to cancel the actor: the earliest time that any `terminate` gave.
        self._cancellation_grace = limits.cancellation_grace
        self._hurry = Signal()
        self.room: Room = ENDLESS
        """The room for what the actor sends. It can be set until the kernel is launched."""

    def __repr__(self) -> str:
        return f"<RingKernel {self.kernel_id!r} {self.state.name}>"

    @property
    def state(self) -> KernelState:
        """The state of the kernel."""
        return self.gate.state

    @property
    def failure(self) -> KernelFailedError | None:
        """The error with which the kernel FAILED; None if it has not failed."""
        return self.gate.failure

    @property
    def is_serving(self) -> bool:
        """True if the kernel takes messages, and there is an actor for them: it is not being started again."""
        return self.gate.is_open and self.gate.has_actor

    @property
    def queue_depth(self) -> int:
        """The number of messages that wait in the input mailbox."""
        return self.mail.inbox.depth

    @property
    def stuck_in_send_seconds(self) -> float | None:
        """The seconds that the actor has waited for room for what it sends; None if it does not wait for it."""
        return self._runner.seconds_in_send

    @property
    def lease(self) -> DeviceLease:
        """The kernel's share of its device: arrays, stream and memory. It is set when the kernel is launched."""
        return self._runner.lease

    @property
    def dead_letters(self) -> DeadLetters:
        """The messages that could not be delivered."""
        return self.mail.dead_letters

    def get_telemetry(self) -> RingKernelTelemetry:
        """Return a snapshot of the kernel's counters."""
        ask = self.mail.delays.asks.oldest
        return self.mail.counters.snapshot(
            self.kernel_id,
            self.state.name,
            self.queue_depth,
            self.lease.memory(),
            output_depth=len(self.mail.outputs),
            output_queue_size=self.mail.outputs.capacity,
            stuck_in_send_seconds=self.stuck_in_send_seconds,
            workers=self._runner.workers(),
            asking=None if ask is None else ask.asked.kernel_id,
            asking_seconds=None if ask is None else ask.seconds,
        )

    # -- messages ------------------------------------------------------------------------------------------------------

    def send(self, message: TIn, *, timeout: float | None = None) -> Coroutine[Any, Any, None]:
        """Put a message into the input mailbox. The task that calls `send` gets the reply.

        Under `block`, `send` waits for room. It also waits while this task has left unreceived as many replies as the
        output mailbox holds.

        Args:
            timeout: the most seconds to wait; None waits without end.

        Raises:
            KernelStateError: the kernel is neither ACTIVE nor DEACTIVATED.
            KernelFailedError: the kernel has failed.
            QueueFullError: there is no room: raised at once under `reject`, after `timeout` seconds under `block`.
            MessageTypeError, MessageSerializationError: the message is not of the kernel's input type.
        """
        return self.mail.send_as(self.mail.replies.callers.sending(), message, timeout)

    def receive(self, *, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """Return the next reply to the task that calls `receive`, or the next output.

        For the rules see `pydotcompute.ring_kernels.mail.callers`.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds. A later message waits for the next `receive`.
            KernelStateError: the kernel is not active yet, or it has ended and everything has been received.
            KernelFailedError: the kernel has failed and everything has been received.
            QueueFullError: a request of this task was dropped to make room.
        """
        received = self.mail.receive_as(self.mail.replies.callers.receiving(), timeout)
        return _opened(received) if self.mail.takes_raw else received

    def send_and_receive(self, message: TIn, *, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """Send one request and wait for its own reply.

        If the actor has not taken the request when the time-out ends, the request becomes a dead letter. If the caller
        is cancelled before the actor takes the request, the request is withdrawn. A reply that comes too late becomes a
        dead letter.

        Raises:
            QueueTimeoutError: no reply came within `timeout` seconds.
            KernelStateError, KernelFailedError, QueueFullError, MessageTypeError, MessageSerializationError: as `send`.
        """
        reply = self.mail.ask(message, timeout)
        return _opened(reply) if self.mail.takes_raw else reply

    async def requeue_dead_letters(self, ids: Iterable[int] | None = None) -> list[int]:
        """Put dead letters back into the mailboxes, oldest first.

        Requests go into the input mailbox. Replies and outputs go into the output mailbox, where anyone can receive
        them. This call does not wait: a message stays a dead letter if it finds no room, or is not of the kernel's
        types. The reply to a requeued request is an output, because its caller has already been told that there will be
        no reply. If a caller does wait for a reply to a request of this id, that caller gets the reply.

        Args:
            ids: the ids of the dead letters to put back; None means all. Unknown ids are ignored.

        Returns:
            The ids of the dead letters that were put back.

        Raises:
            KernelStateError: the kernel is neither ACTIVE nor DEACTIVATED.
        """
        return self.mail.requeue(ids)

    async def take_forwarded(self, mail: Mail[Any, Any], message: Any, key: int, item: Item[Any] | None) -> None:
        """Take a request that the actor of the kernel with this mail hands on. For the arguments see `forward`."""
        await forward(mail, self.mail, message, key, item)

    async def answer(self, asker: Asker, message: Any, timeout: float | None) -> Any:
        """Return the reply to a request of another kernel's actor. For the arguments see `ask`."""
        return await ask(asker, self.mail, message, timeout)

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the actor and let it run until it first waits. The actor gets no message yet.

        Raises:
            KernelStateError: the kernel is not CREATED.
            KernelFailedError: the actor raised before it first waited; `__cause__` is the actor's exception.
            BackendUnavailableError: the kernel's device is not available. The kernel stays CREATED.
            LimitExceededError: there are as many threads of actors as are allowed. The kernel stays CREATED.
        """
        self.gate.require("launch", KernelState.CREATED)
        await self._runner.open()
        try:
            self.gate.require("launch", KernelState.CREATED)  # The kernel may have been terminated meanwhile.
        except PyDotComputeError:
            await self._runner.close()
            raise
        self._runner.room = self.room
        self.gate.enter(KernelState.LAUNCHED)
        self.mail.begin()
        self._task = asyncio.create_task(self._run(), name=f"{ACTOR_TASK}{self.kernel_id}")
        try:
            await asyncio.sleep(0)  # One turn of the loop: the task has taken its first step.
            while not (self._at_first_wait or self.gate.has_ended):
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
        """Begin to hand messages to the actor. Raises KernelStateError if the kernel is not LAUNCHED."""
        self.gate.require("activate", KernelState.LAUNCHED)
        self._resume()

    async def deactivate(self) -> None:
        """Pause: hand the actor no message from now on, even if it is waiting for one.

        Raises:
            KernelStateError: the kernel is not ACTIVE.
        """
        self.gate.require("deactivate", KernelState.ACTIVE)
        self.mail.inbox.pause()
        self.gate.enter(KernelState.DEACTIVATED)
        await self._runner.pause()

    async def reactivate(self) -> None:
        """End the pause. Raises KernelStateError if the kernel is not DEACTIVATED."""
        self.gate.require("reactivate", KernelState.DEACTIVATED)
        self._resume()

    def _resume(self) -> None:
        self.mail.inbox.resume()
        self._runner.resume()
        self.gate.enter(KernelState.ACTIVE)

    @property
    def instances(self) -> int:
        """The number of worker processes that serve the kernel, without those that were told to end.

        It is 0 if the actor runs in the process of the runtime.
        """
        return self._runner.instances

    async def scale(self, instances: int) -> None:
        """Change how many worker processes share the mailbox.

        New ones take messages when this call returns. One that is too many finishes what its actor has in hand, and
        then ends by itself; what it has ahead goes back into the mailbox. If a new one cannot be started, or this call
        is cancelled, nothing has changed.

        Args:
            instances: how many worker processes there shall be.

        Raises:
            InvalidConfigurationError: `instances` is less than 1, or the actor does not run in a worker process.
            LimitExceededError: there would be more than `max_instances`.
            KernelStateError: the kernel is neither LAUNCHED, nor ACTIVE, nor DEACTIVATED.
            KernelFailedError: the actor of a new worker process raised before it first waited.
        """
        self.gate.require("scale", *LIVING)
        await self._runner.scale(instances)

    async def try_out(self, kernel_type: KernelType) -> Decide:
        """Start new worker processes of another text of the kernel's type, beside those that there are.

        They get no message yet. Let them take over by `await decide(True)`, or end them by `await decide(False)`; until
        then this kernel is neither scaled nor restarted. The old ones then finish what they have in hand, and end. The
        mailboxes of the kernel, and what happens after a failure, stay as they are.

        Returns:
            The function `decide`, which must be called once.

        Raises:
            InvalidConfigurationError: the actor does not run in a worker process.
            KernelStateError: the kernel is neither LAUNCHED, nor ACTIVE, nor DEACTIVATED.
            KernelFailedError: a new actor raised before it first waited; nothing has changed.
        """
        decide = await self._runner.try_out(kernel_type)

        async def decide_and_note(take_over: bool) -> None:
            if take_over:
                self.become(kernel_type)
            await decide(take_over)

        return decide_and_note

    def become(self, kernel_type: KernelType) -> None:
        """Take messages of another text of the kernel's type from now on."""
        self.type = kernel_type
        self.mail.check_in = _door_for_both(kernel_type.input_type)
        self.mail.check_out = _door_for_both(kernel_type.output_type, kernel_type.input_type)

    async def restart(self, timeout: float = 5.0) -> None:
        """End the actor gently and start it anew, in a new worker process. The messages that wait go on waiting.

        Of several worker processes one is restarted after the other. If this call is cancelled, all this is done all
        the same.

        Args:
            timeout: the seconds that an actor has to finish what it has in hand. After that its process is ended, and
                what it had in hand becomes dead letters.

        Raises:
            InvalidConfigurationError: the actor does not run in a worker process.
            KernelStateError: the kernel is neither LAUNCHED, nor ACTIVE, nor DEACTIVATED.
            KernelFailedError: the new actor raised before it first waited, and the kernel has failed with that.
        """
        self.gate.require("restart", *LIVING)
        await self._runner.restart(timeout)

    async def terminate(self, timeout: float = 5.0) -> None:
        """End the kernel: refuse new messages, ask the actor to end, and cancel it after `timeout` seconds.

        Requests that the actor has not handled become dead letters, and their callers get an error. Replies that the
        actor has already sent can still be received. A kernel that has already ended just becomes TERMINATED. If this
        call is cancelled, the kernel ends all the same.
        """
        await asyncio.shield(self.begin_termination(timeout))

    def begin_termination(self, timeout: float) -> asyncio.Task[None]:
        """Begin what `terminate` does, and return the task that does it. Do not cancel that task."""
        self._cancel_at = min(self._cancel_at, monotonic() + max(0.0, timeout))
        self._hurry.notify_all()
        if self._termination is None:
            self._termination = asyncio.create_task(self._terminate(), name=f"end of ring kernel {self.kernel_id}")
        return self._termination

    async def _terminate(self) -> None:
        task = self._task
        if task is not None and not task.done():
            # If the gate says ended, the actor is over and its task only gives back its share of the device.
            if not self.gate.has_ended:
                self.gate.enter(KernelState.TERMINATING)
                self.mail.inbox.close(self.gate.error("send", *OPEN))
                self._runner.end()
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
        """True if the kernel is not ACTIVE, or has handled every message that it was sent."""
        return self.state is not KernelState.ACTIVE or not (self.mail.inbox.depth or not self._runner.is_idle)

    async def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until the kernel is idle. Return False if `timeout` seconds pass first."""
        deadline = None if timeout is None else monotonic() + timeout
        while not self.is_idle:
            if not await wait_any(
                (self._runner.idle, self.gate.changed), None if deadline is None else deadline - monotonic()
            ):
                return False
        return True

    # -- the actor -----------------------------------------------------------------------------------------------------

    async def _run(self) -> None:
        """Run the actor, and handle every exception that leaves it. This is the body of the actor's task."""
        current_kernel_id.set(self.kernel_id)
        receive_for_oneself()
        try:
            await self._runner.run(self._first_wait)
        except asyncio.CancelledError:
            if self.state is not KernelState.TERMINATING:
                self._fail(asyncio.CancelledError("the actor was cancelled"))
        except PyDotComputeError as error:
            # `ctx.receive` raises KernelStateError to tell the actor to end, and `ctx.forward` raises `ending` if the
            # other kernel has ended with the runtime. The actor may let both pass.
            is_the_end = isinstance(error, KernelStateError) or error == self.gate.ending
            if not (is_the_end and self.state is KernelState.TERMINATING):
                self._fail(error)
        except BaseException as error:  # Also SystemExit and KeyboardInterrupt: an actor must not end its program.
            self._fail(error)
        else:
            self._runner.complete_all()  # An actor that returns is done with its messages.
            if self.state is not KernelState.TERMINATING:
                self.gate.returned_after = self.mail.counters.processed
                self._end(KernelState.TERMINATED)
        finally:
            if self.lease.on_gpu:
                forget_variables(self.gate.failure)
            await self._runner.close()

    def _fail(self, error: BaseException) -> None:
        if self.gate.has_ended:
            logger.error("an abandoned actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
            return
        self.gate.failure = count_failure(self.mail, error)
        self.gate.failure.__cause__ = error
        logger.error("the actor failed", exc_info=error, extra={"kernel_id": self.kernel_id})
        self._end(KernelState.FAILED)

    def _end(self, state: KernelState) -> None:
        """Enter a final state, and tell every caller that still waits for the actor."""
        ended_before = self.gate.has_ended
        self.gate.enter(state)
        if not ended_before:  # Else this kernel had failed and is now terminated: its callers know.
            error: PyDotComputeError = self.gate.failure or self.gate.error("handle messages", *OPEN)
            self.mail.end(error, self._runner.take_what_is_left())


@asynccontextmanager
async def managed_kernel(
    kernel_id: str,
    kernel_func: KernelFunction,
    *,
    config: RingKernelConfig | None = None,
    input_type: type[TIn] | None = None,
    output_type: type[TOut] | None = None,
) -> AsyncIterator[RingKernel[TIn, TOut]]:
    """Launch and activate a kernel for an `async with` block, and terminate it after the block."""
    kernel: RingKernel[TIn, TOut] = RingKernel(
        kernel_id, kernel_func, config=config, input_type=input_type, output_type=output_type
    )
    await kernel.launch()
    try:
        await kernel.activate()
        yield kernel
    finally:
        await kernel.terminate()
