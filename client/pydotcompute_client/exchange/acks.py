"""The client's acknowledgements: they tell the daemon what the client has received, and what it wants."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.limits import TELL_AFTER, TELL_BESIDE, TELL_WITHIN

__all__ = ["Acks"]

TELL_AFTER_BYTES = 4 << 20
"""After this many bytes of received messages the daemon is told at once, because it may be out of credit."""


class Acks:
    """Gathers acknowledgements.

    A message is acknowledged one turn of the event loop after its arrival at the earliest: in that turn its caller may
    turn out to be gone. An output is not acknowledged before a task has received it: until then it can go back to the
    daemon, for another client.

    Args:
        on_due: called when an acknowledgement should be sent soon.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._settled = 0  # Messages through this sequence can be acknowledged, except outputs that are held.
        self._told = 0
        self._settled_bytes = self._told_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_due = False
        """True if an acknowledgement should be sent at once."""
        self._unheard: deque[tuple[int, Sequence[Any]]] = deque()  # Messages that are not acknowledged yet.
        self._undeliverable: list[int] = []
        self._returned: list[int] = []
        self._withdrawn: list[bytes] = []
        # Acknowledgements with anything of the three lists above, until the daemon confirms them.
        self._unconfirmed: deque[pb.Ack] = deque()
        self.outputs_held: dict[int, int] = {}
        """The outputs that no task has received yet: `id()` of the message → sequence."""
        self._outputs_received = 0
        self._told_outputs = 0

    # -- events --------------------------------------------------------------------------------------------------------

    def arrived(self, first_sequence: int, messages: Sequence[Any], received: int, received_bytes: int) -> None:
        """Note the arrival of messages, the first of which has the sequence `first_sequence`.

        Args:
            received: the sequence of the last message that has arrived in the session.
            received_bytes: the bytes of all bodies that have arrived in the session.
        """
        self._unheard.append((first_sequence, messages))
        self._loop.call_soon(self._settle, received, received_bytes)

    def _settle(self, through: int, received_bytes: int) -> None:
        self._settled, self._settled_bytes = through, received_bytes
        if through - self._told >= TELL_AFTER or received_bytes - self._told_bytes >= TELL_AFTER_BYTES:
            self._now()
        elif self._timer is None:
            self._timer = self._loop.call_later(TELL_WITHIN, self._in_time)

    def _in_time(self) -> None:
        self._timer = None
        if self.has_news:
            self._now()

    def _now(self) -> None:
        self.is_due = True
        self._on_due()

    def output_arrived(self, sequence: int, message: Any) -> None:
        """Note that an arrived message is an output."""
        self.outputs_held[id(message)] = sequence
        self._outputs_received += 1
        self._on_due()

    def output_taken(self, message: Any) -> None:
        """Note that a task has received an output."""
        if self.outputs_held.pop(id(message), None) is not None:
            self._now()

    def return_output(self, message: Any) -> bool:
        """Give an output back to the daemon, because no task waits for it. Return False if it is not held."""
        sequence = self.outputs_held.pop(id(message), None)
        if sequence is None:
            return False
        self._outputs_received -= 1
        self._returned.append(sequence)
        self._now()
        return True

    def holds(self, message: Any) -> bool:
        """Return True if the message is an output that no task has received yet."""
        return id(message) in self.outputs_held

    def want_outputs(self, receiving: int) -> None:
        """Ask the daemon for as many outputs as there are tasks (`receiving`) that wait for one."""
        if self._outputs_received + receiving != self._told_outputs:
            self._told_outputs = self._outputs_received + receiving
            self.is_due = True

    def undeliverable(self, message: Any) -> bool:
        """Tell the daemon that the caller of this reply had given up.

        Return False if the reply is acknowledged already, and it is too late to tell.
        """
        for first_sequence, messages in reversed(self._unheard):
            for index, each in enumerate(messages):
                if each is message:
                    self._undeliverable.append(first_sequence + index)
                    self._now()
                    return True
        return False

    def ask_for_news(self) -> None:
        """Have an acknowledgement sent soon. The daemon answers it with the number of messages it has accepted."""
        self._now()

    def withdraw(self, message_id: bytes) -> None:
        """Tell the daemon that a request (the 16 bytes of its id) has been given up."""
        self._withdrawn.append(message_id)
        self._now()

    # -- acknowledgements ----------------------------------------------------------------------------------------------

    @property
    def _through(self) -> int:
        return min(self._settled, next(iter(self.outputs_held.values()), self._settled + 1) - 1)

    @property
    def has_news(self) -> bool:
        """True if there is anything to tell the daemon."""
        return self.is_due or self._through > self._told

    @property
    def can_go_beside(self) -> bool:
        """True if there is enough to tell that it should go along with a batch."""
        return self._settled - self._told >= TELL_BESIDE and self.has_news

    def fill(self, ack: pb.Ack) -> None:
        """Write the next acknowledgement into `ack`, all of it except the credit."""
        self.is_due = False
        self._number += 1
        self._told, self._told_bytes = self._through, self._settled_bytes
        while self._unheard and self._unheard[0][0] + len(self._unheard[0][1]) - 1 <= self._told:
            self._unheard.popleft()
        ack.number = self._number
        ack.through = self._told
        ack.outputs = self._told_outputs
        if self._undeliverable or self._returned or self._withdrawn:
            due = [sequence for sequence in self._undeliverable if sequence <= self._told]
            self._undeliverable = [sequence for sequence in self._undeliverable if sequence > self._told]
            ack.undeliverable.extend(due)
            ack.returned.extend(self._returned)
            ack.withdrawn.extend(self._withdrawn)
            self._returned, self._withdrawn = [], []
            self._unconfirmed.append(pb.Ack(number=self._number))
            self._unconfirmed[-1].MergeFrom(ack)

    def confirm(self, number: int) -> None:
        """Note that the daemon has every acknowledgement through this number."""
        while self._unconfirmed and self._unconfirmed[0].number <= number:
            self._unconfirmed.popleft()

    def resume(self, number: int) -> None:
        """Begin on a new stream. The daemon has the acknowledgements through `number`; the rest is told again."""
        self.confirm(number)
        for ack in self._unconfirmed:
            self._undeliverable += ack.undeliverable
            self._returned += ack.returned
            self._withdrawn += ack.withdrawn
        self._unconfirmed.clear()
        self._told_outputs = -1  # On a new stream the daemon sends no outputs until it is asked.
        self.is_due = number > 0 or self._number > 0

    def stop(self) -> None:
        """Stop the timer, because the session is over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
