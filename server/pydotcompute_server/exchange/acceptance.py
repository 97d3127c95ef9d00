"""Tells a client which of its messages are accepted, and how many more it may send."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.batches import credit_to_proto
from pydotcompute.wire.exchange.limits import TELL_AFTER, TELL_BESIDE, TELL_WITHIN, WINDOW, WINDOW_BYTES
from pydotcompute_server.exchange.session import Session

__all__ = ["Acceptance"]


class Acceptance:
    """Tells the client of one stream what was accepted.

    The news goes along with other frames. It goes in a frame of its own if the client may be waiting for it.
    """

    def __init__(self, session: Session) -> None:
        self._acks = session.outbound
        self._incoming = session.inbound.incoming
        self._notify: Callable[[], None] = session.news.notify
        inbox = session.kernel.mail.inbox
        self._tells_each = inbox.backpressure.refuses
        self._window = min(WINDOW, inbox.capacity)
        self._timer: asyncio.TimerHandle | None = None
        self.is_due = False
        """True if the client should be told now, in a frame of its own."""
        self.told = pb.Accepted(credit=credit_to_proto(self._incoming.credit), acks_received=self._acks.acks_received)
        """The news that the client has been told."""

    @property
    def is_due_beside(self) -> bool:
        """True if there is enough news to send along with messages."""
        return self.is_due or self._incoming.done - self.told.through >= TELL_BESIDE

    def add_to(self, frame: pb.ExchangeResponse) -> bool:
        """Write into this frame what was accepted. Return False if the client knows all of it."""
        self.is_due = False
        told, incoming, acks_received = self.told, self._incoming, self._acks.acks_received
        credit = incoming.credit
        if (
            told.through == incoming.done
            and told.credit.messages == credit.messages
            and told.credit.bytes == credit.bytes
            and told.acks_received == acks_received
        ):
            return False
        told.through = incoming.done
        told.credit.messages, told.credit.bytes = credit
        told.acks_received = acks_received
        frame.accepted.CopyFrom(told)
        return True

    def tell_now(self) -> None:
        """Have the news sent now, because the client may be waiting for it."""
        self.is_due = True
        self._notify()

    def tell_in_time(self) -> None:
        """Have the news sent soon, because something was accepted: along with a reply, or else alone."""
        if self._must_tell():
            self.tell_now()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TELL_WITHIN, self._time_to_tell)

    def _must_tell(self) -> bool:
        """Return True if the client may be waiting to hear what was accepted, or for credit."""
        incoming, told = self._incoming, self.told
        credit, allowed, accepted = incoming.credit, told.credit, incoming.done - told.through
        if accepted >= TELL_AFTER or (self._tells_each and accepted > 0):
            return True
        left, more = allowed.messages - incoming.received, credit.messages - allowed.messages
        if more > 0 and (left <= 0 or (left <= self._window // 2 and more >= self._window // 8)):
            return True
        return allowed.bytes - incoming.received_bytes <= WINDOW_BYTES // 2 and credit.bytes > allowed.bytes

    def _time_to_tell(self) -> None:
        self._timer = None
        self.tell_now()

    def stop(self) -> None:
        """Stop the timer, because the stream is over."""
        if self._timer is not None:
            self._timer.cancel()
