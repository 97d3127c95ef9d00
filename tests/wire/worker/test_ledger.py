"""What was handed on to a worker: nothing is lost, doubled or out of order, whatever happens and in whatever order.

The worker is a model that does what a real one does: it keeps what came by priority, marks what its actor takes, and
reports later. The frames between the two sides wait in queues, so that either side knows the other's past only. The
worker may die at any moment; then only its marks and what it had sent are left.
"""

from collections import deque
from dataclasses import dataclass, field
from math import inf
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from pydotcompute.wire.worker.frames import LinkError
from pydotcompute.wire.worker.ledger import Entry, Ledger, Window
from tests.properties import examples

SLOTS = 6

Item = tuple[int, int, float]
"""A message: its number, its priority and its deadline."""


@dataclass
class Model:
    """A worker process."""

    marks: bytearray
    ahead: list[Entry[Item]] = field(default_factory=list)
    hand: list[Entry[Item]] = field(default_factory=list)
    paused: bool = False


class Link(RuleBasedStateMachine):
    """A kernel's mailbox, a ledger, and a worker."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.sequence = 0
        self.number = 0
        self.inbox: PriorityQueue[Item] = PriorityQueue()
        self.fate: dict[int, str] = {}
        self.taken_in_order: dict[int, list[int]] = {}
        self.withdrawn: set[int] = set()
        self.paused = False

    @initialize(window=st.integers(1, 4))
    def begin(self, window: int) -> None:
        self.window = Window(window, 100)
        self.connect()

    def connect(self) -> None:
        self.model = Model(bytearray(SLOTS))
        self.ledger: Ledger[Item] = Ledger(memoryview(self.model.marks), self.window)
        self.to_worker: deque[tuple[str, Any]] = deque()
        self.to_kernel: deque[tuple[str, Any]] = deque()
        self.taken_in_order = {}
        if self.paused:
            self.to_worker.append(("pause", None))

    # -- the kernel

    @rule(priority=st.sampled_from([1, 128, 200]), patience=st.sampled_from([1.0, 5.0, inf]))
    def send(self, priority: int, patience: float) -> None:
        self.number += 1
        self.inbox.push((self.number, priority, self.clock + patience), priority)

    @rule()
    def hand_on(self) -> None:
        while not self.paused and self.inbox.size and self.ledger.takes(self.inbox.top_priority):
            item = self.inbox.pop()
            self.sequence += 1
            entry = self.ledger.hand(item, self.sequence, item[1], 10, item[2])
            self.to_worker.append(("hand", entry))

    @rule()
    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            self.to_worker.append(("pause", None))

    @rule()
    def resume(self) -> None:
        # As in a kernel, only once the pause is done: what was ahead is back.
        if self.paused and not self.ledger.ahead:
            self.paused = False
            self.to_worker.append(("resume", None))

    @rule(data=st.data())
    def withdraw(self, data: st.DataObject) -> None:
        entries = [entry for entry in self.ledger.untaken() if not entry.withdrawn]
        if entries:
            entry = data.draw(st.sampled_from(entries))
            entry.withdrawn = True
            self.to_worker.append(("recall", entry.sequence))

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock += seconds

    @rule()
    def take_overdue(self) -> None:
        for entry in [*self.ledger.untaken()]:
            if self.ledger.take_overdue(entry, self.clock):
                self.settle(entry.item[0], "expired")

    @rule()
    def hear(self) -> None:
        """The kernel reads the next frame of the worker."""
        if not self.to_kernel:
            return
        what, values = self.to_kernel.popleft()
        if what == "report":
            taken, expired, done = values
            self.ledger.took(taken)
            for entry in self.ledger.done(expired):
                if not entry.gone:
                    self.settle(entry.item[0], "expired")
            for entry in self.ledger.done(done):
                assert not entry.gone, "the actor got a message that was taken out as overdue"
                self.settle(entry.item[0], "done")
        else:
            self.put_back(self.ledger.returned(values))

    def put_back(self, entries: list[Entry[Item]]) -> None:
        for entry in sorted(entries, key=lambda entry: -entry.sequence):
            if entry.withdrawn and not entry.gone:
                self.settle(entry.item[0], "withdrawn")
            elif not entry.gone:
                self.inbox.push_front(entry.item, entry.priority)

    def settle(self, number: int, fate: str) -> None:
        assert number not in self.fate, f"message {number} was {self.fate[number]}, and is {fate}"
        self.fate[number] = fate

    # -- the worker

    @rule()
    def worker_reads(self) -> None:
        if not self.to_worker:
            return
        what, value = self.to_worker.popleft()
        model = self.model
        if what == "hand":
            model.ahead.append(value)
        elif what == "recall":
            found = [entry for entry in model.ahead if entry.sequence == value]
            model.ahead = [entry for entry in model.ahead if entry not in found]
            self.to_kernel.append(("returned", [entry.sequence for entry in found]))
        elif what == "pause":
            model.paused = True
            self.to_kernel.append(("returned", [entry.sequence for entry in model.ahead]))
            model.ahead = []
        else:
            model.paused = False

    @precondition(lambda self: not self.model.paused)
    @rule(dies=st.booleans(), then=st.sampled_from(["done", "kept"]))
    def actor_takes(self, dies: bool, then: str) -> None:
        model = self.model
        if not model.ahead:
            return
        entry = max(model.ahead, key=lambda entry: (entry.priority, -entry.sequence))
        model.ahead.remove(entry)
        model.marks[entry.slot] = 1
        if dies:  # Between the mark and the report.
            self.worker_dies(lost=0)
            return
        if entry.deadline <= self.clock:
            self.to_kernel.append(("report", ([entry.sequence], [entry.sequence], [])))
            return
        self.taken_in_order.setdefault(entry.priority, []).append(entry.item[0])
        self.to_kernel.append(("report", ([entry.sequence], [], [])))
        model.hand.append(entry)
        if then == "done":
            self.actor_is_done()

    @rule()
    def actor_is_done(self) -> None:
        if self.model.hand:
            self.to_kernel.append(("report", ([], [], [self.model.hand.pop(0).sequence])))

    @rule(lost=st.integers(0, 3))
    def worker_dies(self, lost: int) -> None:
        """The worker dies. The last frames that it wanted to send may not have come out."""
        for _ in range(min(lost, len(self.to_kernel))):
            self.to_kernel.pop()
        while self.to_kernel:
            self.hear()
        ended = self.ledger.ended()
        for entry in ended.in_hand:
            self.settle(entry.item[0], "lost")
        self.put_back(ended.ahead)
        self.connect()

    # -- what holds

    @invariant()
    def nothing_is_lost(self) -> None:
        if not hasattr(self, "ledger"):
            return
        somewhere = [item[0] for item in self.inbox]
        somewhere += [entry.item[0] for entry in self.ledger.ahead.values() if not entry.gone]
        somewhere += [entry.item[0] for entry in self.ledger.in_hand.values() if not entry.gone]
        assert sorted([*somewhere, *self.fate]) == [*range(1, self.number + 1)]

    @invariant()
    def the_actor_takes_in_order(self) -> None:
        for numbers in self.taken_in_order.values():
            assert numbers == sorted(numbers), "of one priority, a later message was taken before an earlier one"

    @invariant()
    def the_window_is_kept(self) -> None:
        if hasattr(self, "ledger"):
            assert len(self.ledger.ahead) <= SLOTS


TestLink = Link.TestCase
TestLink.settings = settings(max_examples=examples(200), stateful_step_count=60, deadline=None)


def ledger(window: int = 4) -> Ledger[str]:
    return Ledger(memoryview(bytearray(SLOTS)), Window(window, 100))


def test_what_is_more_urgent_goes_beyond_the_window() -> None:
    full = ledger(window=1)
    full.hand("a", 1, 128, 10)
    assert (full.takes(128), full.takes(129)) == (False, True)
    full.hand("b", 2, 129, 10)
    assert (full.takes(128), full.takes(129)) == (False, True)


def test_bytes_close_the_window() -> None:
    full = ledger()
    full.hand("a", 1, 128, 100)
    assert not full.takes(128)


def test_a_worker_that_says_what_cannot_be_is_refused() -> None:
    known = ledger()
    with pytest.raises(LinkError, match="message 1 is not ahead"):
        known.took([1])
    with pytest.raises(LinkError, match="message 1 is not in the actor's hands"):
        known.done([1])
    marks = bytearray(SLOTS)
    marked: Ledger[str] = Ledger(memoryview(marks), Window(4, 100))
    marks[marked.hand("a", 1, 128, 10).slot] = 1
    with pytest.raises(LinkError, match="was taken and cannot come back"):
        marked.returned([1])
