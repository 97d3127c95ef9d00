"""The way of a kernel's messages: a reply goes to the caller that waits for it, an output to whoever receives first.

For what a caller is, and for the rules of tasks, see `callers`. A *first reply* answers a request that still waits. Any
later reply to the same request is a *further reply*.
"""

from __future__ import annotations

import asyncio
import enum
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import islice, repeat
from time import monotonic
from typing import Any, Generic, TypeVar
from uuid import UUID

from pydotcompute.exceptions import PyDotComputeError, QueueTimeoutError
from pydotcompute.messages.header import DEFAULT_PRIORITY, Header
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import LOCAL, Caller, TaskCallers, Unanswered
from pydotcompute.ring_kernels.mail.delays import UNKNOWN, Delay
from pydotcompute.ring_kernels.mail.loops import require_loop
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any

__all__ = [
    "ALREADY",
    "NEW",
    "TAKEN",
    "Expected",
    "Replies",
]

FORESIGHT = 0.2
"""The most seconds before its deadline that somebody finds out why a caller will have to give up.

It is a fifth of the time that the caller waits, if that is less. So the error comes in time, and says why.
"""
LAST = 0
"""The priority of the news that replies are lost: a caller first receives the replies that have arrived."""
T = TypeVar("T", bound=Header)


def _give_up(reply: asyncio.Future[Any], kernel_id: str, timeout: float | None) -> None:
    if not reply.done():
        assert timeout is not None
        reply.set_exception(QueueTimeoutError(kernel_id, timeout, "send_and_receive"))


def _nobody_knows(caller: Caller[T] | None) -> Delay:
    return UNKNOWN


def _may_take_unclaimed(caller: Caller[T] | None) -> bool:
    return caller is None or not (caller.unanswered or caller.private)


class Expected(enum.Enum):
    """The result of `Replies.expect`."""

    NEW = enum.auto()
    """The caller now waits for the reply."""
    ALREADY = enum.auto()
    """The same caller already waits for a reply to an earlier request of this id."""
    TAKEN = enum.auto()
    """Another caller already waits for a reply to a request of this id."""


NEW, ALREADY, TAKEN = Expected  # Before Python 3.12, to name a member through its class costs a call.


class Replies(Generic[T]):
    """The replies and outputs of one kernel, on their way to the callers that get them."""

    def __init__(
        self,
        kernel_id: str,
        outputs: Mailbox[T],
        undeliverable: Callable[[T, str], None],
        limits: RuntimeLimits = DEFAULT_LIMITS,
        why_nothing_came: Callable[[Caller[T] | None], Delay] = _nobody_knows,
    ) -> None:
        """Make the replies of a kernel that has sent nothing yet.

        Args:
            kernel_id: the id of the kernel, for errors.
            outputs: the kernel's output mailbox.
            undeliverable: called with each reply that nobody is left to receive, and the reason in words.
            limits: the limits of the runtime.
            why_nothing_came: says why a `receive` of this caller has found nothing.
        """
        self.kernel_id = kernel_id
        self._why_nothing_came = why_nothing_came
        self.foresee: Callable[[int | None], None] | None = None
        """Called shortly before a caller gives up, if it takes time to find out why; None if it takes none.

        The argument is the `message_id.int` of a request; None for a `receive`.
        """
        self.outputs = outputs
        self._most_requests = limits.requests + limits.requests_forgotten
        self._forgotten_at_once = limits.requests_forgotten
        self._most_answers = limits.answers
        self.wanted = Signal()
        """Notified when there is an output."""
        self._free = Signal()  # Tasks in `receive` that have no unanswered request of their own.
        self.receiving = 0
        """The number of tasks that wait in `receive`. It is counted only if `on_receiving` is set."""
        self.on_receiving: Callable[[], None] | None = None
        """Called when `receiving` has changed; None if nobody wants to know."""
        self._undeliverable = undeliverable
        self.callers: TaskCallers[T] = TaskCallers(self._task_ended)
        """The tasks that send and receive."""
        # The waiting requests, by `message_id.int`: those of `ask`, each with one of `_nobodies` in place of who asks;
        # and those of `expect`.
        self._asked: dict[int, tuple[asyncio.Future[T], Caller[T]]] = {}
        self._senders: dict[int, Caller[T]] = {}
        # The answered requests: the newest, up to `RuntimeLimits.answers`, and as many that were answered before those;
        # and with these, older ones of principals that have few.
        self._answered: dict[int, Caller[T]] = {}
        self._answered_before: dict[int, Caller[T]] = {}
        # The callers of requests that were given up, by principal: a reply to them is undeliverable.
        self._nobodies: dict[str, Caller[T]] = {}
        self._unclaimed: dict[Caller[T], None] = {}  # Callers that have replies and never received.
        self.ended: PyDotComputeError | None = None
        """The error after which the kernel sends nothing more; None while it may send."""

    def begin(
        self,
        loop: asyncio.AbstractEventLoop,
        undeliverable: Callable[[T, str], None] | None = None,
        on_receiving: Callable[[], None] | None = None,
    ) -> None:
        """Begin, or begin again after `end`.

        Args:
            loop: the event loop of all callers.
            undeliverable: replaces the function given to the constructor.
            on_receiving: called when the number of tasks in `receive` has changed.
        """
        self.callers.loop = loop
        self.ended = None
        if undeliverable is not None:
            self._undeliverable = undeliverable
        self.on_receiving = on_receiving

    def explain(
        self, why_nothing_came: Callable[[Caller[T] | None], Delay], foresee: Callable[[int | None], None]
    ) -> None:
        """Replace the functions that find out why callers give up."""
        self._why_nothing_came, self.foresee = why_nothing_came, foresee

    # -- requests ------------------------------------------------------------------------------------------------------

    def _task_ended(self, caller: Caller[T]) -> None:
        """Turn the replies that the ended task has not received into outputs."""
        self._unclaimed.pop(caller, None)
        while (item := caller.take()) is not None:
            if not isinstance(item, Unanswered):
                self.outputs.put_anyway(item, item.priority)
                self.wanted.notify()

    def is_taken(self, message_id: UUID, caller: Caller[T] | None = None) -> bool:
        """Return True if a request of this id from another caller still waits for its reply."""
        key = message_id.int
        if key in self._asked:
            return True
        sender = self._senders.get(key)
        return sender is not None and sender is not caller and not sender.gone

    def is_asked(self, key: int) -> bool:
        """Return True if an `ask` waits for the reply to the request of this `message_id.int`."""
        return key in self._asked

    def is_awaited(self, key: int) -> bool:
        """Return True if the request of this `message_id.int` still waits for its reply."""
        return key in self._asked or key in self._senders

    def expect(self, message_id: UUID, caller: Caller[T]) -> Expected:
        """Let the caller get the replies to this request, unless another caller waits for a request of the same id."""
        key = message_id.int
        senders = self._senders
        if key in senders or key in self._asked:
            if self.is_taken(message_id, caller):
                return TAKEN
            if senders[key] is caller:
                return ALREADY
            senders.pop(key).unanswered -= 1
        senders[key] = caller
        caller.unanswered += 1
        if len(senders) >= self._most_requests:
            self._forget_requests()
        return NEW

    def expect_all(self, keys: Sequence[int], caller: Caller[T]) -> bool:
        """Let the caller get the replies to many new requests at once.

        Args:
            keys: the `message_id.int` of each request.
            caller: the caller that gets the replies.

        Returns:
            False, with nothing changed, if a request of one of these ids still waits for its reply, or if an id occurs
            twice; else True.
        """
        senders = self._senders
        if not (senders.keys().isdisjoint(keys) and self._asked.keys().isdisjoint(keys)) or len(set(keys)) != len(keys):
            return False
        senders.update(zip(keys, repeat(caller), strict=False))
        caller.unanswered += len(keys)
        if len(senders) >= self._most_requests:
            self._forget_requests()
        return True

    def _forget_requests(self) -> None:
        """Make room: forget the oldest requests of the principal and the caller with most of them, never another's."""
        callers = set(self._senders.values())
        unanswered: Counter[str] = Counter()
        for caller in callers:
            unanswered[caller.principal] += caller.unanswered
        heaviest = max(callers, key=lambda caller: (unanswered[caller.principal], caller.unanswered))
        of_the_heaviest = (key for key, caller in self._senders.items() if caller is heaviest)
        for key in tuple(islice(of_the_heaviest, self._forgotten_at_once)):
            del self._senders[key]
            heaviest.unanswered -= 1

    def principal_of(self, key: int) -> str | None:
        """Return who has sent the request of this `message_id.int`, while it waits for its reply; None if it does not.

        That is `LOCAL` for this process. It is known even if the sender waits no more.
        """
        asked = self._asked.get(key)
        caller = self._senders.get(key) if asked is None else asked[1]
        return None if caller is None else caller.principal

    def _nobody(self, principal: str) -> Caller[T]:
        """Return a caller that is gone, in place of one of this principal that asks."""
        nobody = self._nobodies[principal] = Caller(private=True, principal=principal)
        nobody.gone = True
        return nobody

    def is_from(self, message_id: UUID, caller: Caller[T]) -> bool:
        """Return True if this caller waits for the reply to this request."""
        return self._senders.get(message_id.int) is caller

    def sender_of(self, key: int) -> Caller[T] | None:
        """Return the caller that waits for a reply to the request of this `message_id.int`; None if nobody does."""
        return self._senders.get(key)

    def forget(self, message_id: UUID) -> None:
        """Undo `expect`: the request was not sent after all."""
        caller = self._senders.pop(message_id.int, None)
        if caller is not None:
            caller.unanswered -= 1

    def ask(self, message_id: UUID, principal: str = LOCAL) -> asyncio.Future[T] | None:
        """Return a future of the reply to this one request; None if a request of this id still waits for its reply.

        `principal` is who has sent the request.
        """
        if self.is_taken(message_id):
            return None
        loop = asyncio.get_running_loop()
        if loop is not self.callers.loop:
            require_loop(self.callers.loop)
        reply: asyncio.Future[T] = loop.create_future()
        self._asked[message_id.int] = reply, self._nobodies.get(principal) or self._nobody(principal)
        return reply

    def unask(self, message_id: UUID) -> None:
        """Undo `ask`: the request was not sent after all."""
        asked = self._asked.pop(message_id.int, None)
        if asked is not None:
            asked[0].cancel()

    async def reply_to(
        self, message_id: UUID, reply: asyncio.Future[T], timeout: float | None, deadline: float | None
    ) -> T:
        """Wait for the reply to a request that has been sent, and return it.

        Args:
            message_id: the id of the request.
            reply: the future that `ask` returned.
            timeout: the seconds that the caller waits in all; the error names them.
            deadline: the time, of `time.monotonic()`, at which to give up; None waits without end.

        Raises:
            QueueTimeoutError: the reply did not come in time. A reply that comes later is undeliverable.
            PyDotComputeError: there will be no reply.
        """
        timer = None
        if deadline is not None:
            loop, left = reply.get_loop(), deadline - monotonic()
            if self.foresee is None:
                timer = loop.call_later(left, _give_up, reply, self.kernel_id, timeout)
            else:
                ahead = left - min(FORESIGHT, left / 5)
                timer = loop.call_later(ahead, self._foresee, reply, message_id.int, timeout, deadline)
        try:
            return await reply
        except (QueueTimeoutError, asyncio.CancelledError):
            asked = self._asked.pop(message_id.int, None)
            if asked is not None:
                self.expect(message_id, asked[1])
            elif reply.done() and not reply.cancelled() and reply.exception() is None:
                self._undeliverable(reply.result(), "its caller was cancelled as it arrived")
            raise
        finally:
            if timer is not None:
                timer.cancel()

    def _foresee(self, reply: asyncio.Future[T], key: int, timeout: float | None, deadline: float) -> None:
        """Have somebody find out why there is no reply yet, and give up at the deadline."""
        if not reply.done():
            reply.get_loop().call_later(deadline - monotonic(), _give_up, reply, self.kernel_id, timeout)
            if self.foresee is not None:
                self.foresee(key)

    # -- what the kernel sends -----------------------------------------------------------------------------------------

    def deliver(self, message: T, key: int | None = None) -> bool:
        """Give a reply to its caller. Return False if the message is an output, or the caller is an ended task.

        Args:
            message: a reply or an output.
            key: the `message_id.int` of the request; None if only the `correlation_id` of the message tells.
        """
        if key is None:
            correlation_id = message.correlation_id
            key = (message.message_id if correlation_id is None else correlation_id).int
        caller = self._senders.pop(key, None)
        if caller is None:
            return self._deliver_otherwise(message, key)
        caller.unanswered -= 1
        if caller.gone:
            return self._give(caller, message, key)
        self._answered[key] = caller
        if len(self._answered) >= self._most_answers:
            self._forget_answers()
        priority = message.priority
        ready = caller.ready
        if priority == ready.top_priority:
            ready.top.append(message)
            ready.size += 1
        else:
            ready.push(message, priority)
        if caller.arrived.waiters:
            caller.arrived.notify()
        elif ready.size == 1 and not caller.claims:
            self._offer_unclaimed(caller)
        return True

    def deliver_all(self, messages: Sequence[T], keys: Sequence[int]) -> bool:
        """Deliver many first replies at once. All of them must go to one caller and have one priority.

        Args:
            messages: the replies. There is at least one.
            keys: the `message_id.int` of the request of each reply.

        Returns:
            False, with nothing changed, if the replies are not of this kind; else True.
        """
        senders = self._senders
        caller = senders.get(keys[0])
        if caller is None or caller.gone:
            return False
        count = len(keys)
        callers = list(map(senders.get, keys))
        priority = messages[0].priority
        priorities = [message.priority for message in messages]
        if callers.count(caller) != count or priorities.count(priority) != count or len(set(keys)) != count:
            return False
        deque(map(senders.__delitem__, keys), maxlen=0)
        caller.unanswered -= count
        self._answered.update(zip(keys, repeat(caller), strict=False))
        if len(self._answered) >= self._most_answers:
            self._forget_answers()
        caller.ready.push_all(messages, priority)
        if caller.arrived.waiters:
            caller.arrived.notify_all()
        elif not caller.claims:
            self._offer_unclaimed(caller)
        return True

    def _offer_unclaimed(self, caller: Caller[T]) -> None:
        """Let tasks without an unanswered request take the replies of this caller, which has never received."""
        self._unclaimed[caller] = None
        if self._free.waiters:
            self._free.notify()

    def _deliver_otherwise(self, message: T, key: int) -> bool:
        """Deliver a reply to `send_and_receive`, or a further reply. Return as `deliver`."""
        if key not in self._asked and message.correlation_id is not None:
            own = message.message_id.int
            if own in self._asked or own in self._senders:
                key = own  # An echo of a request that itself has a `correlation_id`.
        asked = self._asked.pop(key, None)
        if asked is not None:
            reply, nobody = asked
            self._remember_answer(key, nobody)
            if reply.done():  # Given up in this very turn of the loop. The task that asked wakes in the next.
                self._undeliverable(message, "its caller is gone")
            else:
                reply.set_result(message)
            return True
        caller = self._senders.pop(key, None)
        if caller is not None:
            caller.unanswered -= 1
            return self._give(caller, message, key)
        caller = self._answered.get(key) or self._answered_before.get(key)
        if caller is None:
            return False
        if not (caller.gone or self._has_room_for_further(caller, key)):
            self._undeliverable(message, "its caller does not receive")
            return True
        return self._give(caller, message, key)

    def _has_room_for_further(self, caller: Caller[T], key: int) -> bool:
        """Return True if the caller has room for a further reply. A first reply needs no room, for it was asked for."""
        if caller.most is None:
            return caller.ready.size < self.outputs.capacity
        if caller.cut_off is None and caller.ready.size >= caller.most:
            caller.cut_off = key
        return caller.cut_off is None

    def _give(self, caller: Caller[T], message: T, key: int) -> bool:
        """Give a reply to its caller, and remember the request: a further reply may follow. Return as `deliver`."""
        self._remember_answer(key, caller)
        if not caller.gone:
            self._hand(caller, message, message.priority)
            return True
        if caller.private:
            self._undeliverable(message, "its caller is gone")
        return caller.private

    def _remember_answer(self, key: int, caller: Caller[T]) -> None:
        self._answered[key] = caller
        if len(self._answered) >= self._most_answers:
            self._forget_answers()

    def _forget_answers(self) -> None:
        """Forget the older half of the answered requests, but not those of a principal that has a fair share or less.

        So a principal with very many requests does not make the kernel forget whose a further reply to another is.
        """
        older, self._answered_before, self._answered = self._answered_before, self._answered, {}
        if len({caller.principal for caller in set(older.values())}) > 1:
            counts = Counter(caller.principal for caller in older.values())
            fair = self._most_answers // len(counts)
            kept = {key: caller for key, caller in older.items() if counts[caller.principal] <= fair}
            self._answered_before = kept | self._answered_before

    def _hand(self, caller: Caller[T], item: T | Unanswered, priority: int) -> None:
        caller.ready.push(item, priority)
        if caller.arrived.waiters:
            caller.arrived.notify()
        elif not caller.claims:
            self._offer_unclaimed(caller)

    def fail(self, message_id: UUID, error: PyDotComputeError) -> None:
        """Tell the caller of this request that there will be no reply."""
        asked = self._asked.pop(message_id.int, None)
        if asked is not None and not asked[0].done():
            asked[0].set_exception(error.again())
        caller = self._senders.pop(message_id.int, None)
        if caller is not None:
            caller.unanswered -= 1
            if not caller.gone:
                caller.failed += 1
                self._hand(caller, Unanswered(message_id, error), DEFAULT_PRIORITY)

    def waiting_keys(self) -> list[int]:
        """Return the `message_id.int` of every request whose caller still waits for a reply."""
        nobodies = set(self._nobodies.values())
        return [*self._asked, *(key for key, caller in self._senders.items() if caller not in nobodies)]

    def lose(self, error: PyDotComputeError) -> bool:
        """Give `error` to every caller with a waiting request: there will be no replies to these requests.

        Each `ask` gets the error. Each other caller gets it once, from `receive`, after the replies that have arrived.

        Returns:
            True if a task waits now, so that the error does not go unnoticed.
        """
        told = bool(self._asked or self.wanted.waiters)
        for reply, _ in self._asked.values():
            if not reply.done():
                reply.set_exception(error.again())
        self._asked.clear()
        waiting: dict[Caller[T], int] = {}
        for key, caller in self._senders.items():
            waiting.setdefault(caller, key)
            caller.unanswered = 0
        self._senders.clear()
        for caller, key in waiting.items():
            if not caller.gone:
                told = told or bool(caller.arrived.waiters)
                caller.failed += 1
                self._hand(caller, Unanswered(uuid_from_int(key), error), LAST)
        return told

    def end(self, error: PyDotComputeError, of_asked: Callable[[UUID], PyDotComputeError] | None = None) -> None:
        """End: the kernel sends nothing more. Every `ask`, and every `receive` that finds nothing, gets `error`.

        Args:
            error: the reason.
            of_asked: returns the error for the `ask` of this request, if that is another.
        """
        self.ended = error
        for key, (reply, _) in self._asked.items():
            if not reply.done():
                reply.set_exception(error.again() if of_asked is None else of_asked(uuid_from_int(key)))
        self._asked.clear()
        self._senders.clear()
        self.wanted.notify_all()

    # -- what callers receive ------------------------------------------------------------------------------------------

    def has_some(self) -> bool:
        """Return True if `receive` would return at once in the current task."""
        caller = self.callers.receiving()
        return bool((caller is not None and caller.ready) or self.outputs or self._unclaimed)

    @property
    def any_left(self) -> bool:
        """True if there is a reply or an output that a task can receive."""
        return bool(self.outputs or self.callers.any_ready)

    async def receive(self, caller: Caller[T] | None, timeout: float | None = None) -> T:
        """Return the next reply to this caller, or the next output, by the rules in `callers`.

        Args:
            caller: the caller; None is a task that has sent nothing.
            timeout: the most seconds to wait; None waits without end.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds.
            PyDotComputeError: a request of the caller will have no reply, or the kernel has ended and everything has
                been received.
        """
        if caller is None:
            item = self._next(None)
        else:
            if not caller.claims:
                caller.claims = True
                self._unclaimed.pop(caller, None)
            item = caller.take() if caller.ready.size else self._next(caller)
        if item is None:
            item = await self._wait_for_next(caller, timeout)
        if item.__class__ is Unanswered:
            raise item.error.again()
        return item  # type: ignore[return-value]

    def _next(self, caller: Caller[T] | None) -> T | Unanswered | None:
        if caller is not None and caller.ready.size:
            return caller.take()
        if self.outputs.items.size and (output := self.outputs.get_nowait()) is not None:
            return output
        if self._unclaimed and (caller is None or _may_take_unclaimed(caller)):
            for other in self._unclaimed:
                item = other.take()
                if not other.ready.size:
                    del self._unclaimed[other]
                return item
        return None

    async def _wait_for_next(self, caller: Caller[T] | None, timeout: float | None) -> T | Unanswered:
        signals = [self.wanted]
        if caller is not None:
            signals.append(caller.arrived)
        if _may_take_unclaimed(caller):
            signals.append(self._free)
        deadline = None if timeout is None else monotonic() + timeout
        ahead = 0.0 if self.foresee is None or timeout is None else min(FORESIGHT, timeout / 5)
        while self.ended is None:
            woken = await self._wait(signals, None if deadline is None else deadline - ahead - monotonic())
            if (item := self._next(caller)) is not None:
                # The task may have been woken for one message and have taken another. Wake a task for the other.
                if self.outputs:
                    self.wanted.notify()
                if self._unclaimed:
                    self._free.notify()
                return item
            if not woken and self.ended is None:
                if ahead and self.foresee is not None:
                    ahead = 0.0
                    self.foresee(None)
                    continue
                assert timeout is not None
                raise QueueTimeoutError(self.kernel_id, timeout, "receive", *self._why_nothing_came(caller))
        raise self.ended.again()

    def give_back(self, message: T) -> None:
        """Undo the `receive` of a message that could not be handed on: its next receiver gets it first."""
        if not self.deliver(message):
            self.outputs.put_anyway(message, message.priority, front=True)
            self.wanted.notify()

    async def _wait(self, signals: list[Signal], timeout: float | None) -> bool:
        """Wait as `wait_any` does, and count this task in `receiving` meanwhile."""
        loop = asyncio.get_running_loop()
        if loop is not self.callers.loop:
            require_loop(self.callers.loop)
        if self.on_receiving is None:
            return await wait_any(signals, timeout, loop)
        self.receiving += 1
        self.on_receiving()
        try:
            return await wait_any(signals, timeout, loop)
        finally:
            self.receiving -= 1
            self.on_receiving()
