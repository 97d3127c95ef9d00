"""The bounded priority queue between a kernel and the world."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Generic, TypeVar

from pydotcompute.exceptions import (
    InvalidConfigurationError,
    PyDotComputeError,
    QueueFullError,
)
from pydotcompute.messages.header import DEFAULT_PRIORITY
from pydotcompute.ring_kernels.config import BackpressureStrategy, backpressure_of
from pydotcompute.ring_kernels.mail.priority_queue import PriorityQueue
from pydotcompute.ring_kernels.mail.signals import Signal, expire, wait_any

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A bounded priority queue with waiting at both ends, for the tasks of one event loop.

    A `next` that is cancelled or times out leaves the item for the one after it. Waiting putters are served in the
    order in which they came. While `paused`, nothing is handed out, also not to a `next` that was waiting already.
    """

    def __init__(
        self, kernel_id: str, capacity: int, strategy: BackpressureStrategy = "block", *, paused: bool = False
    ) -> None:
        if capacity < 1:
            raise InvalidConfigurationError("queue_size", capacity, "a mailbox holds at least one message")
        self.kernel_id = kernel_id
        self.capacity = capacity
        self.backpressure = backpressure_of(strategy)
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
            if not self.backpressure.drops:
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
        if self.items.size >= self._open and self.backpressure.waits and self._closed is None:
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

    async def next(self, timeout: float | None = None) -> T | None:
        """Take the next item, waiting for one if need be; None if nothing came within `timeout` seconds."""
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
        """Refuse every `put` and every `next` from now on, those that wait included, with `error`."""
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
