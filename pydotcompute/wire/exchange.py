"""The two counts of an Exchange conversation, one for each direction, with no I/O in them.

Sequences start at 1. `credit` is the last sequence that the receiving side allows. What breaks these rules is a
`ProtocolError`, which ends the conversation: the other side is not of this project, or broken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

from pydotcompute.exceptions import PyDotComputeError

__all__ = ["Incoming", "Outgoing", "ProtocolError"]

T = TypeVar("T")


class ProtocolError(PyDotComputeError):
    """The other side of a conversation broke its rules."""


class Outgoing(Generic[T]):
    """What this side sends: numbered, within the other side's credit, kept until acknowledged."""

    def __init__(self, credit: int = 0) -> None:
        self.sent = 0
        """The last sequence sent."""
        self.credit = credit
        self.acknowledged = 0
        """The last sequence that the other side acknowledged."""
        self._kept: deque[T] = deque()

    @property
    def allowed(self) -> int:
        """How many more messages the credit allows."""
        return self.credit - self.sent

    @property
    def unacknowledged(self) -> Iterable[T]:
        """What was sent and not acknowledged, in order."""
        return tuple(self._kept)

    def send(self, messages: Iterable[T]) -> int:
        """Number these messages as sent; returns the sequence of the first."""
        first = self.sent + 1
        before = len(self._kept)
        self._kept.extend(messages)
        self.sent += len(self._kept) - before
        assert self.sent <= self.credit, "sent beyond the credit"
        return first

    def grant(self, credit: int) -> None:
        """The other side allows messages through `credit`. A late, smaller figure changes nothing."""
        self.credit = max(self.credit, credit)

    def acknowledge(self, through: int) -> list[T]:
        """The other side has everything through `through`; returns what that newly acknowledges."""
        if through > self.sent:
            raise ProtocolError(f"acknowledged sequence {through}, but only {self.sent} were sent")
        newly = [self._kept.popleft() for _ in range(through - self.acknowledged)]
        self.acknowledged = max(self.acknowledged, through)
        return newly

    def replace(self, sequence: int, message: T) -> None:
        """Keep another message in the place of one that is not acknowledged yet."""
        self.find(sequence)
        self._kept[sequence - self.acknowledged - 1] = message

    def find(self, sequence: int) -> T:
        """The message of a sequence that is not acknowledged yet."""
        if not self.acknowledged < sequence <= self.sent:
            raise ProtocolError(
                f"sequence {sequence} is not one of {self.acknowledged + 1} to {self.sent}, which are under way"
            )
        return self._kept[sequence - self.acknowledged - 1]


class Incoming:
    """What this side receives: in sequence, within the credit it gave."""

    def __init__(self, credit: int) -> None:
        self.received = 0
        """The last sequence received."""
        self.credit = credit
        self.done = 0
        """The last sequence that this side is done with, and acknowledges."""

    def receive(self, first_sequence: int, count: int) -> None:
        """Messages `first_sequence` and following have come."""
        if first_sequence != self.received + 1:
            raise ProtocolError(f"the batch begins at sequence {first_sequence}, expected {self.received + 1}")
        if count == 0:
            raise ProtocolError("the batch is empty")
        if self.received + count > self.credit:
            raise ProtocolError(
                f"the batch ends at sequence {self.received + count}, beyond the credit of {self.credit}"
            )
        self.received += count

    def finish(self, count: int = 1) -> None:
        """This side is done with the next `count` messages."""
        self.done += count
        assert self.done <= self.received, "done with messages that never came"

    def grant(self, credit: int) -> bool:
        """Allow messages through `credit`; whether that is more than before."""
        if credit <= self.credit:
            return False
        self.credit = credit
        return True
