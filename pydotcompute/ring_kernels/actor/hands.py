"""What an actor has in its hands, and how it takes the next message.

A message is *in hand*, or in the actor's hands, from the moment that `receive` or `batches` hands it out. It is *done*,
or complete, when the actor answers it, forwards it, asks for the next one, or returns.
"""

from __future__ import annotations

import asyncio
from time import monotonic, perf_counter_ns
from typing import Any, Generic, TypeVar, cast

from pydotcompute.exceptions import PyDotComputeError, QueueTimeoutError
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.actor.room import ENDLESS, FIRST_ROW, SLOW_NS, Room
from pydotcompute.ring_kernels.limits import RuntimeLimits
from pydotcompute.ring_kernels.mail.gate import OPEN
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any

__all__ = ["ActorHands"]

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class ActorHands(Generic[TIn, TOut]):
    """The hands of one actor.

    Every message passes through them. For speed, the parts of the mail that they use are attributes.

    Args:
        mail: the kernel's mail.
        limits: the limits of the runtime.
    """

    __slots__ = (
        "_batch",
        "_batch_ns",
        "_counters",
        "_gate",
        "_handed_in_a_row",
        "_has_just_waited",
        "_in_a_row",
        "_in_hand",
        "_inbox",
        "_mail",
        "_most_in_a_row",
        "_row_ns",
        "_stuck",
        "_stuck_ns",
        "idle",
        "kernel_id",
        "room",
    )

    def __init__(self, mail: Mail[TIn, TOut], limits: RuntimeLimits) -> None:
        self.kernel_id = mail.kernel_id
        self.idle = Signal()
        """Notified when the actor has nothing in hand and asks for the next message."""
        self.room: Room = ENDLESS
        """The room for what the actor sends."""
        self._mail = mail
        self._gate, self._inbox, self._counters = mail.gate, mail.inbox, mail.counters
        self._in_hand: Item[TIn] | None = None
        self._batch: dict[int, Item[TIn]] = {}  # The batch in the actor's hands, by `message_id.int`.
        self._batch_ns = 0  # When the batch was handed out, in nanoseconds of `perf_counter_ns`.
        self._stuck = 0  # How many tasks of the actor wait for room in the output mailbox, or for what they send.
        self._stuck_ns = 0  # Since when one of them waits without a break.
        mail.delays.hands = self
        self._handed_in_a_row = 0
        self._most_in_a_row = limits.in_a_row
        self._in_a_row = min(FIRST_ROW, limits.in_a_row)  # As many as the actor handles in a short time.
        self._row_ns = perf_counter_ns()  # When the last row was done.
        self._has_just_waited = False  # The last `receive` timed out: other tasks have run.

    @property
    def is_idle(self) -> bool:
        """True if the actor has nothing in hand."""
        return self._in_hand is None and not self._batch

    def instances(self) -> tuple[object, ...]:
        """Return what takes messages: this actor."""
        return (self,)

    def holder(self, key: int) -> object | None:
        """Return this actor if the request of this `message_id.int` is in hand, else None."""
        return None if self._item_in_hand(key) is None else self

    @property
    def seconds_in_hand(self) -> float:
        """The seconds that the actor has had in hand what it works on, at most; 0 if it has nothing in hand.

        When a single message was taken is not noted, because that would cost every message. It was taken after it had
        arrived, after the actor was done with the one before, and after the last pause.
        """
        in_hand = self._in_hand
        if in_hand is not None:
            taken = max(in_hand[1], self._counters.completed_ns, self._gate.entered_ns)
        elif self._batch:
            taken = self._batch_ns
        else:
            return 0.0
        return max(0, perf_counter_ns() - taken) / 1e9

    @property
    def seconds_in_send(self) -> float | None:
        """The seconds that the actor has waited in `send` for room in the output mailbox; None if it does not wait."""
        return max(0, perf_counter_ns() - self._stuck_ns) / 1e9 if self._stuck else None

    @property
    def deliveries(self) -> int:
        """How often the message in hand was given to the actor, with this time: 1, unless the actor has failed with it.

        0 if there is not exactly one message in hand. See `redelivered`.
        """
        item = self._in_hand
        if item is None:
            if len(self._batch) != 1:
                return 0
            (item,) = self._batch.values()
        return 1 if item[2] is None else 1 + item[2].deliveries

    @property
    def redelivered(self) -> bool:
        """True if the actor had the message in hand before, and failed. Nobody knows how far it had got then.

        Only a kernel with `on_crash="redeliver"` gives messages again. Such a message comes alone, also as a batch.
        """
        return self.deliveries > 1

    def take_what_is_left(self) -> list[Item[TIn]]:
        """Remove and return the items in hand. Called when the actor has ended."""
        left = list(self._batch.values()) if self._in_hand is None else [self._in_hand, *self._batch.values()]
        self._in_hand = None
        self._batch.clear()
        return left

    def complete_all(self) -> None:
        """Complete every message in hand: count it, and tell the journal that it is done."""
        in_hand, self._in_hand = self._in_hand, None
        if in_hand is not None:
            self._done(in_hand)
        if self._batch:
            for item in self._batch.values():
                self._done(item)
            self._batch.clear()

    def _done(self, item: Item[TIn]) -> None:
        self._counters.complete(item[1])
        if self._mail.journal is not None:
            self._mail.journal.done(cast(Header, item[0]).message_id)

    def _request_of(self, message: Any) -> int:
        """Return the `message_id.int` of the request that `message` answers: the one it names, or `message` itself."""
        key: int = message.message_id.int
        item = self._item_in_hand(key)
        if message.correlation_id is None or (item is not None and item[0] is message):
            return key
        return cast(int, message.correlation_id.int)

    def _item_in_hand(self, key: int) -> Item[TIn] | None:
        """Return the item in hand whose message has this `message_id.int`; None if there is none."""
        in_hand = self._in_hand
        if in_hand is not None and cast(Header, in_hand[0]).message_id.int == key:
            return in_hand
        return self._batch.get(key)

    def _complete(self, key: int) -> None:
        """Complete the item in hand whose message has this `message_id.int`, if there is one."""
        item = self._item_in_hand(key)
        if item is None:
            return
        if item is self._in_hand:
            self._in_hand = None
        else:
            del self._batch[key]
        self._done(item)

    async def _next_items(self, max_size: int, max_delay: float) -> list[Item[TIn]]:
        """Wait for the next batch, and return its items. Overdue messages are left out.

        Messages stay in the mailbox until the batch is handed out. So until then a pause holds them back, and a more
        urgent message overtakes them.
        """
        self.complete_all()
        self._counters.mark()
        if self.idle.waiters:
            self.idle.notify_all()
        await asyncio.sleep(0)
        if perf_counter_ns() >= self.room.look_ns:
            await self._wait_for_room()
        items: list[Item[TIn]] = []
        while not items:
            try:
                await self._inbox.ripen(max_size, max_delay)
            except PyDotComputeError:  # The mailbox is closed, with the error for callers.
                raise self._gate.state_error("receive", *OPEN) from None
            if self._inbox.suspects:
                max_size = 1
            while len(items) < max_size and (item := self._inbox.get_nowait()) is not None:
                if item[2] is None or not self._mail.bury_if_overdue(item):
                    items.append(item)
        for item in items:
            key = cast(Header, item[0]).message_id.int
            # A caller may have sent two messages of one id. A reply completes the first, the next batch the others.
            self._batch[key if key not in self._batch else -len(self._batch)] = item
        self._batch_ns = perf_counter_ns()
        self._counters.handed_batch(len(items))
        return items

    async def _next_item(self, timeout: float | None) -> Item[TIn]:
        """Wait for the next message that is not overdue, and return its item.

        First the other tasks run once, for two reasons. An actor that ignores every error and asks again at once must
        not block the loop. And an actor with a single caller then finds the next request without a wait: 11 µs for a
        request and its reply instead of 16. This step is left out if the last wait timed out, because the other tasks
        have just run.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self._counters.completed_ns >= self._counters.due_ns:
            self._counters.mark()
        if self.idle.waiters:
            self.idle.notify_all()
        done = self._counters.completed_ns
        if self._handed_in_a_row >= self._in_a_row:
            self._measure_row(done - self._row_ns)
        self._row_ns = done
        if done >= self.room.look_ns:
            await self._wait_for_room(deadline)
        self._handed_in_a_row = 0
        if self._has_just_waited:
            self._has_just_waited = False
        else:
            await asyncio.sleep(0)
        while True:
            item = self._inbox.get_nowait()
            if item is None:
                self._counters.mark()
                try:
                    item = await self._inbox.next(None if deadline is None else deadline - monotonic())
                except PyDotComputeError:  # The mailbox is closed, with the error for callers.
                    raise self._gate.state_error("receive", *OPEN) from None
            if item is None:
                assert timeout is not None
                self._has_just_waited = True
                raise QueueTimeoutError(self.kernel_id, timeout, "receive")
            if item[2] is None or not self._mail.bury_if_overdue(item):
                return item

    def _measure_row(self, took: int) -> None:
        """Hand fewer messages in a row to an actor that takes long for them, and more to one that does not.

        Other tasks have their turn only between the rows.

        Args:
            took: the nanoseconds that the last row took.
        """
        if took > SLOW_NS:
            self._in_a_row = max(1, self._in_a_row * SLOW_NS // took)
        else:
            self._in_a_row = min(2 * self._in_a_row, self._most_in_a_row)

    async def _wait_for_room(self, deadline: float | None = None) -> None:
        """Wait until there is room for what the actor sends, but not beyond the deadline, or the end of the kernel."""
        room = self.room
        if not room.is_lacking(self.kernel_id):
            return
        if not self._stuck:
            self._stuck_ns = perf_counter_ns()
        self._stuck += 1
        try:
            while room.is_lacking(self.kernel_id) and not self._gate.should_terminate:
                left = None if deadline is None else deadline - monotonic()
                if left is not None and left <= 0:
                    return
                await wait_any((room.freed(), self._gate.closing), left)
        finally:
            self._stuck -= 1
