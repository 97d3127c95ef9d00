"""The bounded priority queue between a kernel and the world."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from time import monotonic
from typing import Generic, Literal, TypeVar, get_args

from pydotcompute.exceptions import (
    InvalidConfigurationError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.ring_kernels.mail.signals import Signal, expire, wait_any

__all__ = ["BackpressureStrategy", "Mailbox", "PriorityQueue"]

BackpressureStrategy = Literal["block", "reject", "drop_oldest"]

T = TypeVar("T")


class PriorityQueue(Generic[T]):
    """Items by priority, 0 to 255, higher first; inside one priority first in, first out. Every operation takes
    constant time.

    One queue for each priority in use. `top` is the one that is popped from next; an integer has a bit for each other
    queue that holds anything. As long as one priority is in use, nothing else is looked at.
    """

    __slots__ = ("_queues", "others", "size", "top", "top_priority")

    def __init__(self) -> None:
        # The attributes are public for those places that every message passes: there, `push` and
        # `pop` are written out for the plain case, for two calls less are 3 percent of a whole request and reply.
        self.top_priority = DEFAULT_PRIORITY
        """The priority of `top`: no other queue that holds anything has a higher one."""
        self.top: deque[T] = deque()
        """The queue to pop from; empty only if all are."""
        self.size = 0
        """How many items there are: `len()` at the cost of an attribute."""
        self.others = 0
        """A bit for the priority of each other queue that holds anything."""
        self._queues = {DEFAULT_PRIORITY: self.top}

    def __len__(self) -> int:
        return self.size

    def push(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Add an item behind those of its priority."""
        self._queue(priority).append(item)
        self.size += 1

    def push_all(self, items: Sequence[T], priority: int = DEFAULT_PRIORITY) -> None:
        """Add items, in order, behind those of their priority; at least one."""
        self._queue(priority).extend(items)
        self.size += len(items)

    def push_front(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Give an item back that was popped: it is the next of its priority."""
        self._queue(priority).appendleft(item)
        self.size += 1

    def _queue(self, priority: int) -> deque[T]:
        """The queue of a priority, which is about to get an item."""
        if priority == self.top_priority:
            return self.top
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
        if not self.top or priority > self.top_priority:
            if self.top:
                self.others |= 1 << self.top_priority
            self.top, self.top_priority = queue, priority
        else:
            self.others |= 1 << priority
        return queue

    def pop(self) -> T:
        """Remove the first item of the highest priority. IndexError if there is none."""
        item = self.top.popleft()
        self.size -= 1
        if not self.top and self.others:
            self.find_top()
        return item

    def find_top(self) -> None:
        """`top` is empty: find the queue to pop from next. For whoever pops from `top` directly."""
        if self.others:
            self.top_priority = self.others.bit_length() - 1
            self.top = self._queues[self.top_priority]
            self.others ^= 1 << self.top_priority

    def pop_lowest(self) -> T:
        """Remove the oldest item of the lowest priority. IndexError if there is none."""
        if not self.others:
            return self.pop()
        priority = (self.others & -self.others).bit_length() - 1
        queue = self._queues[priority]
        self.size -= 1
        item = queue.popleft()
        if not queue:
            self.others ^= 1 << priority
        return item

    def pop_all(self) -> list[T]:
        """Remove everything, in order."""
        items: list[T] = []
        while self.size:
            items += self.top
            self.size -= len(self.top)
            self.top.clear()
            self.find_top()
        return items

    def remove(self, item: T, priority: int) -> bool:
        """Remove this very item, wherever it stands in the queue of its priority; whether it was there."""
        queue = self._queues.get(priority)
        position = next((at for at, each in enumerate(queue or ()) if each is item), None)
        if queue is None or position is None:
            return False
        del queue[position]
        self.size -= 1
        if not queue:
            if queue is self.top:
                self.find_top()
            else:
                self.others ^= 1 << priority
        return True

    def remove_all(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Remove the items of which this is true, in one pass; returns them, in no particular order."""
        removed: list[T] = []
        for priority, queue in self._queues.items():
            before = len(removed)
            kept: list[T] = []
            for item in queue:
                (removed if unwanted(item) else kept).append(item)
            if len(removed) == before:
                continue
            queue.clear()
            queue.extend(kept)
            if not queue and queue is not self.top:
                self.others ^= 1 << priority
        self.size -= len(removed)
        if not self.top:
            self.find_top()
        return removed

    def __iter__(self) -> Iterator[T]:
        """What is in it, in no particular order."""
        return chain.from_iterable(self._queues.values())


class Mailbox(Generic[T]):
    """A bounded priority queue with waiting at both ends, for the tasks of one event loop.

    A cancelled or timed-out `get` leaves the item where the next `get` finds it. Waiting putters are served in the
    order in which they came. While `paused`, nothing is handed out, also not to a `get` that was waiting already.
    """

    def __init__(
        self, kernel_id: str, capacity: int, strategy: BackpressureStrategy = "block", *, paused: bool = False
    ) -> None:
        if capacity < 1:
            raise InvalidConfigurationError("queue_size", capacity, "a mailbox holds at least one message")
        if strategy not in get_args(BackpressureStrategy):
            raise InvalidConfigurationError(
                "backpressure_strategy", strategy, f"choose {', '.join(get_args(BackpressureStrategy))}"
            )
        self.kernel_id = kernel_id
        self.capacity = capacity
        self.strategy = strategy
        self.items: PriorityQueue[T] = PriorityQueue()
        """What is in it. Look at `items.size` on hot paths; change nothing."""
        self._paused = paused
        self._closed: PyDotComputeError | None = None
        self._getters = Signal()
        self._putters: dict[
            asyncio.Future[int], int
        ] = {}  # Those whose turn has not come yet, in order; what they want.
        self._invited = 0  # The room kept for those whose turn has come and who have not put yet.
        self._inviting = False
        self._open = capacity  # How many items there may be for another to be put without waiting.
        self.taken = Signal()
        """Notified when items have been taken, and when the mailbox is closed."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def room(self) -> int:
        """How many items can be put at once; none while putters wait, whose turn comes first."""
        return max(0, self._open - self.items.size)

    @property
    def waiting_getters(self) -> int:
        """How many tasks wait in `get`."""
        return len(self._getters)

    @property
    def waiting_putters(self) -> int:
        """How many tasks wait for room."""
        return len(self._putters)

    def _reckon(self) -> None:
        self._open = 0 if self._putters or self._closed is not None else self.capacity - self._invited

    def put_nowait(self, item: T, priority: int = DEFAULT_PRIORITY) -> T | None:
        """Add an item, or raise QueueFullError; under `drop_oldest` return the item that had to go."""
        if self._closed is not None:
            raise self._closed.again()
        dropped = None
        if self.items.size >= self._open:
            if self.strategy != "drop_oldest":
                raise QueueFullError(self.kernel_id, self.capacity)
            dropped = self.items.pop_lowest()
        self.add(item, priority)
        return dropped

    def offer(self, item: T, priority: int) -> bool:
        """Add an item if there is room, and nobody waits whose turn comes first; whether it was added."""
        items = self.items
        if items.size >= self._open:
            return False
        if priority == items.top_priority:
            items.top.append(item)
            items.size += 1
        else:
            items.push(item, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify()
        return True

    def add(self, item: T, priority: int) -> None:
        """Add an item without a question: for who was told of the room for it, by `wait_for_room`, in this step."""
        self.items.push(item, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify()

    def add_all(self, items: Sequence[T], priority: int) -> None:
        """Likewise, items of one priority."""
        self.items.push_all(items, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify(len(items))

    def put_anyway(self, item: T, priority: int = DEFAULT_PRIORITY, *, front: bool = False) -> None:
        """Add an item even if there is no room: for what was in the mailbox before, or has no other place."""
        (self.items.push_front if front else self.items.push)(item, priority)
        if not self._paused:
            self._getters.notify()

    async def put(self, item: T, priority: int = DEFAULT_PRIORITY, timeout: float | None = None) -> T | None:
        """Add an item as `put_nowait` does; under `block`, wait for room first.

        Raises:
            QueueFullError: there is no room: at once under `reject`, after `timeout` seconds under `block`.
        """
        if self.items.size >= self._open and self.strategy == "block" and self._closed is None:
            await self._wait_for_turn(1, timeout)
            if self._closed is None:
                self.add(item, priority)
                return None
        return self.put_nowait(item, priority)

    async def wait_for_room(self, wanted: int) -> int:
        """Wait until there is room and it is this task's turn; for how many items, up to `wanted`. What is not added in
        this same step, with `add`, is room for others again. Raises why the mailbox is closed, if it is.
        """
        room = self._open - self.items.size
        if room <= 0 and self._closed is None:
            room = await self._wait_for_turn(wanted, None)
        if self._closed is not None:
            raise self._closed.again()
        return min(room, wanted)

    async def _wait_for_turn(self, wanted: int, timeout: float | None) -> int:
        """Wait for this task's turn: there is room then for so many items, kept until it puts, in the same step."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[int] = loop.create_future()
        self._putters[turn] = wanted
        self._open = 0
        timer = None if timeout is None else loop.call_later(max(0.0, timeout), expire, turn)
        try:
            room = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._invited -= turn.result()
                self._invite()  # It cannot put any more: the next one can.
            raise
        finally:
            self._putters.pop(turn, None)
            if timer is not None:
                timer.cancel()
            self._reckon()
        self._invited -= room
        self._reckon()
        if not room and self._closed is None:
            raise QueueFullError(self.kernel_id, self.capacity)
        return room

    def _invite(self) -> None:
        """Tell putters that it is their turn, as many as there is room for."""
        self._inviting = False
        room = self.capacity - self.items.size - self._invited
        while self._putters and room > 0:
            turn = next(iter(self._putters))
            granted = min(self._putters.pop(turn), room)
            if not turn.done():
                turn.set_result(granted)
                self._invited += granted
                room -= granted
        self._reckon()

    def _was_taken(self) -> None:
        """Something was taken. Putters are invited a turn of the loop later, when perhaps more was: so one who wants
        much gets much at once.
        """
        if self._putters and not self._inviting:
            self._inviting = True
            next(iter(self._putters)).get_loop().call_soon(self._invite)
        if self.taken.waiters:
            self.taken.notify_all()

    def get_nowait(self) -> T | None:
        """Take the next item; None if there is none to hand out."""
        items = self.items
        if not items.size or self._paused:
            return None
        item = items.top.popleft()
        items.size -= 1
        if items.others and not items.top:
            items.find_top()
        if self._putters or self.taken.waiters:
            self._was_taken()
        return item

    def remove(self, item: T, priority: int) -> bool:
        """Take this very item out, wherever it is, paused or not; whether it was there."""
        removed = self.items.remove(item, priority)
        if removed:
            self._was_taken()
        return removed

    def remove_all(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take the items of which this is true out, paused or not; returns them, in no particular order."""
        removed = self.items.remove_all(unwanted)
        if removed:
            self._was_taken()
        return removed

    async def get(self, timeout: float | None = None) -> T:
        """Take the next item, waiting for one if need be.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds.
        """
        item = await self.next(timeout)
        if item is None:
            assert timeout is not None
            raise QueueTimeoutError(self.kernel_id, timeout, "receive")
        return item

    async def next(self, timeout: float | None = None) -> T | None:
        """`get`, but None if nothing came within `timeout` seconds."""
        deadline = None if timeout is None else monotonic() + timeout
        while (item := self.get_nowait()) is None:
            if self._closed is not None:
                raise self._closed.again()
            remaining = None if deadline is None else deadline - monotonic()
            if not await wait_any((self._getters,), remaining) and (self._paused or not self.items):
                return None
        return item

    def pause(self) -> None:
        """Hand nothing out from now on."""
        self._paused = True

    def resume(self) -> None:
        """Hand items out again."""
        self._paused = False
        self._getters.notify(len(self.items))

    def close(self, error: PyDotComputeError) -> None:
        """Refuse every `put` and every `get` from now on, those that wait included, with `error`."""
        self._closed = error
        self._paused = True
        self._getters.notify_all()
        for turn in self._putters:
            expire(turn)
        self._putters.clear()
        self._reckon()
        self.taken.notify_all()

    def drain(self) -> list[T]:
        """Take everything, in order, paused and closed or not."""
        items = self.items.pop_all()
        if items:
            self._was_taken()
        return items
