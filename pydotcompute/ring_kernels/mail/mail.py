"""The mail of one kernel: its mailboxes, the callers that wait for replies, and its dead letters.

To *bury* a message is to keep it as a dead letter. A message is *overdue* when its deadline has passed before the actor
has taken it. To *withdraw* a request is to take it out of the mailbox for its caller, with no dead letter.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Sequence, Set
from itertools import repeat
from time import monotonic, perf_counter_ns
from typing import Any, Generic, TypeVar, cast
from uuid import UUID

from pydotcompute.exceptions import (
    MessageError,
    MessageSerializationError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
    SessionLostError,
)
from pydotcompute.messages.header import Header, check_header
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import LOCAL, Caller
from pydotcompute.ring_kernels.mail.dead_letters import (
    TO_KERNEL,
    DeadLetter,
    DeadLetterDirection,
    DeadLetterReason,
    DeadLetters,
)
from pydotcompute.ring_kernels.mail.delays import Delay, Delays
from pydotcompute.ring_kernels.mail.gate import OPEN, Gate, KernelState
from pydotcompute.ring_kernels.mail.inbox import Inbox, Item, Terms
from pydotcompute.ring_kernels.mail.journal import Journal
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.replies import Replies
from pydotcompute.ring_kernels.mail.requests import NEW, TAKEN
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.ring_kernels.mail.sizes import estimated_sum
from pydotcompute.ring_kernels.mail.telemetry import Counters

__all__ = ["Check", "Mail"]

OVERDUE = "its deadline had passed before the kernel took it"

Check = Callable[[object], None]
"""A function that raises MessageTypeError or MessageSerializationError for a message that must not pass."""

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class Mail(Generic[TIn, TOut]):
    """The mail of one kernel, as callers use it. The actor uses it through `KernelContext`."""

    def __init__(
        self,
        gate: Gate,
        config: RingKernelConfig,
        check_in: Check,
        check_out: Check,
        *,
        limits: RuntimeLimits = DEFAULT_LIMITS,
        dead_letters: DeadLetters | None = None,
        journal: Journal | None = None,
    ) -> None:
        kernel_id = gate.kernel_id
        self.kernel_id = kernel_id
        self.takes_raw = False
        """True if messages may be `Raw`: the actor runs elsewhere. It is set before there are any."""
        self.gate = gate
        """The state of the kernel, which decides what may be sent and received."""
        self.check_in = check_in
        """Raises if the kernel does not take the message."""
        self.check_out = check_out
        """Raises if the kernel must not send the message. An echo, which is of the input type, passes."""
        self.inbox: Inbox[TIn] = Inbox(kernel_id, config.input_queue_size, config.backpressure_strategy, paused=True)
        self.outputs: Mailbox[Any] = Mailbox(kernel_id, config.output_queue_size)
        self.delays = Delays(gate, self.inbox)
        """Says why a request is not answered yet."""
        self.replies: Replies[Any] = Replies(kernel_id, self.outputs, self.bury, limits, self._why_nothing_came)
        self._putting: set[int] = set()  # The requests that wait for room in the mailbox, by `message_id.int`.
        self.counters = Counters()
        self.dead_letters = DeadLetters(limits) if dead_letters is None else dead_letters
        self.journal = journal
        """Keeps the accepted messages until they are done; None if the kernel is not durable."""

    @property
    def held_bytes(self) -> int:
        """The bytes that the messages in both mailboxes take, in part estimated. Dead letters are not among them."""
        outputs = self.outputs.items
        return self.inbox.held_bytes + (estimated_sum(outputs, outputs.size) if outputs.size else 0)

    def held_by(self, principal: str) -> int:
        """Return the bytes of the requests in the input mailbox that this principal has sent, in part estimated."""

        def is_theirs(item: Item[TIn]) -> bool:
            return self.replies.principal_of(cast(Header, item[0]).message_id.int) == principal

        return self.inbox.held_where(is_theirs)

    def begin(self) -> None:
        """Begin, on the running event loop: put the messages that the journal has kept into the input mailbox."""
        self.replies.begin(asyncio.get_running_loop())
        if self.journal is not None:
            for message in self.journal.replay():
                self.inbox.put_anyway((message, perf_counter_ns(), None), message.priority)

    def end(self, error: PyDotComputeError, in_hand: Iterable[Item[TIn]]) -> None:
        """End: bury every message that was not handled, and give `error` to every caller that still waits.

        If the kernel ends with its runtime, a caller whose request the actor has taken gets SessionLostError instead:
        `error` says that the request was not handled, and can be sent again elsewhere.

        Args:
            error: the reason why the kernel has ended.
            in_hand: the items that the actor had in its hands.
        """
        self.counters.end()
        self.inbox.close(error)
        self.delays.asks.end(self.gate.state_error("ask", *OPEN))
        of_taken = self._of_taken if error == self.gate.ending else None
        for message, _, _ in in_hand:
            self.bury(message, str(error), DeadLetterReason.KERNEL_ENDED)
            message_id = cast(Header, message).message_id
            self.replies.fail(message_id, error if of_taken is None else of_taken(message_id))
        for message, _, _ in self.inbox.drain():
            self.bury(message, str(error), DeadLetterReason.KERNEL_ENDED)
            self.replies.fail(cast(Header, message).message_id, error)
        self.replies.end(error, of_taken)

    def _of_taken(self, message_id: UUID) -> PyDotComputeError:
        """Return the error for the caller of a request that the actor has taken, when the runtime ends."""
        problem = f"{self.gate.ending}, and the actor had not answered yet"
        return SessionLostError("", problem, self.kernel_id, [message_id])

    def bury(
        self,
        message: Any,
        detail: str,
        reason: DeadLetterReason = DeadLetterReason.CALLER_GONE,
        direction: DeadLetterDirection | None = None,
    ) -> None:
        """Keep a message as a dead letter, and count it. For the arguments see `DeadLetters.add`."""
        self.counters.dropped += 1
        self.dead_letters.add(message, detail, reason, direction)
        self._forget_kept(message.message_id)

    def requeue(self, ids: Iterable[int] | None) -> list[int]:
        """Put dead letters back into the mailboxes. See `RingKernel.requeue_dead_letters`."""
        self.gate.require("requeue_dead_letters", *OPEN)
        return self.dead_letters.requeue(ids, self._put_back)

    def _put_back(self, letter: DeadLetter) -> bool:
        message = letter.message
        to_kernel = letter.direction is TO_KERNEL
        try:
            (self.check_in if to_kernel else self.check_out)(message)
        except MessageError:  # The letter is from an earlier kernel of this id, of another type.
            return False
        if to_kernel:
            if not self.inbox.offer((message, perf_counter_ns(), None), message.priority):
                return False
            if self.journal is not None:
                self.journal.accept((message,))
            return True
        if not self.outputs.offer(message, message.priority):
            return False
        self.replies.wanted.notify()
        return True

    def bury_if_overdue(self, item: Item[TIn]) -> bool:
        """Bury the message of an item if it is overdue, and tell the caller. Return True if it was overdue.

        Call this for every item with terms that was taken from the input mailbox.
        """
        message, _, terms = item
        assert terms is not None
        self.inbox.left(terms)
        if terms.deadline is None or monotonic() < terms.deadline:
            return False
        self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
        error = QueueTimeoutError(self.kernel_id, terms.timeout, "send_and_receive", *self.delays.of_waiting(0))
        self.replies.fail(cast(Header, message).message_id, error)
        return True

    def give_again(self, item: Item[TIn]) -> None:
        """Put a message back before all others of its priority, after the actor has had it in hand and has failed."""
        message, arrived_ns, terms = item
        if terms is None:
            terms = Terms()
        terms.deliveries += 1
        self.inbox.entered(terms)
        self.inbox.put_anyway((message, arrived_ns, terms), cast(Header, message).priority, front=True)

    def fail_held(self, error: PyDotComputeError) -> None:
        """Give `error` to those who have asked, and whose requests the actor has taken and kept to answer them later.

        The actor has failed, and the one that is started again knows nothing of them.
        """
        waiting = {cast(Header, item[0]).message_id.int for item in self.inbox.in_order()}
        for key in self.replies.asked_keys():
            if not (key in waiting or key in self._putting or key in self.delays.forwarded):
                self.replies.fail(uuid_from_int(key), error)

    def bury_overdue(self) -> None:
        """Bury all overdue messages in the input mailbox. This makes room when the mailbox is full."""
        for item in self.inbox.take_overdue():
            self.bury_if_overdue(item)
        if self.inbox.lent is not None:
            for _, item in self.inbox.lent.take_overdue():
                self.bury_if_overdue(item)

    # -- for callers ---------------------------------------------------------------------------------------------------

    async def send_as(
        self,
        caller: Caller[Any] | None,
        message: TIn,
        timeout: float | None = None,
        terms: Terms | None = None,
        *,
        checked: bool = False,
    ) -> None:
        """Send on behalf of `caller`, as `RingKernel.send` does. None is the task that runs this coroutine.

        `checked` is True if the message has passed `check_in` already.
        """
        if not self.gate.is_open:
            self.gate.require_open()
        if not checked:
            self.check_in(message)
        replies = self.replies
        if caller is None:
            caller = replies.callers.running()
        if caller.ready.size >= self.outputs.capacity:
            await self._wait_until_received(caller, timeout)
        header: Any = message
        message_id, priority = header.message_id, header.priority
        if priority.__class__ is not int or not 0 <= priority <= 255:
            check_header(message)
            priority = header.priority  # It may have been one of NumPy's integers.
        expected = replies.expect(message_id, caller)
        if expected is TAKEN:
            raise self._id_taken(message)
        if self.journal is None and self.inbox.offer((message, perf_counter_ns(), terms), priority):
            if terms is not None:
                self.inbox.entered(terms)
            return
        try:
            another_dropped = await self._put(message, timeout, terms)
        except BaseException:
            if expected is NEW:
                replies.forget(message_id)
            raise
        if another_dropped:
            await asyncio.sleep(0)  # Let other tasks run: under `drop_oldest` nothing else stops the sender.

    async def room_for(self, caller: Caller[Any], wanted: int) -> int:
        """Wait until `caller` may put messages with `accept`, as `send_as` waits under `block`.

        The caller must call `accept` before it awaits anything else; after that the room may be gone.

        Args:
            caller: the caller that wants to send.
            wanted: the number of messages that the caller wants to put.

        Returns:
            The number of messages that the caller may put, from 1 to `wanted`.

        Raises:
            KernelStateError, KernelFailedError: the kernel takes no messages.
        """
        while True:
            self.gate.require_open()
            if caller.ready.size >= self.outputs.capacity:
                await wait_any((caller.room, self.gate.closing))
                continue
            if self.inbox.room == 0:
                self.bury_overdue()
            return await self.inbox.wait_for_room(wanted)

    def accept(
        self, caller: Caller[Any], messages: Sequence[Any], keys: Sequence[int], terms: Sequence[Terms | None]
    ) -> list[tuple[int, PyDotComputeError]]:
        """Put messages of one caller into the input mailbox. There must be room for them; see `room_for`.

        Args:
            caller: the caller that gets the replies.
            messages: the messages, which are already checked. There is at least one.
            keys: the `message_id.int` of each message.
            terms: the terms of each message; empty if no message has terms.

        Returns:
            The index and the error of each message that is refused.
        """
        now = perf_counter_ns()
        priority = messages[0].priority
        priorities = [message.priority for message in messages]
        if not terms and priorities.count(priority) == len(messages) and self.replies.expect_all(keys, caller):
            if self.journal is not None:
                self.journal.accept(messages)
            self.inbox.add_all(list(zip(messages, repeat(now), repeat(None), strict=False)), priority)
            return []
        refused: list[tuple[int, PyDotComputeError]] = []
        for index, (message, each) in enumerate(zip(messages, terms or repeat(None), strict=False)):
            if self.replies.expect(message.message_id, caller) is TAKEN:
                refused.append((index, self._id_taken(message)))
                continue
            if self.journal is not None:
                self.journal.accept((message,))
            if each is not None:
                self.inbox.entered(each)
            self.inbox.add((message, now, each), message.priority)
        return refused

    def withdraw(self, message_id: UUID, caller: Caller[Any] | None = None) -> bool:
        """Withdraw a request that the actor has not taken yet. Nobody gets a reply to the request.

        Args:
            message_id: the id of the request.
            caller: the caller that must have sent the request; None means any caller.

        Returns:
            True if the request was withdrawn; False if it was not in the mailbox, is another caller's, or was handed on
            to where the actor runs: from there it is called back, unless the actor takes it first.
        """
        if caller is not None and not self.replies.is_from(message_id, caller):
            return False
        if self._take_back(message_id) is not None:
            return True
        if self.inbox.lent is not None:
            key = message_id.int
            self.inbox.lent.withdraw(lambda item: cast(Header, item[0]).message_id.int == key)
        self.delays.asks.withdraw(message_id.int.__eq__)
        return False

    def _take_back(self, message_id: UUID, *, overdue: bool = False) -> int | None:
        """Withdraw a request. Return how many messages come before it; None if it was not in the mailbox.

        `overdue` is True if its deadline has passed. Then it can be withdrawn for sure also where it was handed on.
        """
        before = self.inbox.take_out(message_id.int)
        if before is None and overdue and self.inbox.lent is not None:
            overdue_ones = self.inbox.lent.take_overdue(message_id.int)
            if overdue_ones:
                before, (_, _, terms) = overdue_ones[0]
                if terms is not None:
                    self.inbox.left(terms)
        if before is not None:
            self.replies.forget(message_id)
            self._forget_kept(message_id)
        return before

    def withdraw_many(self, keys: Set[int], caller: Caller[Any]) -> None:
        """Withdraw those requests of this caller that the actor has not taken yet. A key is a `message_id.int`."""
        if not caller.unanswered:
            return
        is_from = self.replies.is_from

        def is_one(item: Item[TIn]) -> bool:
            message_id = cast(Header, item[0]).message_id
            return message_id.int in keys and is_from(message_id, caller)

        self._withdraw(is_one)
        self.delays.asks.withdraw(lambda key: key in keys and self.replies.sender_of(key) is caller)

    def withdraw_all(self, caller: Caller[Any]) -> None:
        """Withdraw every request of this caller that the actor has not taken yet."""
        if not caller.unanswered:
            return
        is_from = self.replies.is_from
        self._withdraw(lambda item: is_from(cast(Header, item[0]).message_id, caller))
        self.delays.asks.withdraw(lambda key: self.replies.sender_of(key) is caller)

    def _withdraw(self, which: Callable[[Item[TIn]], bool]) -> None:
        for item in self.inbox.remove_all(which):
            self.was_withdrawn(item)
        if self.inbox.lent is not None:
            self.inbox.lent.withdraw(which)

    def was_withdrawn(self, item: Item[TIn]) -> None:
        """Forget the request of an item that was taken out of the mailbox for its caller."""
        message, _, terms = item
        if terms is not None:
            self.inbox.left(terms)
        self.replies.forget(cast(Header, message).message_id)
        self._forget_kept(cast(Header, message).message_id)

    def _forget_kept(self, message_id: UUID) -> None:
        """Tell the journal that an accepted message is done."""
        if self.journal is not None:
            self.journal.done(message_id)

    async def _wait_until_received(self, caller: Caller[Any], timeout: float | None) -> None:
        """Wait until the caller has received some of its replies. Raise QueueFullError if it does not in time."""
        deadline = None if timeout is None else monotonic() + timeout
        while caller.ready.size >= self.outputs.capacity:
            remaining = None if deadline is None else deadline - monotonic()
            if self.inbox.backpressure.refuses or not await wait_any((caller.room, self.gate.closing), remaining):
                raise QueueFullError(self.kernel_id, self.outputs.capacity)
            self.gate.require_open()

    def _id_taken(self, message: Any) -> MessageSerializationError:
        """Return the error for a request whose id another caller's waiting request already has."""
        problem = "another request of this id waits for its reply"
        return MessageSerializationError(type(message).__name__, problem, "$.message_id")

    async def _put(self, message: Any, timeout: float | None, terms: Terms | None) -> bool:
        """Put a message into the mailbox, and wait until the journal has it. Return True if another was dropped."""
        if self.inbox.room == 0:
            self.bury_overdue()
        journal = self.journal
        if journal is not None:
            journal.accept((message,))
        key = cast(Header, message).message_id.int
        self._putting.add(key)
        try:
            dropped = await self.inbox.put((message, perf_counter_ns(), terms), message.priority, timeout)
        except BaseException:
            self._forget_kept(message.message_id)
            raise
        finally:
            self._putting.discard(key)
        if terms is not None:
            self.inbox.entered(terms)
        if dropped is not None:
            if dropped[2] is not None:
                self.inbox.left(dropped[2])
            error = QueueFullError(self.kernel_id, self.inbox.capacity)
            self.bury(dropped[0], f"dropped to make room: {error}", DeadLetterReason.DROPPED)
            self.replies.fail(cast(Header, dropped[0]).message_id, error)
        if journal is not None:
            await journal.sync()
        return dropped is not None

    def receive_as(self, caller: Caller[Any] | None, timeout: float | None = None) -> Coroutine[Any, Any, TOut]:
        """Receive on behalf of `caller`, as `RingKernel.receive` does. None is a task that has sent nothing."""
        if self.gate.state in (KernelState.CREATED, KernelState.LAUNCHED):
            return _refuse(self.gate.error("receive", *OPEN))
        return self.replies.receive(caller, timeout)

    async def hand_over(
        self,
        message: TIn,
        terms: Terms | None,
        timeout: float | None,
        *,
        checked: bool = False,
        principal: str | None = LOCAL,
    ) -> asyncio.Future[Any]:
        """Put a request into the input mailbox, and return a future of its reply. Raises as `RingKernel.send`.

        `checked` is True if the message has passed `check_in` already. `principal` is who has sent it; None says that
        nobody knows.
        """
        self.gate.require_open()
        if not checked:
            self.check_in(message)
        check_header(message)
        header = cast(Header, message)
        message_id = header.message_id
        reply = self.replies.ask(message_id, principal)
        if reply is None:
            raise self._id_taken(message)
        if self.journal is None and self.inbox.offer((message, perf_counter_ns(), terms), header.priority):
            if terms is not None:
                self.inbox.entered(terms)
            return reply
        try:
            await self._put(message, timeout, terms)
        except BaseException:
            self.replies.unask(message_id)
            raise
        return reply

    async def ask(
        self,
        message: TIn,
        timeout: float | None = None,
        size: int = 0,
        *,
        checked: bool = False,
        principal: str | None = LOCAL,
        sent: Callable[[], None] | None = None,
    ) -> TOut:
        """Send a request and wait for its reply.

        See `RingKernel.send_and_receive`, `Terms` for `size`, and `hand_over` for `checked` and `principal`. `sent` is
        called when the request is in the mailbox.
        """
        deadline = None if timeout is None else monotonic() + timeout
        terms = Terms(timeout or 0.0, deadline, size) if size or timeout is not None else None
        reply = await self.hand_over(message, terms, timeout, checked=checked, principal=principal)
        if sent is not None:
            sent()
        message_id = cast(Header, message).message_id
        try:
            return cast(TOut, await self.replies.reply_to(message_id, reply, timeout, deadline))
        except QueueTimeoutError as error:
            if error.cause:
                raise  # The request was found to be overdue.
            # One look finds the request and says what is before it, also when many time out together.
            before = self._take_back(message_id, overdue=True)
            if before is None:
                delay = self.delays.of_taken(message_id.int)
                self.delays.asks.withdraw(message_id.int.__eq__)
            else:
                delay = self.delays.of_waiting(before)
                self.bury(message, OVERDUE, DeadLetterReason.EXPIRED)
            raise QueueTimeoutError(error.kernel_id, error.timeout, error.operation, *delay) from None
        except asyncio.CancelledError:
            self.withdraw(message_id)
            raise

    def _why_nothing_came(self, caller: Caller[Any] | None) -> Delay:
        return self.delays.of_receive(0 if caller is None else caller.unanswered)


async def _refuse(error: PyDotComputeError) -> Any:
    """Raise `error` when the coroutine is awaited, not when it is made."""
    raise error
