"""What the client has to tell the daemon of what it has received, and wants."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from pydotcompute.v1 import message_service_pb2 as pb
from pydotcompute.wire.exchange.limits import TELL_AFTER, TELL_BESIDE, TELL_WITHIN

__all__ = ["Acks"]

TELL_AFTER_BYTES = 4 << 20
"""Bytes of messages received that the daemon must hear of at once, for it may be out of credit."""


class Acks:
    """Gathers acknowledgements. Nothing is acknowledged before a turn of the loop has passed, in which those who asked
    for it may turn out to be gone; and no output before a task has received it, for until then it could be another's.
    """

    def __init__(self, on_due: Callable[[], None]) -> None:
        """`on_due` is called when an acknowledgement should be sent soon."""
        self._on_due = on_due
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._settled = 0  # Everything through this sequence can be acknowledged, but for outputs held.
        self._told = 0
        self._settled_bytes = self._told_bytes = 0
        self._timer: asyncio.TimerHandle | None = None
        self.is_due = False
        """Whether what the daemon does not know should be told at once."""
        self._unheard: deque[tuple[int, Sequence[Any]]] = deque()  # What has arrived and was not acknowledged yet.
        self._undeliverable: list[int] = []
        self._returned: list[int] = []
        self._withdrawn: list[bytes] = []
        self._unconfirmed: deque[pb.Ack] = deque()  # Those with any of these, until the daemon has them.
        self.outputs_held: dict[int, int] = {}
        """The outputs that nobody has received yet: identity → sequence."""
        self._outputs_received = 0
        self._told_outputs = 0

    # -- what happens --------------------------------------------------------------------------------------------------

    def arrived(self, first_sequence: int, messages: Sequence[Any], received: int, received_bytes: int) -> None:
        """These have come, which makes it all through sequence `received`, and so many bytes."""
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
        """One of them is an output."""
        self.outputs_held[id(message)] = sequence
        self._outputs_received += 1
        self._on_due()

    def output_taken(self, message: Any) -> None:
        """A task has received an output."""
        if self.outputs_held.pop(id(message), None) is not None:
            self._now()

    def return_output(self, message: Any) -> bool:
        """Nobody here waits for an output any more. False if it is none that is held."""
        sequence = self.outputs_held.pop(id(message), None)
        if sequence is None:
            return False
        self._outputs_received -= 1
        self._returned.append(sequence)
        self._now()
        return True

    def holds(self, message: Any) -> bool:
        """Whether this is an output that nobody has received yet."""
        return id(message) in self.outputs_held

    def want_outputs(self, receiving: int) -> None:
        """So many tasks wait for outputs."""
        if self._outputs_received + receiving != self._told_outputs:
            self._told_outputs = self._outputs_received + receiving
            self.is_due = True

    def undeliverable(self, message: Any) -> bool:
        """The caller of this reply had given up. False if the reply is acknowledged already."""
        for first_sequence, messages in reversed(self._unheard):
            for index, each in enumerate(messages):
                if each is message:
                    self._undeliverable.append(first_sequence + index)
                    self._now()
                    return True
        return False

    def ask_for_news(self) -> None:
        """Tell the daemon something, for it then tells what it has accepted."""
        self._now()

    def withdraw(self, message_id: bytes) -> None:
        """A request has been given up."""
        self._withdrawn.append(message_id)
        self._now()

    # -- what is told --------------------------------------------------------------------------------------------------

    @property
    def _through(self) -> int:
        return min(self._settled, next(iter(self.outputs_held.values()), self._settled + 1) - 1)

    @property
    def has_news(self) -> bool:
        """Whether there is anything that the daemon does not know."""
        return self.is_due or self._through > self._told

    @property
    def can_go_beside(self) -> bool:
        """Whether there is enough to be told beside a batch."""
        return self._settled - self._told >= TELL_BESIDE and self.has_news

    def fill(self, ack: pb.Ack) -> None:
        """Say it; all but the credit."""
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
        """The daemon has every acknowledgement through this number."""
        while self._unconfirmed and self._unconfirmed[0].number <= number:
            self._unconfirmed.popleft()

    def resume(self, number: int) -> None:
        """A new stream begins; the daemon has what was told before through this number. The rest is told again."""
        self.confirm(number)
        for ack in self._unconfirmed:
            self._undeliverable += ack.undeliverable
            self._returned += ack.returned
            self._withdrawn += ack.withdrawn
        self._unconfirmed.clear()
        self._told_outputs = -1  # A new stream begins with no wish.
        self.is_due = number > 0 or self._number > 0

    def stop(self) -> None:
        """Nothing more will be told in time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
