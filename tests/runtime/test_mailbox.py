"""The mailbox against a list that does the same the slow way, through any interleaving of its users."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from pydotcompute.exceptions import InvalidConfigurationError, KernelStateError, QueueFullError
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from tests.properties import examples

# -- the queue ---------------------------------------------------------------------------------------------------------

operations = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["push", "push_front"]), st.sampled_from([0, 1, 2, 127, 128, 254, 255])),
        st.tuples(st.sampled_from(["pop", "pop_lowest", "remove_all"]), st.none()),
    )
)


@given(operations)
def test_the_queue_hands_out_as_a_sorted_list_would(steps: list[tuple[str, int | None]]) -> None:
    queue: PriorityQueue[int] = PriorityQueue()
    model: list[tuple[int, int]] = []  # Priority and item; of one priority, the one pushed first is first.
    for number, (step, priority) in enumerate(steps):
        if priority is not None:
            getattr(queue, step)(number, priority)
            model.insert(len(model) if step == "push" else 0, (priority, number))
        elif step == "remove_all":
            unwanted = {item for _, item in model if item % 3 == number % 3}
            assert sorted(queue.remove_all(unwanted.__contains__)) == sorted(unwanted)
            model = [each for each in model if each[1] not in unwanted]
        elif not model:
            with pytest.raises(IndexError):
                getattr(queue, step)()
        else:
            best = (max if step == "pop" else min)(priority for priority, _ in model)
            expected = next(item for item in model if item[0] == best)
            model.remove(expected)
            assert getattr(queue, step)() == expected[1]
        assert len(queue) == len(model)


def test_room_that_is_made_by_taking_many_out_is_offered_to_those_who_wait() -> None:
    async def program() -> None:
        mailbox: Mailbox[int] = Mailbox("k", 3)
        for item in (1, 2, 3):
            mailbox.put_nowait(item)
        waiting = [asyncio.ensure_future(mailbox.put(item)) for item in (4, 5)]
        await asyncio.sleep(0)
        assert mailbox.remove_all(lambda item: item % 2 == 1) == [1, 3]
        await asyncio.gather(*waiting)
        assert mailbox.drain() == [2, 4, 5]

    asyncio.run(program())


# -- the mailbox -------------------------------------------------------------------------------------------------------


class ManualLoop(asyncio.SelectorEventLoop):
    """An event loop whose clock is set by hand, and which runs turn by turn."""

    now = 0.0
    turns = 0

    def time(self) -> float:
        return self.now

    def turn(self, count: int = 1) -> None:
        """Let every task that is ready run once, `count` times."""
        for _ in range(count):
            self.turns += 1
            self.call_soon(self.stop)
            self.run_forever()


CLOSED = KernelStateError("k", "TERMINATED", "send")
SETTLED = 12
"""Turns, for each task, after which nobody who could go on still waits."""


class MailboxMachine(RuleBasedStateMachine):
    """Tasks put and get, are cancelled and time out, in any order; `model` is what should be in the mailbox."""

    @initialize(capacity=st.integers(1, 4), strategy=st.sampled_from(["block", "block", "reject", "drop_oldest"]))
    def begin(self, capacity: int, strategy: Any) -> None:
        self.loop = ManualLoop()
        self.mailbox: Mailbox[int] = Mailbox("k", capacity, strategy)
        self.model: list[tuple[int, int]] = []
        self.paused = self.closed = False
        self.next_item = 0
        self.dropped: list[int] = []
        self.getting: dict[asyncio.Task[Any], int] = {}
        self.putting: dict[asyncio.Task[Any], int] = {}  # With what they put.
        self.patient: dict[int, None] = {}  # What waits to be put without time-out or cancellation, in order.
        self.errors: list[BaseException] = []

    def teardown(self) -> None:
        if not hasattr(self, "loop"):
            return
        for task in (*self.getting, *self.putting):
            task.cancel()
        self.loop.turn(SETTLED)
        self.loop.close()

    # What the tasks do. Each looks at the model in the same step in which the mailbox acts.

    def handed_out(self, item: int) -> None:
        assert not self.paused, "a paused mailbox hands out nothing"
        highest = max(priority for priority, _ in self.model)
        expected = next(pair for pair in self.model if pair[0] == highest)
        assert item == expected[1]
        self.model.remove(expected)

    def taken_in(self, item: int, priority: int, dropped: int | None) -> None:
        if dropped is not None:
            assert len(self.model) == self.mailbox.capacity
            lowest = min(p for p, _ in self.model)
            victim = next(pair for pair in self.model if pair[0] == lowest)
            assert dropped == victim[1]
            self.model.remove(victim)
        self.model.append((priority, item))

    async def get(self, timeout: float | None) -> None:
        start = self.loop.time()
        try:
            item = await self.mailbox.next(timeout)
        except KernelStateError:
            assert self.closed
            return
        if item is not None:
            self.handed_out(item)
            return
        assert timeout is not None
        assert self.loop.time() >= start + timeout
        assert not self.model or self.paused, "it timed out beside an item"

    async def put(self, item: int, priority: int, timeout: float | None) -> None:
        start, began = self.loop.time(), self.loop.turns
        try:
            if timeout is None:
                self.patient[item] = None
            dropped = await self.mailbox.put(item, priority, timeout)
            if self.loop.turns > began:  # Who need not wait may pass one who has been called and is not there yet.
                assert next(iter(self.patient), item) >= item, "who waits is served in the order of arrival"
            self.taken_in(item, priority, dropped)
        except QueueFullError:
            assert not self.mailbox.backpressure.drops
            if self.mailbox.backpressure.waits:
                assert timeout is not None
                assert self.loop.time() >= start + timeout
        except KernelStateError:
            assert self.closed
        finally:
            self.patient.pop(item, None)

    def start(self, coroutine: Coroutine[Any, Any, None], among: dict[asyncio.Task[Any], int]) -> None:
        task = self.loop.create_task(coroutine)
        among[task] = self.next_item

        def done(task: asyncio.Task[Any]) -> None:
            del among[task]
            if not task.cancelled() and (error := task.exception()) is not None:
                self.errors.append(error)

        task.add_done_callback(done)

    # What may happen.

    @rule(timeouts=st.lists(st.sampled_from([None, None, 0.0, 1.0, 2.0]), min_size=1, max_size=4))
    def some_get(self, timeouts: list[float | None]) -> None:
        for timeout in timeouts:
            self.start(self.get(timeout), self.getting)

    @rule(
        priorities=st.lists(st.sampled_from([0, 1, 255]), min_size=1, max_size=4),
        timeout=st.sampled_from([None, None, 0.0, 1.0, 2.0]),
    )
    def some_put(self, priorities: list[int], timeout: float | None) -> None:
        for priority in priorities:
            self.next_item += 1
            self.start(self.put(self.next_item, priority, timeout), self.putting)

    @rule(first_put_is_cancelled=st.booleans())
    def a_get_that_does_not_wait(self, first_put_is_cancelled: bool) -> None:
        item = self.mailbox.get_nowait()
        if item is not None:
            self.handed_out(item)
        else:
            assert self.paused or not self.model
        if first_put_is_cancelled and self.putting:
            self.cancel_put(next(iter(self.putting)))

    @rule(priority=st.sampled_from([0, 1, 255]), first_get_is_cancelled=st.booleans())
    def a_put_that_does_not_wait(self, priority: int, first_get_is_cancelled: bool) -> None:
        self.put_without_waiting(priority)
        if first_get_is_cancelled and self.getting:
            next(iter(self.getting)).cancel()

    def put_without_waiting(self, priority: int) -> None:
        self.next_item += 1
        room = self.mailbox.room
        try:
            dropped = self.mailbox.put_nowait(self.next_item, priority)
        except QueueFullError:
            assert room == 0
            assert len(self.model) >= self.mailbox.capacity or self.putting
            return
        except KernelStateError:
            assert self.closed
            return
        assert (dropped is None) == (room > 0)
        self.taken_in(self.next_item, priority, dropped)

    @rule(count=st.integers(1, 3))
    def time_passes_for_the_tasks(self, count: int) -> None:
        self.loop.turn(count)

    @rule(seconds=st.sampled_from([0.5, 1.0]))
    def time_passes_on_the_clock(self, seconds: float) -> None:
        self.loop.now += seconds

    @precondition(lambda self: self.getting)
    @rule(data=st.data())
    def a_get_is_cancelled(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(list(self.getting))).cancel()

    @precondition(lambda self: self.putting)
    @rule(data=st.data())
    def a_put_is_cancelled(self, data: st.DataObject) -> None:
        self.cancel_put(data.draw(st.sampled_from(list(self.putting))))

    def cancel_put(self, task: asyncio.Task[Any]) -> None:
        task.cancel()
        self.patient.pop(self.putting[task], None)

    @rule()
    def pause(self) -> None:
        self.mailbox.pause()
        self.paused = True

    @precondition(lambda self: not self.closed)
    @rule()
    def resume(self) -> None:
        self.mailbox.resume()
        self.paused = False

    @precondition(lambda self: self.next_item > 5 and not self.closed)
    @rule()
    def close(self) -> None:
        self.mailbox.close(CLOSED)
        self.closed = self.paused = True

    @rule()
    def everything_settles(self) -> None:
        self.loop.turn(SETTLED * (1 + len(self.getting) + len(self.putting)))
        if self.closed:
            assert not self.getting
            assert not self.putting
        if not self.paused:
            assert not (self.getting and self.model), "somebody waits beside an item"
        assert not (self.putting and len(self.model) < self.mailbox.capacity), "somebody waits beside room"
        if not self.putting and not self.closed:
            assert self.mailbox.room == self.mailbox.capacity - len(self.model)

    # What always holds.

    @invariant()
    def nothing_is_lost_and_nothing_doubled(self) -> None:
        if hasattr(self, "mailbox"):
            assert not self.errors, self.errors
            assert len(self.mailbox) == len(self.model)

    @invariant()
    def the_bound_holds(self) -> None:
        if hasattr(self, "mailbox"):
            assert len(self.mailbox) <= self.mailbox.capacity


def test_the_mailbox_keeps_its_word_through_any_interleaving() -> None:
    run_state_machine_as_test(
        MailboxMachine,
        settings=settings(max_examples=examples(200), stateful_step_count=50, suppress_health_check=list(HealthCheck)),
    )


# -- what the machine above does not reach -----------------------------------------------------------------------------


async def test_a_woken_next_that_is_cancelled_wakes_the_next() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 4)
    first, second = asyncio.create_task(mailbox.next()), asyncio.create_task(mailbox.next())
    await asyncio.sleep(0)
    mailbox.put_nowait("a")
    first.cancel()
    assert await asyncio.wait_for(second, 10) == "a"


async def test_a_put_that_is_cancelled_when_its_turn_has_come_lets_the_next_one_in() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 1)
    mailbox.put_nowait("a")
    first, second = asyncio.create_task(mailbox.put("b")), asyncio.create_task(mailbox.put("c"))
    await asyncio.sleep(0)
    assert mailbox.get_nowait() == "a"
    first.cancel()
    await asyncio.wait_for(second, 10)
    assert mailbox.drain() == ["c"]


async def test_a_woken_next_finds_nothing_after_a_pause() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 4)
    getting = asyncio.create_task(mailbox.next())
    await asyncio.sleep(0)
    mailbox.put_nowait("a")
    mailbox.pause()
    for _ in range(SETTLED):
        await asyncio.sleep(0)
    assert not getting.done()
    assert len(mailbox) == 1
    mailbox.resume()
    assert await asyncio.wait_for(getting, 10) == "a"


async def test_what_is_put_anyway_is_there_although_there_is_no_room() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 1)
    mailbox.put_nowait("b")
    mailbox.put_anyway("a", front=True)
    mailbox.put_anyway("c")
    waiting = asyncio.create_task(mailbox.put("d"))
    await asyncio.sleep(0)
    assert [await mailbox.next() for _ in range(2)] == ["a", "b"]
    await asyncio.sleep(0)
    assert not waiting.done(), "there is no room yet"
    assert await mailbox.next() == "c"
    assert await mailbox.next(timeout=1) == "d"
    await waiting


async def test_a_closed_mailbox_can_be_drained_in_order() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 4)
    for item, priority in (("b", 1), ("a", 2), ("c", 1)):
        mailbox.put_nowait(item, priority)
    mailbox.close(CLOSED)
    with pytest.raises(KernelStateError):
        await mailbox.next()
    with pytest.raises(KernelStateError):
        mailbox.put_nowait("d")
    assert mailbox.drain() == ["a", "b", "c"]
    assert len(mailbox) == 0


async def test_who_watches_is_told_that_something_was_taken() -> None:
    mailbox: Mailbox[str] = Mailbox("k", 4)
    mailbox.put_nowait("a")
    watching = asyncio.create_task(mailbox.taken.wait(timeout=1))
    await asyncio.sleep(0)
    assert mailbox.get_nowait() == "a"
    assert await watching


@pytest.mark.parametrize(("capacity", "strategy"), [(0, "block"), (-1, "reject"), (4, "drop"), (4, "")])
def test_settings_that_cannot_work_are_refused(capacity: int, strategy: Any) -> None:
    with pytest.raises(InvalidConfigurationError):
        Mailbox("k", capacity, strategy)


def test_what_is_lent_takes_room_and_is_not_dropped() -> None:
    mailbox: Mailbox[int] = Mailbox("k", 2, "drop_oldest")
    mailbox.put_nowait(1)
    assert mailbox.get_nowait() == 1
    mailbox.lend(1)
    assert mailbox.room == 1
    assert mailbox.put_nowait(2) is None
    assert mailbox.put_nowait(3) == 2
    mailbox.lend(1)
    assert mailbox.get_nowait() == 3
    assert mailbox.put_nowait(4) is None  # All room is lent, and there is nothing to drop.
    mailbox.lend(-2)
    assert mailbox.room == 1
