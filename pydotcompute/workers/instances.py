"""The instances of one kernel, and the messages that are with them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic, perf_counter_ns
from typing import Any

from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.wire.worker.frames import Recall
from pydotcompute.wire.worker.ledger import Entry
from pydotcompute.workers.instance import Instance

__all__ = ["Entries", "Instances", "header_of"]

Entries = list[Entry[Item[Any]]]


class Instances:
    """The instances of one kernel, and the messages that are with them.

    They are `Lent` to the kernel's mailbox, and `Hands` to those that ask why a reply has not come.

    Args:
        kernel: the kernel.
    """

    def __init__(self, kernel: RingKernel[Any, Any]) -> None:
        self.members: list[Instance] = []
        """The instances, also those that were told to end and have something in hand. Only the crew changes them."""
        self._mail, self._gate, self._inbox = kernel.mail, kernel.gate, kernel.mail.inbox
        self.changed = Signal()
        """Notified when a worker may have room for more."""
        self.is_active = False
        """True while the kernel is ACTIVE."""

    # -- for those that ask why a reply has not come -------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """See `Runner`."""
        return not any(self._taken())

    @property
    def seconds_in_send(self) -> float | None:
        """See `Runner`."""
        since = [each.process.marks.stuck_since_ns for each in self.members if each.process is not None]
        return max((perf_counter_ns() - ns) / 1e9 for ns in since if ns) if any(since) else None

    def instances(self) -> Sequence[object]:
        """See `Hands`."""
        return self.members

    def holder(self, key: int) -> object | None:
        """See `Hands`."""
        for each in self.members:
            if each.process is not None and any(
                header_of(entry).message_id.int == key for entry in each.ledger.taken()
            ):
                return each
        return None

    @property
    def seconds_in_hand(self) -> float:
        """See `Hands`."""
        taken = [max(entry.item[1], self._mail.counters.completed_ns, self._gate.entered_ns) for entry in self._taken()]
        return max(0, perf_counter_ns() - min(taken)) / 1e9 if taken else 0.0

    def _taken(self) -> Iterator[Entry[Item[Any]]]:
        return chain.from_iterable(each.ledger.taken() for each in self.members if each.process is not None)

    # -- for the mailbox -----------------------------------------------------------------------------------------------

    def __len__(self) -> int:
        """See `Lent`."""
        return sum(1 for _ in self._untaken())

    def in_order(self) -> Iterator[Item[Any]]:
        """See `Lent`."""
        untaken = sorted(self._untaken(), key=lambda entry: (-entry.priority, entry.sequence))
        return (entry.item for entry in untaken)

    def take_overdue(self, key: int | None = None) -> list[tuple[int, Item[Any]]]:
        """See `Lent`."""
        now = monotonic()
        found: list[tuple[int, Item[Any]]] = []
        for instance in self.members:
            if instance.process is None:
                continue
            for before, entry in enumerate(list(instance.ledger.untaken())):
                if key is not None and header_of(entry).message_id.int != key:
                    continue
                if key is not None and now < entry.deadline < now + 0.002:  # The timer was early.
                    while (now := monotonic()) < entry.deadline:
                        pass
                if instance.ledger.take_overdue(entry, now):
                    self._inbox.lend(-1)
                    found.append((before, entry.item))
        return found

    def withdraw(self, which: Callable[[Item[Any]], bool]) -> None:
        """See `Lent`."""
        for instance in self.members:
            if instance.process is None:
                continue
            entries = [entry for entry in instance.ledger.untaken() if not entry.withdrawn and which(entry.item)]
            for entry in entries:
                entry.withdrawn = True
            if entries:
                instance.process.send(Recall([entry.sequence for entry in entries]))

    def _untaken(self) -> Iterator[Entry[Item[Any]]]:
        return chain.from_iterable(each.ledger.untaken() for each in self.members if each.process is not None)

    # -- what comes back, and what is lost -----------------------------------------------------------------------------

    def put_back(self, entries: Entries) -> None:
        """Put messages that the actor has not taken back into the mailbox, in their places."""
        for entry in sorted(entries, key=lambda entry: -entry.sequence):
            if entry.gone:
                continue
            self._inbox.lend(-1)
            if entry.withdrawn:
                self._mail.was_withdrawn(entry.item)
            else:
                self._inbox.put_anyway(entry.item, entry.priority, front=True)

    def settle(self, instance: Instance) -> Entries:
        """Take back what a worker had, which has ended. Return what its actor had in hand."""
        if instance.process is None:
            return []
        already = len(instance.ledger.in_hand)
        ended = instance.ledger.ended()
        # What is known only by the marks to be taken still counts as a message of the mailbox.
        for entry in ended.in_hand[already:]:
            self._inbox.lend(-1)
            if entry.item[2] is not None:
                self._inbox.left(entry.item[2])
        self.put_back(ended.ahead)
        for entry in ended.in_hand:
            if entry.passed_on:
                self._complete(entry)
        return [entry for entry in ended.in_hand if not entry.passed_on]

    def _complete(self, entry: Entry[Item[Any]]) -> None:
        self._mail.counters.complete(entry.item[1])
        if self._mail.journal is not None:
            self._mail.journal.done(header_of(entry).message_id)


def header_of(entry: Entry[Item[Any]]) -> Header:
    """Return the header of an entry's message."""
    header: Header = entry.item[0]
    return header
