"""Hands the messages of a kernel on to its instances, ahead of their actors."""

from __future__ import annotations

from math import inf
from time import monotonic, perf_counter_ns
from typing import Any

from pydotcompute.exceptions import MessageError
from pydotcompute.messages.raw import Raw
from pydotcompute.ring_kernels.actor.room import ENDLESS
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import TO_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.wire.exchange.batches import Packed
from pydotcompute.wire.worker.frames import Handed, packed
from pydotcompute.wire.worker.memory import LONG
from pydotcompute.workers.instance import Instance
from pydotcompute.workers.instances import Entries, Instances

__all__ = ["Feeder"]

AT_ONCE = 1_024
"""The most messages in one frame."""


class Feeder:
    """Hands the messages of a kernel on to its instances, ahead of their actors.

    Args:
        kernel: the kernel.
        instances: its instances.
    """

    def __init__(self, kernel: RingKernel[Any, Any], instances: Instances) -> None:
        self._kernel, self._mail, self._inbox = kernel, kernel.mail, kernel.mail.inbox
        self._instances = instances
        self._sequence = 0
        self.room = ENDLESS
        """The room for what the actors send."""

    async def feed(self) -> None:
        """Hand messages on, whenever there are some and a worker takes them."""
        while True:
            if perf_counter_ns() >= self.room.look_ns and self.room.is_lacking(self._kernel.kernel_id):
                await wait_any((self.room.freed(), self._instances.changed))
            elif self._hand_on():
                await self._inbox.wait_for_item(self._instances.changed)
            else:
                await self._instances.changed.wait()

    def _hand_on(self) -> bool:
        """Hand on what the workers take. Return True if they would take more.

        A message that is given again goes alone to an actor with nothing else: it may be the one that makes it fail.
        """
        items = self._inbox.items
        handed: dict[Instance, tuple[Entries, list[Packed]]] = {}
        takes_more = True
        suspects = self._inbox.suspects
        is_alone = len(self._instances.members) == 1
        while items.size:
            if suspects and (deliveries := _deliveries(items.top[0])):
                instance = next((each for each in self._instances.members if each.is_free), None)
            else:
                deliveries = 0
                instance = self._next_instance(items.top_priority)
            if instance is None:
                takes_more = False
                break
            row = handed.get(instance)
            if row is None:
                row = handed[instance] = ([], [])
            most = min(AT_ONCE - len(row[0]), instance.ledger.room) if is_alone and not suspects else 1
            # One that is more urgent than what is ahead goes although there is no room.
            if not self._hand_some(instance, row, max(1, most), deliveries):
                break
            if len(row[0]) >= AT_ONCE:
                self._send(instance, *handed.pop(instance))
        for instance, (entries, messages) in handed.items():
            if entries:
                self._send(instance, entries, messages)
        if len(self._instances.members) > 1 and not items.size and self._instances.is_active:
            self._share()
        return takes_more

    def _hand_some(self, instance: Instance, row: tuple[Entries, list[Packed]], most: int, deliveries: int) -> bool:
        """Add up to `most` messages of one priority to what is handed to an instance.

        If the actor has had the message before, `deliveries` says how often, and the message goes alone. Return False
        if the mailbox hands out none.
        """
        items, ledger, get = self._inbox.items, instance.ledger, self._inbox.get_nowait
        entries, messages = row
        priority, left = items.top_priority, ledger.room_bytes
        while most > 0 and items.size and items.top_priority == priority:
            item = get()
            if item is None:  # The mailbox is paused.
                return False
            message = self._encoded(item, instance)
            if message is None:
                return True
            self._sequence += 1
            deadline = inf if item[2] is None or item[2].deadline is None else item[2].deadline
            entry = ledger.hand(item, self._sequence, message[2], len(message[0]), deadline)
            if deliveries:
                instance.gets_alone(entry, deliveries)
            entries.append(entry)
            messages.append(message)
            most -= 1
            left -= len(message[0])
            if left <= 0:
                break
        return True

    def _share(self) -> None:
        """If an actor has nothing to do, call back what waits behind the messages that others have in hand."""
        if any(instance.is_free for instance in self._instances.members):
            for instance in self._instances.members:
                if instance.is_ready and instance.ledger.ahead and (instance.ledger.in_hand or instance.calls):
                    instance.call_back()

    def _next_instance(self, priority: int) -> Instance | None:
        """Return the worker that takes a message of this priority and has least to do; None if there is none."""
        members = self._instances.members
        if len(members) == 1:
            alone = members[0]
            return alone if alone.takes(priority) and not alone.has_enough(priority) else None
        able = [each for each in members if each.takes(priority)]
        if len(able) <= 1:
            return able[0] if able else None
        return min(able, key=lambda each: len(each.ledger.ahead) + len(each.ledger.in_hand) + len(each.calls))

    def _encoded(self, item: Item[Any], instance: Instance) -> Packed | None:
        """Return the message of an item as a frame takes it; None if it is overdue, or cannot be encoded."""
        message, _, terms = item
        if terms is not None and terms.deadline is not None and terms.deadline <= monotonic():
            self._mail.bury_if_overdue(item)
            return None
        types = instance.types
        correlation_id = message.correlation_id
        try:
            if isinstance(message, Raw):
                body = instance.memory.place(message.body)
            else:
                body = instance.memory.encode(message, types.input_index)
        except MessageError as error:
            if terms is not None:
                self._inbox.left(terms)
            self._mail.bury(message, str(error), DeadLetterReason.UNDELIVERABLE, TO_KERNEL)
            self._mail.replies.fail(message.message_id, error)
            return None
        if len(body) > LONG:
            instance.share_memory()
        correlation = None if correlation_id is None else correlation_id.int
        return packed(body, message.message_id.int, message.priority, correlation, types.input_index)

    def _send(self, instance: Instance, entries: Entries, messages: list[Packed]) -> None:
        replies = self._mail.replies
        keys = [message[1] for message in messages]
        frame = Handed(
            [entry.sequence for entry in entries],
            messages,
            [entry.slot for entry in entries],
            [entry.item[1] for entry in entries],
            [entry.deadline for entry in entries],
            [2 if replies.is_asked(key) else int(replies.is_awaited(key)) for key in keys],
            [replies.principal_of(key) for key in keys],
        )
        assert instance.process is not None
        self._inbox.lend(len(entries))
        instance.process.send(frame)
        instance.handed()

    async def make_room(self) -> None:
        """Tell the workers when outputs were received, so that their actors may send more."""
        outputs = self._mail.outputs
        while True:
            await wait_any((outputs.taken,))
            room = sum(instance.outputs for instance in self._instances.members) - len(outputs)
            for instance in self._instances.members:
                if (count := min(room, instance.outputs)) > 0:
                    instance.outputs -= count
                    room -= count
                    instance.tell("room", outputs=count)


def _deliveries(item: Item[Any]) -> int:
    """Return how often the actor has had the message of an item already; see `Terms`."""
    return 0 if item[2] is None else item[2].deliveries
