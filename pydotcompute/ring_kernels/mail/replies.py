"""The way of a kernel's messages: a reply goes to the caller that waits for it, an output to whoever receives first.

For what a caller is, and for the rules of tasks, see `callers`. A *first reply* answers a request that still waits. Any
later reply to the same request is a *further reply*.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import TypeVar
from uuid import UUID

from pydotcompute.exceptions import PyDotComputeError
from pydotcompute.messages.header import DEFAULT_PRIORITY, Header
from pydotcompute.messages.ids import uuid_from_int
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import Caller, Unanswered
from pydotcompute.ring_kernels.mail.delays import Delay
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.requests import Requests

__all__ = ["Replies"]

LAST = 0
"""The priority of the news that replies are lost: a caller first receives the replies that have arrived."""
T = TypeVar("T", bound=Header)


class Replies(Requests[T]):
    """The replies and outputs of one kernel, on their way to the callers that get them.

    `Requests` says who waits for a reply, and `Received` lets callers receive what has come.
    """

    def __init__(
        self,
        kernel_id: str,
        outputs: Mailbox[T],
        undeliverable: Callable[[T, str], None],
        limits: RuntimeLimits = DEFAULT_LIMITS,
        why_nothing_came: Callable[[Caller[T] | None], Delay] | None = None,
    ) -> None:
        """Make the replies of a kernel that has sent nothing yet.

        Args:
            kernel_id: the id of the kernel, for errors.
            outputs: the kernel's output mailbox.
            undeliverable: called with each reply that nobody is left to receive, and the reason in words.
            limits: the limits of the runtime.
            why_nothing_came: says why a `receive` of this caller has found nothing; None if nobody knows.
        """
        super().__init__(kernel_id, outputs, undeliverable, limits)
        if why_nothing_came is not None:
            self._why_nothing_came = why_nothing_came
        self._most_answers = limits.answers
        # The answered requests: the newest, up to `RuntimeLimits.answers`, and as many that were answered before those;
        # and with these, older ones of principals that have few.
        self._answered: dict[int, Caller[T]] = {}
        self._answered_before: dict[int, Caller[T]] = {}

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

    def give_back(self, message: T) -> None:
        """Undo the `receive` of a message that could not be handed on: its next receiver gets it first."""
        if not self.deliver(message):
            self.outputs.put_anyway(message, message.priority, front=True)
            self.wanted.notify()

    # -- what is never answered ----------------------------------------------------------------------------------------

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
