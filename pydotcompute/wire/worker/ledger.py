"""What a kernel has handed on to one worker, and what has become of it.

A message that was handed on is *ahead* until the actor takes it; then it is *in hand* until the actor is done with it.
What is ahead can be called back. The worker marks a message as taken in memory that both sides map, before the actor
gets it. So the kernel knows what was in hand when a worker has died, and whatever was only ahead has lost nothing.

Whether an overdue message was taken needs no answer of the worker. The worker first marks a message as taken, and then
looks at the clock: if the deadline has passed, the actor does not get the message. So if the kernel looks at the marks
after the deadline and finds none, the actor is certain not to get that message.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Generic, TypeVar

from pydotcompute.wire.worker.frames import LinkError

__all__ = ["Ended", "Entry", "Ledger", "Window"]

T = TypeVar("T")


@dataclass(eq=False, slots=True)
class Entry(Generic[T]):
    """A message that was handed on."""

    sequence: int
    item: T
    """What the kernel keeps of the message."""
    priority: int
    size: int
    """The bytes of its body."""
    deadline: float
    slot: int
    """The byte of the marks that is 1 once the actor has taken the message."""
    withdrawn: bool = False
    """True if nobody wants the message any more: when it comes back, it is not handed on again."""
    recalled: bool = False
    """True if the message was called back."""
    passed_on: bool = False
    """True if the actor has forwarded the message: another kernel has it, so it is not given again."""
    gone: bool = False
    """True if the message was taken out, because it was overdue; the worker finds that out later."""


@dataclass(slots=True)
class Window:
    """How much may be ahead of the actor."""

    messages: int
    bytes: int


@dataclass(slots=True)
class Ended(Generic[T]):
    """What was not done when the worker ended."""

    in_hand: list[Entry[T]] = field(default_factory=list)
    """The actor had taken these. Nobody knows how far it had got."""
    ahead: list[Entry[T]] = field(default_factory=list)
    """The actor had not taken these."""


class Ledger(Generic[T]):
    """The messages that one worker has.

    Args:
        marks: a byte for each message that may be ahead, all of them 0. The worker sets them.
        window: how much may be ahead.
    """

    def __init__(self, marks: memoryview, window: Window) -> None:
        self.window = window
        self.ahead: dict[int, Entry[T]] = {}
        """What was handed on and is not known to be taken, by sequence."""
        self.in_hand: dict[int, Entry[T]] = {}
        """What the actor has taken and is not done with, by sequence."""
        self._marks = marks
        self._free = list(range(len(marks) - 1, -1, -1))
        self._bytes = 0
        self._priorities: Counter[int] = Counter()  # Of what is ahead.
        self._last = 0

    # -- handing on ----------------------------------------------------------------------------------------------------

    def takes(self, priority: int) -> bool:
        """Return True if a message of this priority may be handed on now.

        One that is more urgent than any that is ahead may always go, so that it overtakes them.
        """
        if not self._free:
            return False
        if len(self.ahead) < self.window.messages and self._bytes < self.window.bytes:
            return True
        return self.is_urgent(priority)

    @property
    def room(self) -> int:
        """How many more messages may be ahead."""
        return min(len(self._free), self.window.messages - len(self.ahead))

    @property
    def room_bytes(self) -> int:
        """How many bytes may be ahead before no more messages are handed on."""
        return self.window.bytes - self._bytes

    @property
    def has_enough(self) -> bool:
        """True if so much is ahead that more may wait, so that it goes together."""
        return 2 * len(self.ahead) > self.window.messages or 2 * self._bytes > self.window.bytes

    def is_urgent(self, priority: int) -> bool:
        """Return True if a message of this priority is more urgent than some that is ahead."""
        return bool(self._priorities) and priority > min(self._priorities)

    def hand(self, item: T, sequence: int, priority: int, size: int, deadline: float = inf) -> Entry[T]:
        """Note that a message is handed on. It must be one that `takes` allows, and sequences only grow."""
        assert sequence > self._last
        self._last = sequence
        entry = Entry(sequence, item, priority, size, deadline, self._free.pop())
        self._marks[entry.slot] = 0
        self.ahead[sequence] = entry
        self._bytes += size
        self._priorities[priority] += 1
        return entry

    # -- what the worker says ------------------------------------------------------------------------------------------

    def took(self, sequences: Iterable[int]) -> list[Entry[T]]:
        """Note what the actor has taken. Raises LinkError if one of these is not ahead."""
        entries = [self._leave_ahead(sequence) for sequence in sequences]
        for entry in entries:
            self.in_hand[entry.sequence] = entry
        return entries

    def done(self, sequences: Iterable[int]) -> list[Entry[T]]:
        """Note what the actor is done with, or has not got after all. Raises LinkError if one of these is not in hand.

        Returns:
            The messages, in this order.
        """
        try:
            return [self.in_hand.pop(sequence) for sequence in sequences]
        except KeyError as error:
            raise LinkError(f"message {error} is not in the actor's hands") from None

    def returned(self, sequences: Iterable[int]) -> list[Entry[T]]:
        """Note what came back untaken. Raises LinkError if one of these is not ahead, or is marked as taken."""
        entries = []
        for sequence in sequences:
            entry = self._leave_ahead(sequence)
            if self._marks[entry.slot]:
                raise LinkError(f"message {sequence} was taken and cannot come back")
            entries.append(entry)
        return entries

    def _leave_ahead(self, sequence: int) -> Entry[T]:
        entry = self.ahead.pop(sequence, None)
        if entry is None:
            raise LinkError(f"message {sequence} is not ahead of the actor")
        self._free.append(entry.slot)
        self._bytes -= entry.size
        self._priorities[entry.priority] -= 1
        if not self._priorities[entry.priority]:
            del self._priorities[entry.priority]
        return entry

    def ended(self) -> Ended[T]:
        """Note that the worker has ended. Return what it had, in the order in which it was handed on."""
        ended: Ended[T] = Ended([entry for entry in self.in_hand.values() if not entry.gone])
        for entry in list(self.ahead.values()):
            self._leave_ahead(entry.sequence)
            if not entry.gone:
                (ended.in_hand if self._marks[entry.slot] else ended.ahead).append(entry)
        self.in_hand.clear()
        return ended

    # -- what the kernel asks ------------------------------------------------------------------------------------------

    def has(self, sequence: int) -> bool:
        """Return True if the worker still has this message."""
        return sequence in self.ahead or sequence in self.in_hand

    def untaken(self) -> Iterator[Entry[T]]:
        """Iterate over what the actor has not taken, as far as the marks say now, in the order of handing on."""
        return (entry for entry in self.ahead.values() if not (entry.gone or self._marks[entry.slot]))

    def taken(self) -> Iterator[Entry[T]]:
        """Iterate over what the actor has in hand, as far as the marks say now."""
        yield from self.in_hand.values()
        yield from (entry for entry in self.ahead.values() if self._marks[entry.slot] and not entry.gone)

    def take_overdue(self, entry: Entry[T], now: float) -> bool:
        """Take a message out that is overdue at `now`. Return True if the actor is certain not to get it."""
        if entry.deadline > now or self._marks[entry.slot] or entry.gone:
            return False
        entry.gone = True
        return True
