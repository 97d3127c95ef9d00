"""The bounded priority queue between a kernel and the world."""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import Generic, Literal, TypeVar, get_args

from pydotcompute.exceptions import (
    InvalidConfigurationError,
    PyDotComputeError,
    QueueFullError,
    QueueTimeoutError,
)
from pydotcompute.ring_kernels.message import DEFAULT_PRIORITY
from pydotcompute.ring_kernels.waiting import Signal, expire

__all__ = ["BackpressureStrategy", "Mailbox", "PriorityQueue"]

BackpressureStrategy = Literal["block", "reject", "drop_oldest"]

T = TypeVar("T")


class PriorityQueue(Generic[T]):
    """Items by priority, 0 to 255, higher first; inside one priority first in, first out. Every operation takes
    constant time.

    One queue for each priority in use, and an integer whose bits tell which of them hold anything.
    """

    __slots__ = ("in_use", "queues", "size")

    def __init__(self) -> None:
        # Public for `Mailbox.offer` and `Mailbox.get_nowait`, which every message passes: there, `push` and `pop` are
        # written out, for two calls less are 3 percent of a whole request and reply.
        self.queues: dict[int, deque[T]] = {}
        self.in_use = 0
        self.size = 0
        """How many items there are: `len()` at the cost of an attribute."""

    def __len__(self) -> int:
        return self.size

    def push(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Add an item behind those of its priority."""
        try:
            queue = self.queues[priority]
        except KeyError:
            queue = self.queues[priority] = deque()
        if not queue:
            self.in_use |= 1 << priority
        queue.append(item)
        self.size += 1

    def push_front(self, item: T, priority: int = DEFAULT_PRIORITY) -> None:
        """Give an item back that was popped: it is the next of its priority."""
        self.push(item, priority)
        self.queues[priority].rotate(1)

    def pop(self) -> T:
        """Remove the first item of the highest priority. IndexError if there is none."""
        if not self.size:
            raise IndexError("pop from an empty queue")
        priority = self.in_use.bit_length() - 1
        queue = self.queues[priority]
        self.size -= 1
        item = queue.popleft()
        if not queue:
            self.in_use ^= 1 << priority
        return item

    def pop_lowest(self) -> T:
        """Remove the oldest item of the lowest priority. IndexError if there is none."""
        if not self.size:
            raise IndexError("pop from an empty queue")
        priority = (self.in_use & -self.in_use).bit_length() - 1
        queue = self.queues[priority]
        self.size -= 1
        item = queue.popleft()
        if not queue:
            self.in_use ^= 1 << priority
        return item


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
        self._putters: dict[asyncio.Future[bool], None] = {}  # Those whose turn has not come yet, in order.
        self._invited = 0  # Those whose turn has come and who have not put yet: room is kept for them.
        self.taken = Signal()
        """Notified when items have been taken, and when the mailbox is closed."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def room(self) -> int:
        """How many items can be put at once; none while putters wait, whose turn comes first."""
        return 0 if self._putters else max(0, self.capacity - self.items.size - self._invited)

    @property
    def waiting_getters(self) -> int:
        """How many tasks wait in `get`."""
        return len(self._getters)

    def put_nowait(self, item: T, priority: int = DEFAULT_PRIORITY) -> T | None:
        """Add an item, or raise QueueFullError; under `drop_oldest` return the item that had to go."""
        if self._closed is not None:
            raise self._closed.again()
        dropped = None
        if self.items.size + self._invited >= self.capacity or self._putters:
            if self.strategy != "drop_oldest":
                raise QueueFullError(self.kernel_id, self.capacity)
            dropped = self.items.pop_lowest()
        self._push(item, priority)
        return dropped

    def offer(self, item: T, priority: int) -> bool:
        """Add an item if there is room, and nobody waits whose turn comes first; whether it was added."""
        items = self.items
        if items.size + self._invited >= self.capacity or self._putters or self._closed is not None:
            return False
        try:
            queue = items.queues[priority]
        except KeyError:
            queue = items.queues[priority] = deque()
        if not queue:
            items.in_use |= 1 << priority
        queue.append(item)
        items.size += 1
        if self._getters.waiters and not self._paused:
            self._getters.notify()
        return True

    def _push(self, item: T, priority: int) -> None:
        self.items.push(item, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify()

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
        full = self.items.size + self._invited >= self.capacity or self._putters
        if full and self.strategy == "block" and self._closed is None:
            await self._wait_for_turn(timeout)
            if self._closed is None:
                self._push(item, priority)
                return None
        return self.put_nowait(item, priority)

    async def _wait_for_turn(self, timeout: float | None) -> None:
        """Wait for this task's turn: there is room then, kept for it until it puts, which it does in the same step."""
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        self._putters[turn] = None
        timer = None if timeout is None else loop.call_later(max(0.0, timeout), expire, turn)
        try:
            invited = await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.result():
                self._invited -= 1
                self._invite()  # It cannot put any more: the next one can.
            raise
        finally:
            self._putters.pop(turn, None)
            if timer is not None:
                timer.cancel()
        if invited:
            self._invited -= 1
        elif self._closed is None:
            raise QueueFullError(self.kernel_id, self.capacity)

    def _invite(self) -> None:
        """Tell putters that it is their turn, as many as there is room for."""
        while self._putters and self.items.size + self._invited < self.capacity:
            turn = next(iter(self._putters))
            del self._putters[turn]
            if not turn.done():
                turn.set_result(True)
                self._invited += 1

    def get_nowait(self) -> T | None:
        """Take the next item; None if there is none to hand out."""
        items = self.items
        if self._paused or not items.size:
            return None
        priority = items.in_use.bit_length() - 1
        queue = items.queues[priority]
        item = queue.popleft()
        if not queue:
            items.in_use ^= 1 << priority
        items.size -= 1
        if self._putters:
            self._invite()
        if self.taken.waiters:
            self.taken.notify_all()
        return item

    async def get(self, timeout: float | None = None) -> T:
        """Take the next item, waiting for one if need be.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while (item := self.get_nowait()) is None:
            if self._closed is not None:
                raise self._closed.again()
            remaining = None if deadline is None else deadline - monotonic()
            if not await self._getters.wait(remaining) and (self._paused or not self.items):
                assert timeout is not None
                raise QueueTimeoutError(self.kernel_id, timeout, "receive")
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
        self.taken.notify_all()

    def drain(self) -> list[T]:
        """Take everything, in order, paused and closed or not."""
        return [self.items.pop() for _ in range(len(self.items))]
