"""The bounded priority queue between a kernel and the world."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, Literal, TypeVar, get_args

from pydotcompute.exceptions import InvalidConfigurationError, PyDotComputeError, QueueFullError, QueueTimeoutError
from pydotcompute.ring_kernels.message import DEFAULT_PRIORITY
from pydotcompute.ring_kernels.waiting import Signal

__all__ = ["BackpressureStrategy", "Mailbox", "PriorityQueue"]

BackpressureStrategy = Literal["block", "reject", "drop_oldest"]

T = TypeVar("T")


class PriorityQueue(Generic[T]):
    """Items by priority, 0 to 255, higher first; inside one priority first in, first out. Every operation takes constant time.

    One queue for each priority in use, and an integer whose bits tell which of them hold anything.
    """

    __slots__ = ("_in_use", "_queues", "_size")

    def __init__(self) -> None:
        self._queues: dict[int, deque[T]] = {}
        self._in_use = 0
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Add an item behind those of its priority."""
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = deque()
        if not queue:
            self._in_use |= 1 << priority
        queue.append(item)
        self._size += 1

    def push_front(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Give an item back that was popped: it is the next of its priority."""
        self.push(item, priority)
        self._queues[priority].rotate(1)

    def pop(self) -> T:
        """Remove the first item of the highest priority. IndexError if there is none."""
        return self._take(self._in_use.bit_length() - 1)

    def pop_lowest(self) -> T:
        """Remove the oldest item of the lowest priority. IndexError if there is none."""
        return self._take((self._in_use & -self._in_use).bit_length() - 1)

    def _take(self, priority: int) -> T:
        if priority < 0:
            raise IndexError("pop from an empty queue")
        queue = self._queues[priority]
        item = queue.popleft()
        self._size -= 1
        if not queue:
            self._in_use ^= 1 << priority
        return item


class Mailbox(Generic[T]):
    """A bounded priority queue with waiting at both ends, for the tasks of one event loop.

    A cancelled or timed-out `get` leaves the item where the next `get` finds it. Waiting putters are served in the order in
    which they came. While `paused`, nothing is handed out, also not to a `get` that was waiting already.
    """

    def __init__(self, kernel_id: str, capacity: int, strategy: BackpressureStrategy = "block", *, paused: bool = False) -> None:
        if capacity < 1:
            raise InvalidConfigurationError("queue_size", capacity, "a mailbox holds at least one message")
        if strategy not in get_args(BackpressureStrategy):
            raise InvalidConfigurationError("backpressure_strategy", strategy, f"choose {', '.join(get_args(BackpressureStrategy))}")
        self.kernel_id = kernel_id
        self.capacity = capacity
        self.strategy = strategy
        self._items: PriorityQueue[T] = PriorityQueue()
        self._paused = paused
        self._closed: PyDotComputeError | None = None
        self._getters = Signal()
        self._putters = Signal()
        self._waiting_putters = 0
        self.taken = Signal()
        """Notified when items have been taken, and when the mailbox is closed."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def room(self) -> int:
        """How many items can be put at once; none while putters wait, whose turn comes first."""
        return 0 if self._waiting_putters else max(0, self.capacity - len(self._items))

    @property
    def waiting_getters(self) -> int:
        """How many tasks wait in `get`."""
        return len(self._getters)

    def put_nowait(self, item: T, priority: int = DEFAULT_PRIORITY) -> T | None:
        """Add an item, or raise QueueFullError; under `drop_oldest` return the item that had to go."""
        if self._closed is not None:
            raise self._closed
        dropped = None
        if len(self._items) >= self.capacity or self._waiting_putters:
            if self.strategy != "drop_oldest":
                raise QueueFullError(self.kernel_id, self.capacity)
            dropped = self._items.pop_lowest()
        self._push(item, priority)
        return dropped

    def _push(self, item: T, priority: int) -> None:
        self._items.push(item, priority)
        if self._getters and not self._paused:
            self._getters.notify()

    def put_anyway(self, item: T, priority: int = DEFAULT_PRIORITY, *, front: bool = False) -> None:
        """Add an item even if there is no room: for what was in the mailbox before, or has no other place."""
        (self._items.push_front if front else self._items.push)(item, priority)
        if not self._paused:
            self._getters.notify()

    async def put(self, item: T, priority: int = DEFAULT_PRIORITY, timeout: float | None = None) -> T | None:
        """Add an item as `put_nowait` does; under `block`, wait for room first.

        Raises:
            QueueFullError: there is no room: at once under `reject`, after `timeout` seconds under `block`.
        """
        if self.strategy == "block" and not self.room and self._closed is None:
            await self._wait_for_room(timeout)
            if self._closed is None:
                self._push(item, priority)
                return None
        return self.put_nowait(item, priority)

    async def _wait_for_room(self, timeout: float | None) -> None:
        """Wait for this task's turn and for room, which is this task's if it puts in the same step."""
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        self._waiting_putters += 1
        try:
            while True:
                woken = await self._putters.wait(None if deadline is None else deadline - loop.time())
                if self._closed is not None or len(self._items) < self.capacity:
                    return
                if not woken:
                    raise QueueFullError(self.kernel_id, self.capacity)
        finally:
            self._waiting_putters -= 1
            if len(self._items) + 1 < self.capacity:
                self._putters.notify()

    def get_nowait(self) -> T | None:
        """Take the next item; None if there is none to hand out."""
        if self._paused or not self._items:
            return None
        item = self._items.pop()
        if self._putters:
            self._putters.notify()
        if self.taken:
            self.taken.notify_all()
        return item

    async def get(self, timeout: float | None = None) -> T:
        """Take the next item, waiting for one if need be.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds.
        """
        deadline = None if timeout is None else asyncio.get_running_loop().time() + timeout
        while (item := self.get_nowait()) is None:
            if self._closed is not None:
                raise self._closed
            remaining = None if deadline is None else deadline - asyncio.get_running_loop().time()
            if not await self._getters.wait(remaining) and (self._paused or not self._items):
                assert timeout is not None
                raise QueueTimeoutError(self.kernel_id, timeout, "receive")
        return item

    def pause(self) -> None:
        """Hand nothing out from now on."""
        self._paused = True

    def resume(self) -> None:
        """Hand items out again."""
        self._paused = False
        self._getters.notify(len(self._items))

    def close(self, error: PyDotComputeError) -> None:
        """Refuse every `put` and every `get` from now on, those that wait included, with `error`."""
        self._closed = error
        self._paused = True
        self._getters.notify_all()
        self._putters.notify_all()
        self.taken.notify_all()

    def drain(self) -> list[T]:
        """Take everything, in order, paused and closed or not."""
        return [self._items.pop() for _ in range(len(self._items))]
