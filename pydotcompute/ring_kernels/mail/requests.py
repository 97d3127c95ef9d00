"""The requests to one kernel that wait for a reply, and who waits for each."""

from __future__ import annotations

import asyncio
import enum
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import islice, repeat
from time import monotonic
from typing import Any, TypeVar
from uuid import UUID

from pydotcompute.exceptions import QueueTimeoutError
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.callers import LOCAL, Caller
from pydotcompute.ring_kernels.mail.loops import require_loop
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.received import FORESIGHT, Received

__all__ = ["ALREADY", "NEW", "TAKEN", "Expected", "Requests"]

T = TypeVar("T", bound=Header)


def _give_up(reply: asyncio.Future[Any], kernel_id: str, timeout: float | None) -> None:
    if not reply.done():
        assert timeout is not None
        reply.set_exception(QueueTimeoutError(kernel_id, timeout, "send_and_receive"))


class Expected(enum.Enum):
    """The result of `Replies.expect`."""

    NEW = enum.auto()
    """The caller now waits for the reply."""
    ALREADY = enum.auto()
    """The same caller already waits for a reply to an earlier request of this id."""
    TAKEN = enum.auto()
    """Another caller already waits for a reply to a request of this id."""


NEW, ALREADY, TAKEN = Expected  # Before Python 3.12, to name a member through its class costs a call.


class Requests(Received[T]):
    """The requests that wait for a reply. A task asks for one, or a caller expects replies to what it sends.

    Args:
        kernel_id: the id of the kernel, for errors.
        outputs: the kernel's output mailbox.
        undeliverable: called with each reply that nobody is left to receive, and the reason in words.
        limits: the limits of the runtime.
    """

    def __init__(
        self, kernel_id: str, outputs: Mailbox[T], undeliverable: Callable[[T, str], None], limits: RuntimeLimits
    ) -> None:
        super().__init__(kernel_id, outputs)
        self._undeliverable = undeliverable
        self._most_requests = limits.requests + limits.requests_forgotten
        self._forgotten_at_once = limits.requests_forgotten
        # The waiting requests, by `message_id.int`: those of `ask`, each with one of `_nobodies` in place of who asks;
        # and those of `expect`.
        self._asked: dict[int, tuple[asyncio.Future[T], Caller[T]]] = {}
        self._senders: dict[int, Caller[T]] = {}
        # The callers of requests that were given up, by principal: a reply to them is undeliverable.
        self._nobodies: dict[str | None, Caller[T]] = {}

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
        unanswered: Counter[str | None] = Counter()
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

    def _nobody(self, principal: str | None) -> Caller[T]:
        """Return a new caller that is gone, in place of one of this principal that asks."""
        nobody = self._nobodies[principal] = Caller(private=True, principal=principal)
        nobody.gone = True
        return nobody

    def is_from(self, message_id: UUID, caller: Caller[T]) -> bool:
        """Return True if this caller waits for the reply to this request."""
        return self._senders.get(message_id.int) is caller

    def sender_of(self, key: int) -> Caller[T] | None:
        """Return the caller that waits for a reply to the request of this `message_id.int`; None if nobody does."""
        return self._senders.get(key)

    def asked_keys(self) -> list[int]:
        """Return the `message_id.int` of every request whose `ask` still waits."""
        return list(self._asked)

    def waiting_keys(self) -> list[int]:
        """Return the `message_id.int` of every request whose caller still waits for a reply."""
        nobodies = set(self._nobodies.values())
        return [*self._asked, *(key for key, caller in self._senders.items() if caller not in nobodies)]

    def forget(self, message_id: UUID) -> None:
        """Undo `expect`: the request was not sent after all."""
        caller = self._senders.pop(message_id.int, None)
        if caller is not None:
            caller.unanswered -= 1

    def ask(self, message_id: UUID, principal: str | None = LOCAL) -> asyncio.Future[T] | None:
        """Return a future of the reply to this one request; None if a request of this id still waits for its reply.

        `principal` is who has sent the request; None says that nobody knows.
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
        except (QueueTimeoutError, asyncio.CancelledError) as error:
            if isinstance(error, QueueTimeoutError) and timeout is not None:
                error.timeout = timeout  # A daemon that was first to give up names what was left of it.
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
