"""Mailboxes: the bounded priority queues between a kernel and its callers."""

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

    A call of `next` that is cancelled or times out leaves the item for the next caller. A *putter* is a task that waits
    for room. Putters have their turn in the order in which they came: a putter whose turn has come is *invited*, and
    room is kept for it until it puts. While the mailbox is paused, no item is handed out, not even to a `next` that was
    already waiting.

    Args:
        kernel_id: the id of the kernel, for errors.
        capacity: the most items in the mailbox.
        strategy: the rule for an item that finds the mailbox full.
        paused: True if the mailbox is paused at first.

    Raises:
        InvalidConfigurationError: the capacity is less than 1, or there is no such strategy.
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
        """The items in the mailbox. Hot paths read `items.size`; only the mailbox changes the items."""
        self._paused = paused
        self._closed: PyDotComputeError | None = None
        self._getters = Signal()
        # The putters whose turn has not come yet, in order, each with the number of items that it wants to put.
        self._putters: dict[asyncio.Future[int], int] = {}
        self._invited = 0  # The room, in items, that is kept for invited putters until they put.
        self._inviting = False  # True while a call of `_invite` is scheduled.
        self._lent = 0  # Items that are elsewhere and still take room here.
        self._open = capacity  # An item can be put without waiting while the mailbox holds fewer items than this.
        self.taken = Signal()
        """Notified when items have been taken, and when the mailbox is closed."""

    def __len__(self) -> int:
        return len(self.items)

    @property
    def room(self) -> int:
        """The number of items that can be put without waiting; 0 while putters wait, because their turn comes first."""
        return max(0, self._open - self.items.size)

    @property
    def is_awaited(self) -> bool:
        """True if a task waits for an item."""
        return bool(self._getters.waiters)

    @property
    def waiting_putters(self) -> int:
        """The number of tasks that wait for room."""
        return len(self._putters)

    def _reckon(self) -> None:
        """Compute `_open` anew, after a change of the putters, of the kept room, or of `_closed`."""
        self._open = 0 if self._putters or self._closed is not None else self.capacity - self._invited - self._lent

    def lend(self, count: int) -> None:
        """Let so many more items that are elsewhere take room here; fewer if `count` is negative."""
        self._lent += count
        self._reckon()
        if count < 0:
            self._was_taken()

    def put_nowait(self, item: T, priority: int = DEFAULT_PRIORITY) -> T | None:
        """Add an item without waiting.

        Returns:
            Under `drop_oldest`, the item that was dropped to make room; else None.

        Raises:
            QueueFullError: there is no room, and the strategy is not `drop_oldest`.
            PyDotComputeError: the mailbox is closed; this is the error given to `close`.
        """
        if self._closed is not None:
            raise self._closed.again()
        dropped = None
        if self.items.size >= self._open:
            if not self.backpressure.drops:
                raise QueueFullError(self.kernel_id, self.capacity)
            if self.items.size:  # Else all that takes room is lent.
                dropped = self.items.pop_lowest()
        self.add(item, priority)
        return dropped

    def offer(self, item: T, priority: int) -> bool:
        """Add an item if there is room and no putter waits. Return True if the item was added."""
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
        """Add an item without a check. Call this only after `wait_for_room`, before anything else is awaited."""
        self.items.push(item, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify()

    def add_all(self, items: Sequence[T], priority: int) -> None:
        """Add items of one priority, as `add` does. There must be at least one."""
        self.items.push_all(items, priority)
        if self._getters.waiters and not self._paused:
            self._getters.notify(len(items))

    def put_anyway(self, item: T, priority: int = DEFAULT_PRIORITY, *, front: bool = False) -> None:
        """Add an item even if there is no room.

        This is for an item that was in the mailbox before, or has no other place. With `front`, the item comes before
        all others of its priority.
        """
        (self.items.push_front if front else self.items.push)(item, priority)
        if not self._paused:
            self._getters.notify()

    async def wait_for_item(self, also: Signal) -> None:
        """Wait until an item has come, or `also` is notified. Either may be gone again by then."""
        await wait_any((self._getters, also))

    async def put(self, item: T, priority: int = DEFAULT_PRIORITY, timeout: float | None = None) -> T | None:
        """Add an item as `put_nowait` does. Under `block`, wait for room first.

        Returns:
            Under `drop_oldest`, the item that was dropped to make room; else None.

        Raises:
            QueueFullError: there is no room: raised at once under `reject`, after `timeout` seconds under `block`.
            PyDotComputeError: the mailbox is closed; this is the error given to `close`.
        """
        if self.items.size >= self._open and self.backpressure.waits and self._closed is None:
            await self._wait_for_turn(1, timeout)
            if self._closed is None:
                self.add(item, priority)
                return None
        return self.put_nowait(item, priority)

    async def wait_for_room(self, wanted: int) -> int:
        """Wait until there is room and it is this task's turn.

        The task must call `add` before it awaits anything else. Room that it does not use then is free for others.

        Returns:
            The number of items that the task may add, from 1 to `wanted`.

        Raises:
            PyDotComputeError: the mailbox is closed; this is the error given to `close`.
        """
        room = self._open - self.items.size
        if room <= 0 and self._closed is None:
            room = await self._wait_for_turn(wanted, None)
        if self._closed is not None:
            raise self._closed.again()
        return min(room, wanted)

    async def _wait_for_turn(self, wanted: int, timeout: float | None) -> int:
        """Wait for this task's turn, and return the number of items for which room is kept, at most `wanted`.

        The task must put before it awaits anything else. The result is 0 if the mailbox was closed meanwhile.

        Raises:
            QueueFullError: there was no turn within `timeout` seconds.
        """
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
                self._invite()  # This task will not put: give its room to the next putter.
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
        """Tell as many putters as there is room for that it is their turn."""
        self._inviting = False
        room = self.capacity - self.items.size - self._invited - self._lent
        while self._putters and room > 0:
            turn = next(iter(self._putters))
            granted = min(self._putters.pop(turn), room)
            if not turn.done():
                turn.set_result(granted)
                self._invited += granted
                room -= granted
        self._reckon()

    def _was_taken(self) -> None:
        """Tell the waiting tasks that items were taken.

        Putters are invited one turn of the event loop later. By then more items may have been taken, so that a putter
        that wants much room gets much at once.
        """
        if self._putters and not self._inviting:
            self._inviting = True
            next(iter(self._putters)).get_loop().call_soon(self._invite)
        if self.taken.waiters:
            self.taken.notify_all()

    def get_nowait(self) -> T | None:
        """Take and return the next item; None if there is no item, or the mailbox is paused."""
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
        """Take this very object out, wherever it stands, paused or not. Return True if it was there."""
        removed = self.items.remove(item, priority)
        if removed:
            self._was_taken()
        return removed

    def remove_all(self, unwanted: Callable[[T], bool]) -> list[T]:
        """Take out the items for which `unwanted` returns True, paused or not. Return them, in no particular order."""
        removed = self.items.remove_all(unwanted)
        if removed:
            self._was_taken()
        return removed

    async def next(self, timeout: float | None = None) -> T | None:
        """Wait for the next item, take it and return it. Return None if no item came within `timeout` seconds.

        Raises:
            PyDotComputeError: the mailbox is closed; this is the error given to `close`.
        """
        deadline = None if timeout is None else monotonic() + timeout
        while (item := self.get_nowait()) is None:
            if self._closed is not None:
                raise self._closed.again()
            remaining = None if deadline is None else deadline - monotonic()
            if not await wait_any((self._getters,), remaining) and (self._paused or not self.items):
                return None
        return item

    def pause(self) -> None:
        """Hand out no items from now on."""
        self._paused = True

    def resume(self) -> None:
        """Hand items out again."""
        self._paused = False
        self._getters.notify(len(self.items))

    def close(self, error: PyDotComputeError) -> None:
        """Raise `error` from every `put` and every `next` from now on, including those that wait."""
        self._closed = error
        self._paused = True
        self._getters.notify_all()
        for turn in self._putters:
            expire(turn)
        self._putters.clear()
        self._reckon()
        self.taken.notify_all()

    def drain(self) -> list[T]:
        """Take out every item, and return them in order. The mailbox may be paused or closed."""
        items = self.items.pop_all()
        if items:
            self._was_taken()
        return items
