"""One kernel: its state, its actor's task, its mailboxes and its counters."""

from __future__ import annotations

import asyncio
import logging
import math
import traceback
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from itertools import repeat
from time import monotonic, perf_counter_ns
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pydotcompute.device.opening import open_session
from pydotcompute.device.sessions import HOST, Session
from pydotcompute.exceptions import (
    KernelFailedError,
    KernelStateError,
    MessageError,
    MessageSerializationError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.context import KernelContext
from pydotcompute.ring_kernels.dead_letters import (
    FROM_KERNEL,
    TO_KERNEL,
    DeadLetter,
    DeadLetterDirection,
    DeadLetterReason,
    DeadLetters,
)
from pydotcompute.ring_kernels.declaration import KernelFunction, KernelType, RingKernelConfig
from pydotcompute.ring_kernels.inbox import Inbox, Item, Terms
from pydotcompute.ring_kernels.mailbox import Mailbox
from pydotcompute.ring_kernels.message import check_header, door
from pydotcompute.ring_kernels.replies import NEW, TAKEN, Caller, Header, Replies, receive_for_oneself
from pydotcompute.ring_kernels.states import ENDED, OPEN, KernelState
from pydotcompute.ring_kernels.telemetry import Counters, RingKernelTelemetry
from pydotcompute.ring_kernels.threads import run_in_thread
from pydotcompute.ring_kernels.waiting import Signal, wait_any

__all__ = [
    "KernelContext",
    "KernelState",
    "RingKernel",
    "RingKernelConfig",
    "current_kernel_id",
    "managed_kernel",
]

OVERDUE = "its deadline had passed before the kernel took it"
CANCELLATION_GRACE = 1.0
"""Seconds that a cancelled actor has to end before the kernel goes on without it."""

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)

current_kernel_id: ContextVar[str | None] = ContextVar("pydotcompute_kernel_id", default=None)
"""The id of the kernel whose actor runs in this context: for whoever labels logs."""


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
        device: str = "cpu",
        memory_limit: int | str | None = None,
    ) -> None:
        config = RingKernelConfig(kernel_id) if config is None else config
        self.kernel_id = kernel_id
        self.type_name = type_name or kernel_id
        """The name of the kernel type that this is an instance of."""
        self.type = KernelType(kernel_func, config, input_type, output_type, service, device, memory_limit)
        self.session: Session = HOST
        """What the kernel has of its device, from its launch on."""
        self._state = KernelState.CREATED
        self._is_open = self._has_ended = False  # What the hot paths ask of the state.
        self._context: KernelContext[TIn, TOut] = KernelContext(self)
        self.changed = Signal()
        """Notified at each change of state."""
        self._idle = Signal()
        self._check_in = door(input_type)
        self.check_output = door(output_type, input_type)  # An echo is of the input type.
        """Raises MessageTypeError or MessageSerializationError for what the kernel may not send."""
        self._output_type = output_type
        self._check_output = door(output_type)
        self.inbox: Inbox[TIn] = Inbox(kernel_id, config.input_queue_size, config.backpressure_strategy, paused=True)
        self.outputs: Mailbox[Any] = Mailbox(kernel_id, config.output_queue_size)
        self.replies: Replies[Any] = Replies(kernel_id, self.outputs, self.bury)
        self._in_hand: Item[TIn] | None = None
        self._batch: dict[int, Item[TIn]] = {}  # What else is in the actor's hands, by `message_id.int`.
        self._handed_in_a_row = 0
        self._has_just_waited = False  # With the actor's last `receive`, in vain: other tasks have run.
        self._task: asyncio.Task[None] | None = None
        self._at_first_wait = self.type.executor == "loop"  # Whether the actor has got as far as `launch` waits for.
        self.find: Callable[[str], RingKernel[Any, Any]] | None = None
        """The other kernels of its runtime, by their ids, to which its actor may forward."""
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
        return None if self._state in OPEN else self._state_error("send", *OPEN)

    @property
    def has_ended(self) -> bool:
        """Whether the kernel will send nothing more."""
        return self._has_ended

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

    def _require(self, operation: str, *allowed: KernelState) -> None:
        if self._state not in allowed:
            raise self._state_error(operation, *allowed)

    def _state_error(self, operation: str, *allowed: KernelState) -> KernelStateError:
        return KernelStateError(self.kernel_id, self._state.name, operation, [state.name for state in allowed])

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
        self._require("requeue_dead_letters", *OPEN)
        return self.dead_letters.requeue(ids, self._put_back)

    def _put_back(self, letter: DeadLetter) -> bool:
        message = letter.message
        to_kernel = letter.direction is TO_KERNEL
        try:
            (self._check_in if to_kernel else self.check_output)(message)
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
        if self._batch:
            for _, arrived_ns, _ in self._batch.values():
                self._counters.complete(arrived_ns)
            self._batch.clear()

    def request_of(self, message: Any) -> int:
        """The `message_id.int` of the request that the actor answers with this: the one that it names, or is itself."""
        key: int = message.message_id.int
        item = self.item_in_hand(key)
        if message.correlation_id is None or (item is not None and item[0] is message):
            return key
        return cast(int, message.correlation_id.int)

    def item_in_hand(self, key: int) -> Item[TIn] | None:
        """The item in the actor's hands whose message has this `message_id.int`."""
        in_hand = self._in_hand
        if in_hand is not None and cast(Header, in_hand[0]).message_id.int == key:
            return in_hand
        return self._batch.get(key)

    def complete(self, key: int) -> None:
        """The actor is done with the item in its hands whose message has this `message_id.int`, if there is one."""
        item = self.item_in_hand(key)
        if item is None:
            return
        if item is self._in_hand:
            self._in_hand = None
        else:
            del self._batch[key]
        self._counters.complete(item[1])

    async def _next_batch(self, max_size: int, max_delay: float) -> list[Item[TIn]]:
        """The next messages that are not overdue. Only when they are handed out do they leave the mailbox: until then a
        pause holds them, and a more urgent one goes before them."""
        self._complete()
        if self._idle.waiters:
            self._idle.notify_all()
        await asyncio.sleep(0)
        items: list[Item[TIn]] = []
        while not items:
            try:
                await self.inbox.ripen(max_size, max_delay)
            except KernelStateError:
                raise self._state_error("receive", *OPEN) from None
            while len(items) < max_size and (item := self.inbox.get_nowait()) is not None:
                if item[2] is None or not self._bury_if_overdue(item):
                    items.append(item)
        for item in items:
            key = cast(Header, item[0]).message_id.int
            # A caller may have sent two of one id: a reply is to the first, and the next batch completes the others.
            self._batch[key if key not in self._batch else -len(self._batch)] = item
        self._counters.handed_batch(len(items))
        return items

    async def _next_item(self, timeout: float | None) -> Item[TIn]:
        """The next message that is not overdue, waiting for it if need be.

        First it lets the other tasks run. An actor may ignore every error and ask again at once; and one that is asked
        by a single caller finds the next request then, and need not wait: 11 µs there and back, instead of 16. Not so
        where the last wait was in vain, for then they have just run.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._idle.waiters:
            self._idle.notify_all()
        self._handed_in_a_row = 0
        if self._has_just_waited:
            self._has_just_waited = False
        else:
            await asyncio.sleep(0)
        while True:
            item = self.inbox.get_nowait()
            if item is None:
                try:
                    item = await self.inbox.next(None if deadline is None else deadline - monotonic())
                except KernelStateError:
                    raise self._state_error("receive", *OPEN) from None
            if item is None:
                assert timeout is not None
                self._has_just_waited = True
                raise QueueTimeoutError(self.kernel_id, timeout, "receive")
            if item[2] is None or not self._bury_if_overdue(item):
                return item

    def _bury_if_overdue(self, item: Item[TIn]) -> bool:
        """An item with terms was taken from the mailbox: whether its deadline has passed. Then it is a dead letter."""
        message, _, terms = item
        assert terms is not None
        self.inbox.left(terms)
        if terms.deadline is None or monotonic() < terms.deadline:
            return False
        self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
        error = QueueTimeoutError(self.kernel_id, terms.timeout, "send_and_receive")
        self.replies.fail(cast(Header, message).message_id, error)
        return True

    def bury_overdue(self) -> None:
        """The mailbox is full: what is overdue need not take room."""
        for item in self.inbox.take_overdue():
            self._bury_if_overdue(item)

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
                self.inbox.entered(terms)
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
                self.inbox.entered(each)
            self.inbox.add((message, now, each), message.priority)
        return refused

    def withdraw(self, message_id: UUID, caller: Caller[Any] | None = None) -> bool:
        """Take a request back that the actor has not taken yet, and, where a caller is named, is that caller's; whether
        that was done. Nobody gets a reply to it.
        """
        if caller is not None and not self.replies.is_from(message_id, caller):
            return False
        if not self.inbox.take_out(message_id.int):
            return False
        self.replies.forget(message_id)
        return True

    def withdraw_all(self, caller: Caller[Any]) -> None:
        """`withdraw` every request of this caller."""
        if not caller.unanswered:
            return
        is_from = self.replies.is_from
        for message, _, terms in self.inbox.remove_all(lambda item: is_from(cast(Header, item[0]).message_id, caller)):
            if terms is not None:
                self.inbox.left(terms)
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
            self.inbox.entered(terms)
        if dropped is not None:
            if dropped[2] is not None:
                self.inbox.left(dropped[2])
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
            return _refuse(self._state_error("receive", *OPEN))
        return self.replies.receive(caller, timeout)

    async def hand_over(self, message: TIn, terms: Terms | None, timeout: float | None) -> asyncio.Future[Any]:
        """Put a request into the input mailbox; returns a future of its reply. Errors as `send`."""
        self._require_open()
        self._check_in(message)
        check_header(message)
        message_id = cast(Header, message).message_id
        reply = self.replies.ask(message_id)
        if reply is None:
            raise self._id_taken(message)
        try:
            await self._put(message, timeout, terms)
        except BaseException:
            self.replies.unask(message_id)
            raise
        return reply

    async def send_and_receive(self, message: TIn, *, timeout: float | None = None) -> TOut:
        """Send one request and wait for its own reply.

        A request that the actor has not taken when the time-out ends becomes a dead letter; one whose caller is
        cancelled is withdrawn. Where the actor has taken it, the reply that comes too late becomes a dead letter.

        Raises:
            QueueTimeoutError: no reply came within `timeout` seconds.
            KernelStateError, KernelFailedError, QueueFullError, MessageTypeError, MessageSerializationError: as `send`.
        """
        deadline = None if timeout is None else monotonic() + timeout
        reply = await self.hand_over(message, None if timeout is None else Terms(timeout, deadline), timeout)
        message_id = cast(Header, message).message_id
        try:
            return cast(TOut, await self.replies.reply_to(message_id, reply, timeout, deadline))
        except QueueTimeoutError:
            if self.withdraw(message_id):
                self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
            raise
        except asyncio.CancelledError:
            self.withdraw(message_id)
            raise


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
