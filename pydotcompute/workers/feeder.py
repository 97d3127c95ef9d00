"""Hands the messages of a kernel on to its instances, ahead of their actors."""

from __future__ import annotations

from math import inf
from time import monotonic, perf_counter_ns
from typing import Any

from pydotcompute.exceptions import MessageError
from pydotcompute.ring_kernels.actor.room import ENDLESS
from pydotcompute.ring_kernels.kernel import RingKernel
from pydotcompute.ring_kernels.mail.dead_letters import TO_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import wait_any
from pydotcompute.wire.exchange.batches import Packed
from pydotcompute.wire.worker.frames import Handed, packed
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
        """Hand on what the workers take. Return True if they would take more."""
        items = self._inbox.items
        handed: dict[Instance, tuple[Entries, list[Packed]]] = {}
        takes_more = True
        while items.size:
            instance = self._next_instance(items.top_priority)
            if instance is None:
                takes_more = False
                break
            item = self._inbox.get_nowait()
            if item is None:  # The mailbox is paused.
                break
            message = self._encoded(item, instance)
            if message is None:
                continue
            self._sequence += 1
            deadline = inf if item[2] is None or item[2].deadline is None else item[2].deadline
            entry = instance.ledger.hand(item, self._sequence, message[2], len(message[0]), deadline)
            self._inbox.lend(1)
            entries, messages = handed.setdefault(instance, ([], []))
            entries.append(entry)
            messages.append(message)
            if len(entries) >= AT_ONCE:
                self._send(instance, *handed.pop(instance))
        for instance, (entries, messages) in handed.items():
            self._send(instance, entries, messages)
        if len(self._instances.members) > 1 and not items.size and self._instances.is_active:
            self._share()
        return takes_more

    def _share(self) -> None:
        """If an actor has nothing to do, call back what waits behind the messages that others have in hand."""
        if any(instance.is_free for instance in self._instances.members):
            for instance in self._instances.members:
                if instance.is_ready and instance.ledger.in_hand and instance.ledger.ahead:
                    instance.call_back()

    def _next_instance(self, priority: int) -> Instance | None:
        """Return the worker that takes a message of this priority and has least to do; None if there is none."""
        able = [each for each in self._instances.members if each.takes(priority)]
        if len(able) <= 1:
            return able[0] if able else None
        return min(able, key=lambda each: len(each.ledger.ahead) + len(each.ledger.in_hand))

    def _encoded(self, item: Item[Any], instance: Instance) -> Packed | None:
        """Return the message of an item as a frame takes it; None if it is overdue, or cannot be encoded."""
        message, _, terms = item
        if terms is not None and terms.deadline is not None and terms.deadline <= monotonic():
            self._mail.bury_if_overdue(item)
            return None
        types = instance.types
        correlation_id = message.correlation_id
        try:
            body = types.of_input.encode(message)
        except MessageError as error:
            if terms is not None:
                self._inbox.left(terms)
            self._mail.bury(message, str(error), DeadLetterReason.UNDELIVERABLE, TO_KERNEL)
            self._mail.replies.fail(message.message_id, error)
            return None
        correlation = None if correlation_id is None else correlation_id.int
        return packed(body, message.message_id.int, message.priority, correlation, 0)

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
