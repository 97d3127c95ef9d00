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
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from pydotcompute.wire.worker.frames import LinkError
from pydotcompute.wire.worker.ledger import Entry, Ledger, Window
from tests.properties import examples

SLOTS = 6

Item = tuple[int, int, float]
"""A message: its number, its priority and its deadline."""


@dataclass
class Worker:
    """A worker process, and what its kernel knows of it."""

    marks: bytearray
    ledger: Ledger[Item]
    ahead: list[Entry[Item]] = field(default_factory=list)
    hand: list[Entry[Item]] = field(default_factory=list)
    paused: bool = False
    to_worker: deque[tuple[str, Any]] = field(default_factory=deque)
    to_kernel: deque[tuple[str, Any]] = field(default_factory=deque)


class Link(RuleBasedStateMachine):
    """A kernel's mailbox, and workers that share it, each with its ledger."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 0.0
        self.sequence = 0
        self.number = 0
        self.inbox: PriorityQueue[Item] = PriorityQueue()
        self.fate: dict[int, str] = {}
        self.taken_in_order: dict[int, list[int]] = {}
        self.given_again: set[int] = set()
        self.paused = False
        self.workers: list[Worker] = []

    @initialize(window=st.integers(1, 4), count=st.integers(1, 2), redelivers=st.booleans())
    def begin(self, window: int, count: int, redelivers: bool) -> None:
        self.window = Window(window, 100)
        self.redelivers = redelivers
        self.workers = [self.connected() for _ in range(count)]

    def connected(self) -> Worker:
        marks = bytearray(SLOTS)
        worker = Worker(marks, Ledger(memoryview(marks), self.window))
        self.taken_in_order = {}
        if self.paused:
            worker.to_worker.append(("pause", None))
        return worker

    def one(self, data: st.DataObject) -> Worker:
        return self.workers[data.draw(st.integers(0, len(self.workers) - 1), "worker")]

    # -- the kernel

    @rule(priority=st.sampled_from([1, 128, 200]), patience=st.sampled_from([1.0, 5.0, inf]))
    def send(self, priority: int, patience: float) -> None:
        self.number += 1
        self.inbox.push((self.number, priority, self.clock + patience), priority)

    @rule(data=st.data())
    def hand_on(self, data: st.DataObject) -> None:
        worker = self.one(data)
        while not self.paused and self.inbox.size and worker.ledger.takes(self.inbox.top_priority):
            item = self.inbox.pop()
            self.sequence += 1
            entry = worker.ledger.hand(item, self.sequence, item[1], 10, item[2])
            worker.to_worker.append(("hand", entry))

    @rule()
    def pause(self) -> None:
        if not self.paused:
            self.paused = True
            for worker in self.workers:
                worker.to_worker.append(("pause", None))

    @rule()
    def resume(self) -> None:
        # As in a kernel, only once the pause is done: what was ahead is back.
        if self.paused and not any(worker.ledger.ahead for worker in self.workers):
            self.paused = False
            for worker in self.workers:
                worker.to_worker.append(("resume", None))

    @rule(data=st.data(), withdrawn=st.booleans())
    def recall(self, data: st.DataObject, withdrawn: bool) -> None:
        """Call one back, because nobody wants it any more, or because the other worker has nothing to do."""
        worker = self.one(data)
        withdrawn = withdrawn or len(self.workers) == 1
        entries = [entry for entry in worker.ledger.untaken() if not (entry.withdrawn or entry.recalled)]
        if entries:
            entry = data.draw(st.sampled_from(entries))
            entry.withdrawn, entry.recalled = withdrawn, not withdrawn
            worker.to_worker.append(("recall", entry.sequence))

    @rule(seconds=st.sampled_from([0.5, 2.0]))
    def wait(self, seconds: float) -> None:
        self.clock += seconds

    @rule(data=st.data())
    def take_overdue(self, data: st.DataObject) -> None:
        ledger = self.one(data).ledger
        for entry in [*ledger.untaken()]:
            if ledger.take_overdue(entry, self.clock):
                self.settle(entry.item[0], "expired")

    @rule(data=st.data())
    def hear(self, data: st.DataObject) -> None:
        self.hear_of(self.one(data))

    def hear_of(self, worker: Worker) -> None:
        """The kernel reads the next frame of a worker."""
        if not worker.to_kernel:
            return
        what, values = worker.to_kernel.popleft()
        if what == "report":
            taken, expired, done = values
            worker.ledger.took(taken)
            for entry in worker.ledger.done(expired):
                if not entry.gone:
                    self.settle(entry.item[0], "expired")
            for entry in worker.ledger.done(done):
                assert not entry.gone, "the actor got a message that was taken out as overdue"
                self.settle(entry.item[0], "done")
        else:
            self.put_back(worker.ledger.returned(values))

    def put_back(self, entries: list[Entry[Item]]) -> None:
        for entry in sorted(entries, key=lambda entry: -entry.sequence):
            if entry.withdrawn and not entry.gone:
                self.settle(entry.item[0], "withdrawn")
            elif not entry.gone:
                self.inbox.push_front(entry.item, entry.priority)

    def settle(self, number: int, fate: str) -> None:
        assert number not in self.fate, f"message {number} was {self.fate[number]}, and is {fate}"
        self.fate[number] = fate

    # -- the workers

    @rule(data=st.data())
    def worker_reads(self, data: st.DataObject) -> None:
        worker = self.one(data)
        if not worker.to_worker:
            return
        what, value = worker.to_worker.popleft()
        if what == "hand":
            worker.ahead.append(value)
        elif what == "recall":
            found = [entry for entry in worker.ahead if entry.sequence == value]
            worker.ahead = [entry for entry in worker.ahead if entry not in found]
            worker.to_kernel.append(("returned", [entry.sequence for entry in found]))
        elif what == "pause":
            worker.paused = True
            worker.to_kernel.append(("returned", [entry.sequence for entry in worker.ahead]))
            worker.ahead = []
        else:
            worker.paused = False

    @rule(data=st.data(), dies=st.booleans(), then=st.sampled_from(["done", "kept"]))
    def actor_takes(self, data: st.DataObject, dies: bool, then: str) -> None:
        worker = self.one(data)
        if worker.paused or not worker.ahead:
            return
        entry = max(worker.ahead, key=lambda entry: (entry.priority, -entry.sequence))
        worker.ahead.remove(entry)
        worker.marks[entry.slot] = 1
        if dies:  # Between the mark and the report.
            self.dies(worker, lost=0)
            return
        if entry.deadline <= self.clock:
            worker.to_kernel.append(("report", ([entry.sequence], [entry.sequence], [])))
            return
        if len(self.workers) == 1:
            self.taken_in_order.setdefault(entry.priority, []).append(entry.item[0])
        worker.to_kernel.append(("report", ([entry.sequence], [], [])))
        worker.hand.append(entry)
        if then == "done":
            self.is_done(worker)

    @rule(data=st.data())
    def actor_is_done(self, data: st.DataObject) -> None:
        self.is_done(self.one(data))

    def is_done(self, worker: Worker) -> None:
        if worker.hand:
            worker.to_kernel.append(("report", ([], [], [worker.hand.pop(0).sequence])))

    @rule(data=st.data(), lost=st.integers(0, 3))
    def worker_dies(self, data: st.DataObject, lost: int) -> None:
        self.dies(self.one(data), lost)

    def dies(self, worker: Worker, lost: int) -> None:
        """A worker dies. The last frames that it wanted to send may not have come out."""
        for _ in range(min(lost, len(worker.to_kernel))):
            worker.to_kernel.pop()
        while worker.to_kernel:
            self.hear_of(worker)
        ended = worker.ledger.ended()
        self.put_back(ended.ahead)
        for entry in reversed(ended.in_hand):
            number = entry.item[0]
            if self.redelivers and number not in self.given_again:  # The second time it is the poison.
                self.given_again.add(number)
                self.inbox.push_front(entry.item, entry.priority)
            else:
                self.settle(number, "lost")
        self.workers[self.workers.index(worker)] = self.connected()

    # -- what holds

    @invariant()
    def nothing_is_lost(self) -> None:
        somewhere = [item[0] for item in self.inbox]
        for worker in self.workers:
            somewhere += [entry.item[0] for entry in worker.ledger.ahead.values() if not entry.gone]
            somewhere += [entry.item[0] for entry in worker.ledger.in_hand.values() if not entry.gone]
        assert sorted([*somewhere, *self.fate]) == [*range(1, self.number + 1)]

    @invariant()
    def the_actor_takes_in_order(self) -> None:
        for numbers in self.taken_in_order.values():
            assert numbers == sorted(numbers), "of one priority, a later message was taken before an earlier one"

    @invariant()
    def the_window_is_kept(self) -> None:
        for worker in self.workers:
            assert len(worker.ledger.ahead) <= SLOTS


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
