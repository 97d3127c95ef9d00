"""The messages of one kernel: its mailboxes, what its actor has in hand, and who waits for replies."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
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
from pydotcompute.messages.header import Header, check_header
from pydotcompute.messages.message import door
from pydotcompute.ring_kernels.declaration import KernelType, RingKernelConfig
from pydotcompute.ring_kernels.mail.dead_letters import (
    FROM_KERNEL,
    TO_KERNEL,
    DeadLetter,
    DeadLetterDirection,
    DeadLetterReason,
    DeadLetters,
)
from pydotcompute.ring_kernels.mail.gate import OPEN, KernelState
from pydotcompute.ring_kernels.mail.inbox import Inbox, Item, Terms
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.replies import NEW, TAKEN, Caller, Replies
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any
from pydotcompute.ring_kernels.mail.telemetry import Counters

__all__ = ["KernelMail"]

OVERDUE = "its deadline had passed before the kernel took it"

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class KernelMail(Generic[TIn, TOut]):
    """The part of a kernel that messages pass through. It reads the kernel's state, which `RingKernel` changes."""

    def __init__(self, kernel_id: str, kernel_type: KernelType) -> None:
        config, input_type, output_type = kernel_type.config, kernel_type.input_type, kernel_type.output_type
        self.kernel_id = kernel_id
        self.type = kernel_type
        self._state = KernelState.CREATED
        self._is_open = self._has_ended = False  # What the hot paths ask of the state.
        self._failure: KernelFailedError | None = None
        self.changed = Signal()
        """Notified at each change of state."""
        self._idle = Signal()
        self._check_in = door(input_type)
        self.check_output = door(output_type, input_type)  # An echo is of the input type.
        """Raises MessageTypeError or MessageSerializationError for what the kernel may not send."""
        self._output_type = cast(type[TOut] | None, output_type)
        self._check_output = door(output_type)
        self.inbox: Inbox[TIn] = Inbox(kernel_id, config.input_queue_size, config.backpressure_strategy, paused=True)
        self.outputs: Mailbox[Any] = Mailbox(kernel_id, config.output_queue_size)
        self.replies: Replies[Any] = Replies(kernel_id, self.outputs, self.bury)
        self._in_hand: Item[TIn] | None = None
        self._batch: dict[int, Item[TIn]] = {}  # What else is in the actor's hands, by `message_id.int`.
        self._handed_in_a_row = 0
        self._has_just_waited = False  # With the actor's last `receive`, in vain: other tasks have run.
        self._counters = Counters()
        self.dead_letters = DeadLetters()

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

    def _require(self, operation: str, *allowed: KernelState) -> None:
        if self._state not in allowed:
            raise self._state_error(operation, *allowed)

    def _state_error(self, operation: str, *allowed: KernelState) -> KernelStateError:
        return KernelStateError(self.kernel_id, self._state.name, operation, [state.name for state in allowed])

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
        `pydotcompute.ring_kernels.mail.replies`.

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


async def _refuse(error: PyDotComputeError) -> Any:
    """Raise where a coroutine is awaited, not where it is made."""
    raise error
