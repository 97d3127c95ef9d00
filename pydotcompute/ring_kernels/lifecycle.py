"""One kernel: its state, its actor's task, its mailboxes and its counters."""

from __future__ import annotations

import asyncio
import enum
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from itertools import repeat
from time import monotonic, perf_counter_ns
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pydotcompute.exceptions import (
    KernelFailedError,
    KernelStateError,
    MessageError,
    MessageSerializationError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.dead_letters import (
    FROM_KERNEL,
    TO_KERNEL,
    DeadLetter,
    DeadLetterDirection,
    DeadLetterReason,
    DeadLetters,
)
from pydotcompute.ring_kernels.declaration import KernelFunction, KernelType, RingKernelConfig
from pydotcompute.ring_kernels.mailbox import Mailbox
from pydotcompute.ring_kernels.message import check_header, door
from pydotcompute.ring_kernels.replies import NEW, TAKEN, Caller, Header, Replies, receive_for_oneself
from pydotcompute.ring_kernels.telemetry import Counters, RingKernelTelemetry
from pydotcompute.ring_kernels.waiting import Signal, wait_any

__all__ = [
    "KernelContext",
    "KernelState",
    "RingKernel",
    "RingKernelConfig",
    "current_kernel_id",
    "managed_kernel",
]

CHECKPOINT_EVERY = 256
"""How many messages an actor is handed in a row before the other tasks have their turn."""
OVERDUE = "its deadline had passed before the kernel took it"
CANCELLATION_GRACE = 1.0
"""Seconds that a cancelled actor has to end before the kernel goes on without it."""

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)

current_kernel_id: ContextVar[str | None] = ContextVar("pydotcompute_kernel_id", default=None)
"""The id of the kernel whose actor runs in this context: for whoever labels logs."""


class KernelState(enum.Enum):
    """What a kernel is doing."""

    CREATED = "CREATED"
    """Made, with nothing set up."""
    LAUNCHED = "LAUNCHED"
    """Set up; not yet active."""
    ACTIVE = "ACTIVE"
    """Handles messages."""
    DEACTIVATED = "DEACTIVATED"
    """Paused: takes messages, handles none."""
    TERMINATING = "TERMINATING"
    """Finishes what is in its hands; takes no messages."""
    TERMINATED = "TERMINATED"
    """Ended as asked, or by itself."""
    FAILED = "FAILED"
    """Ended by an exception."""


_OPEN = (KernelState.ACTIVE, KernelState.DEACTIVATED)
_ENDED = (KernelState.TERMINATED, KernelState.FAILED)


@dataclass(slots=True, eq=False)
class Terms:
    """What goes with a message in the input mailbox, where there is anything."""

    timeout: float = 0.0
    """The seconds that its caller waits, for the error."""
    deadline: float | None = None
    """The time, of `time.monotonic()`, after which it is not handed to the actor."""
    size: int = 0
    """The bytes that it takes, as far as they matter."""


class KernelContext(Generic[TIn, TOut]):
    """What an actor sees of its kernel.

    `receive` and `send` are passed by every message, and therefore reach into the kernel instead of asking it.
    """

    __slots__ = ("_kernel", "is_active", "kernel_id", "should_terminate")

    def __init__(self, kernel: RingKernel[TIn, TOut]) -> None:
        self._kernel = kernel
        self.kernel_id = kernel.kernel_id
        self.is_active = False
        """Whether messages are handed out."""
        self.should_terminate = False
        """Whether the kernel was asked to end: finish what is in hand and return."""

    async def wait_active(self) -> None:
        """Wait until the kernel is active, or was asked to end."""
        await self._kernel._wait_active()

    async def receive(self, timeout: float | None = None) -> TIn:
        """The next message, by priority. Asking for it says that the one before is done with.

        Raises:
            QueueTimeoutError: none came within `timeout` seconds.
            KernelStateError: the kernel was asked to end. An actor may let it pass: that is an orderly end.
        """
        kernel = self._kernel
        if kernel._in_hand is not None:
            kernel._complete()
        item = kernel.inbox.get_nowait() if kernel._handed_in_a_row < CHECKPOINT_EVERY else None
        if item is None or (item[2] is not None and kernel._is_overdue(item)):
            item = await kernel._next_item(timeout)
        kernel._handed_in_a_row += 1
        kernel._in_hand = item
        return item[0]

    async def send(self, message: TOut) -> None:
        """Send a reply, if `message.correlation_id` is a request's `message_id` or `message` is a request itself; else
        an output, which waits for room in the output mailbox, and until the kernel is active.

        Raises:
            MessageTypeError, MessageSerializationError: the message is not of the kernel's output type.
        """
        kernel = self._kernel
        if kernel._has_ended:
            raise kernel._state_error("send", *_OPEN)
        (kernel._check_output if message.__class__ is kernel._output_type else kernel._check_out)(message)
        header: Any = message
        if header.priority.__class__ is not int or not 0 <= header.priority <= 255:
            check_header(message)
        in_hand = kernel._in_hand
        if in_hand is None:
            answered = None
        else:
            request: Any = in_hand[0]
            answered = request.message_id.int
            named = header.correlation_id
            if named is None or message is request:
                named = header.message_id
            if named.int == answered:
                kernel._in_hand = None
                kernel._counters.complete(in_hand[1])
            else:
                answered = None
        if not kernel.replies.deliver(header, answered):
            await kernel._send_output(message)

    def __aiter__(self) -> AsyncIterator[TIn]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[TIn]:
        while not self.should_terminate:
            try:
                message = await self.receive()
            except KernelStateError:
                return
            yield message


class RingKernel(Generic[TIn, TOut]):
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
    ) -> None:
        config = RingKernelConfig(kernel_id) if config is None else config
        self.kernel_id = kernel_id
        self.type_name = type_name or kernel_id
        """The name of the kernel type that this is an instance of."""
        self.type = KernelType(kernel_func, config, input_type, output_type, service)
        self._state = KernelState.CREATED
        self._is_open = self._has_ended = False  # What the hot paths ask of the state.
        self._context: KernelContext[TIn, TOut] = KernelContext(self)
        self.changed = Signal()
        """Notified at each change of state."""
        self._idle = Signal()
        self._check_in = door(input_type)
        self._check_out = door(output_type, input_type)  # An echo is of the input type.
        self._output_type = output_type
        self._check_output = door(output_type)
        # Each message with its arrival, in nanoseconds of `time.perf_counter_ns()`, and its terms.
        self.inbox: Mailbox[tuple[TIn, int, Terms | None]] = Mailbox(
            kernel_id, config.input_queue_size, config.backpressure_strategy, paused=True
        )
        self.outputs: Mailbox[Any] = Mailbox(kernel_id, config.output_queue_size)
        self.replies: Replies[Any] = Replies(kernel_id, self.outputs, self.bury)
        self.inbox_bytes = 0
        """The bytes of the messages in the input mailbox, as far as they are told by `Terms.size`."""
        self._timed = 0  # How many of them have a deadline.
        self._in_hand: tuple[TIn, int, Terms | None] | None = None
        self._handed_in_a_row = 0
        self._task: asyncio.Task[None] | None = None
        self._termination: asyncio.Task[None] | None = None
        self._cancel_at = math.inf  # The earliest time that any `terminate` gave.
        self._hurry = Signal()
        self._failure: KernelFailedError | None = None
        self._counters = Counters()
        self.dead_letters = DeadLetters()
        self.on_state: Callable[[RingKernel[Any, Any]], None] | None = None
        """Called after each change of state."""

    def __repr__(self) -> str:
        return f"<RingKernel {self.kernel_id!r} {self._state.name}>"

    @property
    def state(self) -> KernelState:
        """What the kernel is doing."""
        return self._state

    @property
    def config(self) -> RingKernelConfig:
        """The kernel's settings."""
        return self.type.config

    @property
    def failure(self) -> KernelFailedError | None:
        """Why the kernel is FAILED."""
        return self._failure

    @property
    def queue_depth(self) -> int:
        """How many messages wait in the input mailbox."""
        return len(self.inbox)

    @property
    def refusal(self) -> PyDotComputeError | None:
        """Why the kernel takes no messages; None if it does."""
        if self._failure is not None:
            return self._failure
        return None if self._state in _OPEN else self._state_error("send", *_OPEN)

    @property
    def has_ended(self) -> bool:
        """Whether the kernel will send nothing more."""
        return self._has_ended

    def get_telemetry(self) -> RingKernelTelemetry:
        """What the kernel has done."""
        return self._counters.snapshot(self.kernel_id, self._state.name, len(self.inbox))

    # -- lifecycle -----------------------------------------------------------------------------------------------------

    async def launch(self) -> None:
        """Start the actor, as far as it gets before it first waits. It is handed no message yet.

        Raises:
            KernelStateError: the kernel is not CREATED.
            KernelFailedError: that part of the actor raised; `__cause__` is the exception.
        """
        self._require("launch", KernelState.CREATED)
        self._enter(KernelState.LAUNCHED)
        self.replies.begin(asyncio.get_running_loop())
        self._task = asyncio.create_task(self._run(), name=f"ring kernel {self.kernel_id}")
        try:
            await asyncio.sleep(0)  # One turn of the loop: the task has taken its first step.
        except asyncio.CancelledError:
            self._task.cancel()
            raise
        if self._failure is not None:
            raise self._failure

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
            self._enter(KernelState.TERMINATING)
            self.inbox.close(self._state_error("send", *_OPEN))
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

    async def wait_idle(self, timeout: float | None = None) -> bool:
        """Wait until an ACTIVE kernel has handled all it was sent, or is not ACTIVE; False if `timeout` seconds pass
        first.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while self._state is KernelState.ACTIVE and (self.inbox or self._in_hand is not None):
            if not await wait_any((self._idle, self.changed), None if deadline is None else deadline - monotonic()):
                return False
        return True

    def _require(self, operation: str, *allowed: KernelState) -> None:
        if self._state not in allowed:
            raise self._state_error(operation, *allowed)

    def _state_error(self, operation: str, *allowed: KernelState) -> KernelStateError:
        return KernelStateError(self.kernel_id, self._state.name, operation, [state.name for state in allowed])

    def _enter(self, state: KernelState) -> None:
        if state is self._state:
            return
        self._state = state
        self._is_open = state in _OPEN
        self._has_ended = state in _ENDED
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
            await self.type.func(self._context)
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
            if self._in_hand is not None:
                self._complete()  # To return is as good as to ask for the next.
            if self._state is not KernelState.TERMINATING:
                self._end(KernelState.TERMINATED)

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
        if self._state in _ENDED:
            self._enter(state)  # A failed kernel that is terminated.
            return
        self._enter(state)
        self._counters.end()
        error: PyDotComputeError = self._failure or self._state_error("handle messages", *_OPEN)
        self.inbox.close(error)
        left = self.inbox.drain()
        if self._in_hand is not None:
            left.insert(0, self._in_hand)
            self._in_hand = None
        self.inbox_bytes = self._timed = 0
        for message, _, _ in left:
            self.bury(message, str(error), DeadLetterReason.KERNEL_ENDED)
            self.replies.fail(cast(Header, message).message_id, error)
        self.replies.end(error)

    def bury(
        self,
        message: Any,
        detail: str,
        reason: DeadLetterReason = DeadLetterReason.CALLER_GONE,
        direction: DeadLetterDirection | None = None,
    ) -> None:
        """Keep a message that cannot be delivered as a dead letter, and count it. See `DeadLetters.add`."""
        self._counters.dropped += 1
        self.dead_letters.add(message, detail, reason, direction)

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
        self._require("requeue_dead_letters", *_OPEN)
        return self.dead_letters.requeue(ids, self._put_back)

    def _put_back(self, letter: DeadLetter) -> bool:
        message = letter.message
        to_kernel = letter.direction is TO_KERNEL
        try:
            (self._check_in if to_kernel else self._check_out)(message)
        except MessageError:  # An earlier kernel of this id was of another type.
            return False
        if to_kernel:
            return self.inbox.offer((message, perf_counter_ns(), None), message.priority)
        if not self.outputs.offer(message, message.priority):
            return False
        self.replies.wanted.notify()
        return True

    # -- the actor's side ----------------------------------------------------------------------------------------------

    async def _wait_active(self) -> None:
        while self._state in (KernelState.LAUNCHED, KernelState.DEACTIVATED):
            await self.changed.wait()

    def _complete(self) -> None:
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is not None:
            self._counters.complete(in_hand[1])

    async def _next_item(self, timeout: float | None) -> tuple[TIn, int, Terms | None]:
        """The next message that is not overdue, waiting for it if need be.

        First it lets the other tasks run. An actor may ignore every error and ask again at once; and one that is asked
        by a single caller finds the next request then, and need not wait: 11 µs there and back, instead of 16.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._idle.waiters:
            self._idle.notify_all()
        self._handed_in_a_row = 0
        await asyncio.sleep(0)
        while True:
            item = self.inbox.get_nowait()
            if item is None:
                try:
                    item = await self.inbox.get(None if deadline is None else deadline - monotonic())
                except KernelStateError:
                    raise self._state_error("receive", *_OPEN) from None
                except QueueTimeoutError:
                    assert timeout is not None
                    raise QueueTimeoutError(self.kernel_id, timeout, "receive") from None
            if item[2] is None or not self._is_overdue(item):
                return item

    def _is_overdue(self, item: tuple[TIn, int, Terms | None]) -> bool:
        """An item with terms was taken from the mailbox: whether its deadline has passed. Then it is a dead letter."""
        message, _, terms = item
        assert terms is not None
        self._left_inbox(terms)
        if terms.deadline is None or monotonic() < terms.deadline:
            return False
        self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
        error = QueueTimeoutError(self.kernel_id, terms.timeout, "send_and_receive")
        self.replies.fail(cast(Header, message).message_id, error)
        return True

    def _entered_inbox(self, terms: Terms) -> None:
        self.inbox_bytes += terms.size
        self._timed += terms.deadline is not None

    def _left_inbox(self, terms: Terms) -> None:
        self.inbox_bytes -= terms.size
        self._timed -= terms.deadline is not None

    def seconds_to_overdue(self) -> float | None:
        """When to `bury_overdue`, so that those who wait for room have it; None if that would make none."""
        if not self._timed or self.inbox.room:
            return None
        deadlines = (terms.deadline for _, _, terms in self.inbox.items if terms is not None)
        return min(deadline for deadline in deadlines if deadline is not None) - monotonic()

    def bury_overdue(self) -> None:
        """The mailbox is full: what is overdue need not take room."""
        if not self._timed:
            return
        now = monotonic()
        for item in list(self.inbox.items):
            message, _, terms = item
            overdue = terms is not None and terms.deadline is not None and terms.deadline <= now
            if overdue and self.inbox.remove(item, cast(Header, message).priority):
                self._is_overdue(item)

    async def _send_output(self, message: Any) -> None:
        await self._wait_active()
        try:
            await self.outputs.put(message, message.priority)
        except asyncio.CancelledError:
            detail = "the kernel ended while its output mailbox was full"
            self.bury(message, detail, DeadLetterReason.KERNEL_ENDED, FROM_KERNEL)
            raise
        self.replies.wanted.notify()

    # -- the callers' side ---------------------------------------------------------------------------------------------

    def _require_open(self) -> None:
        if (refusal := self.refusal) is not None:
            raise refusal.again()

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
        return self.send_as(self.replies.caller(), message, timeout)

    async def send_as(
        self, caller: Caller[Any] | None, message: TIn, timeout: float | None = None, terms: Terms | None = None
    ) -> None:
        """`send` on behalf of this caller; None is the task that runs this."""
        if not self._is_open:
            self._require_open()
        self._check_in(message)
        replies = self.replies
        if caller is None:
            caller = replies.running_caller()
        if caller.ready.size >= self.outputs.capacity:
            await self._wait_until_received(caller, timeout)
        header: Any = message
        message_id, priority = header.message_id, header.priority
        if priority.__class__ is not int or not 0 <= priority <= 255:
            check_header(message)
        expected = replies.expect(message_id, caller)
        if expected is TAKEN:
            raise self._id_taken(message)
        if self.inbox.offer((message, perf_counter_ns(), terms), priority):
            if terms is not None:
                self._entered_inbox(terms)
        else:
            try:
                another_dropped = await self._put(message, timeout, terms)
            except BaseException:
                if expected is NEW:
                    replies.forget(message_id)
                raise
            if another_dropped:
                await asyncio.sleep(0)  # Nothing else stops a sender that is never refused.

    async def room_for(self, caller: Caller[Any], wanted: int) -> int:
        """Wait until this caller may put some messages, up to `wanted`, with `accept`, in this same step: as `send`
        waits under `block`.

        Raises:
            KernelStateError, KernelFailedError: the kernel takes no messages.
        """
        while True:
            self._require_open()
            if caller.ready.size >= self.outputs.capacity:
                await wait_any((caller.room, self.changed))
                continue
            if self.inbox.room == 0:
                self.bury_overdue()
            return await self.inbox.wait_for_room(wanted)

    def accept(
        self, caller: Caller[Any], messages: Sequence[Any], keys: Sequence[int], terms: Sequence[Terms | None]
    ) -> list[tuple[int, PyDotComputeError]]:
        """Put messages for which there is room, all from one caller and checked already, into the input mailbox.

        Args:
            keys: the `message_id.int` of each.
            terms: of each; empty if none has any.

        Returns:
            The indices of those that are refused, and why.
        """
        now = perf_counter_ns()
        priority = messages[0].priority
        priorities = [message.priority for message in messages]
        if not terms and priorities.count(priority) == len(messages) and self.replies.expect_all(keys, caller):
            self.inbox.add_all(list(zip(messages, repeat(now), repeat(None), strict=False)), priority)
            return []
        refused: list[tuple[int, PyDotComputeError]] = []
        for index, (message, each) in enumerate(zip(messages, terms or repeat(None), strict=False)):
            if self.replies.expect(message.message_id, caller) is TAKEN:
                refused.append((index, self._id_taken(message)))
                continue
            if each is not None:
                self._entered_inbox(each)
            self.inbox.add((message, now, each), message.priority)
        return refused

    def withdraw(self, message_id: UUID, caller: Caller[Any] | None = None) -> bool:
        """Take a request back that the actor has not taken yet, and, where a caller is named, is that caller's; whether
        that was done. Nobody gets a reply to it.
        """
        key = message_id.int
        if caller is not None and not self.replies.is_from(message_id, caller):
            return False
        for item in self.inbox.items:
            header: Any = item[0]
            if header.message_id.int == key:
                break
        else:
            return False
        if not self.inbox.remove(item, header.priority):
            return False  # Its sender has changed its priority since.
        if item[2] is not None:
            self._left_inbox(item[2])
        self.replies.forget(message_id)
        return True

    def withdraw_all(self, caller: Caller[Any]) -> None:
        """`withdraw` every request of this caller."""
        if not caller.unanswered:
            return
        is_from = self.replies.is_from
        for message, _, terms in self.inbox.remove_all(lambda item: is_from(cast(Header, item[0]).message_id, caller)):
            if terms is not None:
                self._left_inbox(terms)
            self.replies.forget(cast(Header, message).message_id)

    async def _wait_until_received(self, caller: Caller[Any], timeout: float | None) -> None:
        """One who does not receive its replies cannot go on sending."""
        deadline = None if timeout is None else monotonic() + timeout
        while caller.ready.size >= self.outputs.capacity:
            remaining = None if deadline is None else deadline - monotonic()
            if self.config.backpressure_strategy == "reject" or not await wait_any(
                (caller.room, self.changed), remaining
            ):
                raise QueueFullError(self.kernel_id, self.outputs.capacity)
            self._require_open()

    def _id_taken(self, message: Any) -> MessageSerializationError:
        """Two callers with requests of one id could not be told apart."""
        problem = "another request of this id waits for its reply"
        return MessageSerializationError(type(message).__name__, problem, "$.message_id")

    async def _put(self, message: Any, timeout: float | None, terms: Terms | None = None) -> bool:
        """Put a message into the mailbox; whether another had to go."""
        if self.inbox.room == 0:
            self.bury_overdue()
        dropped = await self.inbox.put((message, perf_counter_ns(), terms), message.priority, timeout)
        if terms is not None:
            self._entered_inbox(terms)
        if dropped is not None:
            if dropped[2] is not None:
                self._left_inbox(dropped[2])
            error = QueueFullError(self.kernel_id, self.inbox.capacity)
            self.bury(dropped[0], f"dropped to make room: {error}", DeadLetterReason.DROPPED)
            self.replies.fail(cast(Header, dropped[0]).message_id, error)
        return dropped is not None

    def receive(self, *, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """The next reply to the task that calls this, or the next output; for the rules see
        `pydotcompute.ring_kernels.replies`.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds; what comes later waits for the next `receive`.
            KernelStateError: the kernel is not launched yet, or has ended and all has been received.
            KernelFailedError: likewise, when it has failed.
            QueueFullError: a request of this task was dropped to make room.
        """
        return self.receive_as(self.replies.receiver(), timeout)

    def receive_as(self, caller: Caller[Any] | None, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """`receive` on behalf of this caller; None is one that has sent nothing."""
        if self._state in (KernelState.CREATED, KernelState.LAUNCHED):
            return _refuse(self._state_error("receive", *_OPEN))
        return self.replies.receive(caller, timeout)

    async def send_and_receive(self, message: TIn, *, timeout: float | None = None) -> TOut:
        """Send one request and wait for its own reply.

        A request that the actor has not taken when the time-out ends becomes a dead letter; one whose caller is
        cancelled is withdrawn. Where the actor has taken it, the reply that comes too late becomes a dead letter.

        Raises:
            QueueTimeoutError: no reply came within `timeout` seconds.
            KernelStateError, KernelFailedError, QueueFullError, MessageTypeError, MessageSerializationError: as `send`.
        """
        self._require_open()
        self._check_in(message)
        check_header(message)
        deadline = None if timeout is None else monotonic() + timeout
        message_id = cast(Header, message).message_id
        reply = self.replies.ask(message_id)
        if reply is None:
            raise self._id_taken(message)
        terms = None if timeout is None else Terms(timeout, deadline)
        try:
            await self._put(message, timeout, terms)
        except BaseException:
            self.replies.unask(message_id)
            raise
        try:
            return cast(TOut, await self.replies.reply_to(message_id, reply, timeout, deadline))
        except QueueTimeoutError:
            if self.withdraw(message_id):
                self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
            raise
        except asyncio.CancelledError:
            self.withdraw(message_id)
            raise


def _text(error: BaseException) -> str:
    """The text of an exception of an actor's, which may have none, or none that is Unicode."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"(its text cannot be made: {type(broken).__name__})"
    return text.encode("utf-8", "backslashreplace").decode()


async def _refuse(error: PyDotComputeError) -> Any:
    """Raise where a coroutine is awaited, not where it is made."""
    raise error


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
