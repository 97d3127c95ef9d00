"""What an actor sees of its kernel, and what it has in hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from time import monotonic
from types import ModuleType
from typing import Any, Generic, TypeVar, cast

from pydotcompute.device.lease import HOST, Device, DeviceLease
from pydotcompute.exceptions import InvalidConfigurationError, KernelNotFoundError, KernelStateError, QueueTimeoutError
from pydotcompute.messages.header import Header, check_header
from pydotcompute.messages.message import door
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.actor.device_arrays import make_ready
from pydotcompute.ring_kernels.actor.forwarding import Receiver, forward
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import FROM_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.gate import OPEN
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.mail.signals import Signal

__all__ = ["KernelContext"]

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class KernelContext(Generic[TIn, TOut]):
    """What an actor sees of its kernel.

    `receive` and `send` are passed by every message; what they need of the mail is in attributes of their own.
    """

    __slots__ = (
        "_batch",
        "_check",
        "_counters",
        "_find",
        "_gate",
        "_handed_in_a_row",
        "_has_just_waited",
        "_in_hand",
        "_inbox",
        "_mail",
        "_most_in_a_row",
        "_replies",
        "idle",
        "kernel_id",
        "lease",
        "output_type",
        "sends_to",
    )

    def __init__(
        self,
        mail: Mail[TIn, TOut],
        output_type: type[TOut] | None,
        *,
        find: Callable[[str], Receiver] | None = None,
        sends_to: DeviceLease | None = None,
        limits: RuntimeLimits = DEFAULT_LIMITS,
    ) -> None:
        """`find(kernel_id)` returns another kernel of the runtime, to which the actor may forward."""
        self.kernel_id = mail.kernel_id
        self.output_type = output_type
        """The message class that the kernel sends, if it was declared with one."""
        self.lease: DeviceLease = HOST
        """What the kernel has of its device, from its launch on."""
        self.sends_to = sends_to
        """What gets what the actor sends; None is anything in this process, where arrays may stay on a device."""
        self.idle = Signal()
        """Notified when the actor has nothing in hand and asks for the next message."""
        self._mail = mail
        self._gate, self._inbox, self._replies, self._counters = mail.gate, mail.inbox, mail.replies, mail.counters
        self._check = door(output_type)  # Without the way of an echo, which is of the input type.
        self._find = find
        self._in_hand: Item[TIn] | None = None
        self._batch: dict[int, Item[TIn]] = {}  # What else is in the actor's hands, by `message_id.int`.
        self._handed_in_a_row = 0
        self._most_in_a_row = limits.in_a_row
        self._has_just_waited = False  # With the actor's last `receive`, in vain: other tasks have run.

    @property
    def is_active(self) -> bool:
        """True while messages are handed out."""
        return self._gate.is_active

    @property
    def should_terminate(self) -> bool:
        """True once the kernel was asked to end: finish what is in hand and return."""
        return self._gate.should_terminate

    @property
    def xp(self) -> ModuleType:
        """The module of the kernel's arrays: CuPy on a GPU, else NumPy."""
        return self.lease.xp

    @property
    def device(self) -> Device:
        """What the kernel computes on."""
        return self.lease.device

    @property
    def stream(self) -> Any:
        """The kernel's own CUDA stream, which is current whenever the actor runs; None on the CPU."""
        return self.lease.stream

    def to_device(self, array: Any) -> Any:
        """An array of `xp` with the elements of this one. What the kernel does with it comes after the copy: there is
        nothing to wait for.
        """
        return self.lease.to_device(array)

    async def to_host(self, array: Any) -> Any:
        """An array of NumPy's with the elements of this one of `xp`, once they are computed."""
        (fetched,) = self.lease.fetch([array])
        if self.lease.on_gpu:
            await self.lease.synchronize()
        return fetched

    async def synchronize(self) -> None:
        """Wait until the device has done all that the kernel has asked of it. Other kernels go on."""
        await self.lease.synchronize()

    async def wait_active(self) -> None:
        """Wait until the kernel is active, or was asked to end."""
        await self._gate.wait_active()

    async def receive(self, timeout: float | None = None) -> TIn:
        """The next message, by priority. Asking for it says that the one before is done with.

        Raises:
            QueueTimeoutError: none came within `timeout` seconds.
            KernelStateError: the kernel was asked to end. An actor may let it pass: that is an orderly end.
        """
        if self._in_hand is not None or self._batch:
            self.complete_all()
        item = self._inbox.get_nowait() if self._handed_in_a_row < self._most_in_a_row else None
        if item is None or (item[2] is not None and self._mail.bury_if_overdue(item)):
            item = await self._next_item(timeout)
        self._handed_in_a_row += 1
        self._in_hand = item
        return item[0]

    async def send(self, message: TOut) -> None:
        """Send a reply, if `message.correlation_id` is a request's `message_id` or `message` is a request itself; else
        an output, which waits for room in the output mailbox, and until the kernel is active.

        Raises:
            MessageTypeError, MessageSerializationError: the message is not of the kernel's output type.
        """
        if self.lease.on_gpu:
            await make_ready(self.lease, message, self.sends_to)
        if self._gate.has_ended:
            raise self._gate.error("send", *OPEN)
        (self._check if message.__class__ is self.output_type else self._mail.check_out)(message)
        header: Any = message
        if header.priority.__class__ is not int or not 0 <= header.priority <= 255:
            check_header(message)
        in_hand = self._in_hand
        if in_hand is None:
            answered = None
            if self._batch:
                self._complete(self._request_of(message))
        else:
            request: Any = in_hand[0]
            answered = request.message_id.int
            named = header.correlation_id
            if named is None or message is request:
                named = header.message_id
            if named.int == answered:
                self._in_hand = None
                self._counters.complete(in_hand[1])
                if self._mail.journal is not None:
                    self._mail.journal.done(request.message_id)
            else:
                answered = None
        if not self._replies.deliver(header, answered):
            await self._send_output(message)

    async def batches(self, *, max_size: int = 256, max_delay: float = 0.002) -> AsyncIterator[Batch[TIn]]:
        """Messages by the batch, until the kernel is asked to end. Asking for the next says that this one is done with.

        A batch is handed out when there are `max_size` messages, or when the first of them has waited for `max_delay`
        seconds since it arrived: so an actor that was busy for longer gets what there is at once.

        Raises:
            InvalidConfigurationError: `max_size` is less than 1, or `max_delay` negative.
        """
        while not self._gate.should_terminate:
            try:
                batch = await self.next_batch(max_size, max_delay)
            except KernelStateError:
                return
            yield batch

    async def next_batch(self, max_size: int, max_delay: float) -> Batch[TIn]:
        """The next of `batches`. KernelStateError if the kernel was asked to end."""
        if max_size < 1:
            raise InvalidConfigurationError("max_size", max_size, "a batch has at least one message")
        if not max_delay >= 0:
            raise InvalidConfigurationError("max_delay", max_delay, "must be a number of seconds, not negative")
        return Batch(self, [item[0] for item in await self._next_items(max_size, max_delay)])

    async def forward(self, kernel_id: str, message: Any) -> None:
        """Hand a request on to another kernel of the same runtime: its reply goes to whoever waits for this one's.

        `message` is the request itself, or another with its `message_id` as `correlation_id`, as a reply has it. The
        other kernel gets a message with the id of the request, its deadline, and, unless it has one of its own, its
        priority. To forward a request is to be done with it. It waits for room in the other's mailbox.

        In a field for CuPy's arrays these stay where they are if the other kernel computes on the same GPU, and are
        computed when it gets them. All others are brought to the host.

        Raises:
            KernelNotFoundError, KernelStateError, KernelFailedError, QueueFullError: of the other kernel.
            MessageTypeError, MessageSerializationError: the message is none for it; or nobody waits for a reply to the
                request; or the request has been at that kernel, and would go round in a circle.
        """
        receiver = self.receiver(kernel_id)
        if self.lease.on_gpu:
            await make_ready(self.lease, message, receiver.lease)
        await self.forward_to(receiver, message)

    def receiver(self, kernel_id: str) -> Receiver:
        """Return the kernel of this id, to which this one may forward. KernelNotFoundError if there is none."""
        if self._find is None:
            raise KernelNotFoundError(kernel_id, [self.kernel_id])
        return self._find(kernel_id)

    async def forward_to(self, receiver: Receiver, message: Any) -> None:
        """`forward` for a message that has nothing on a device for which the receiver would have to wait."""
        key = self._request_of(message)
        await forward(self._mail, receiver, message, key, self._item_in_hand(key))
        self._complete(key)

    def __aiter__(self) -> AsyncIterator[TIn]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[TIn]:
        while not self._gate.should_terminate:
            try:
                message = await self.receive()
            except KernelStateError:
                return
            yield message

    # -- what the actor has in hand ------------------------------------------------------------------------------------

    @property
    def is_idle(self) -> bool:
        """True if the actor has nothing in hand."""
        return self._in_hand is None and not self._batch

    def take_what_is_left(self) -> list[Item[TIn]]:
        """Take what the actor has in hand out of its hands: it has ended."""
        left = list(self._batch.values()) if self._in_hand is None else [self._in_hand, *self._batch.values()]
        self._in_hand = None
        self._batch.clear()
        return left

    def complete_all(self) -> None:
        """The actor is done with everything it has in hand."""
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
        """The `message_id.int` of the request that the actor answers with this: the one that it names, or is itself."""
        key: int = message.message_id.int
        item = self._item_in_hand(key)
        if message.correlation_id is None or (item is not None and item[0] is message):
            return key
        return cast(int, message.correlation_id.int)

    def _item_in_hand(self, key: int) -> Item[TIn] | None:
        """The item in the actor's hands whose message has this `message_id.int`."""
        in_hand = self._in_hand
        if in_hand is not None and cast(Header, in_hand[0]).message_id.int == key:
            return in_hand
        return self._batch.get(key)

    def _complete(self, key: int) -> None:
        """The actor is done with the item in its hands whose message has this `message_id.int`, if there is one."""
        item = self._item_in_hand(key)
        if item is None:
            return
        if item is self._in_hand:
            self._in_hand = None
        else:
            del self._batch[key]
        self._done(item)

    async def _next_items(self, max_size: int, max_delay: float) -> list[Item[TIn]]:
        """The next messages that are not overdue. Only when they are handed out do they leave the mailbox: until then a
        pause holds them, and a more urgent one goes before them.
        """
        self.complete_all()
        if self.idle.waiters:
            self.idle.notify_all()
        await asyncio.sleep(0)
        items: list[Item[TIn]] = []
        while not items:
            try:
                await self._inbox.ripen(max_size, max_delay)
            except KernelStateError:
                raise self._gate.error("receive", *OPEN) from None
            while len(items) < max_size and (item := self._inbox.get_nowait()) is not None:
                if item[2] is None or not self._mail.bury_if_overdue(item):
                    items.append(item)
        for item in items:
            key = cast(Header, item[0]).message_id.int
            # A caller may have sent two of one id: a reply is to the first, and the next batch completes the others.
            self._batch[key if key not in self._batch else -len(self._batch)] = item
        self._counters.handed_batch(len(items))
        return items

    async def _next_item(self, timeout: float | None) -> Item[TIn]:
        """The next message that is not overdue, waiting for it if need be.

        First it lets the other tasks run. An actor may ignore every error and ask again at once; and one that is asked
        by a single caller finds the next request then, and need not wait: 11 µs there and back, instead of 16. Not so
        where the last wait was in vain, for then they have just run.
        """
        deadline = None if timeout is None else monotonic() + timeout
        if self.idle.waiters:
            self.idle.notify_all()
        self._handed_in_a_row = 0
        if self._has_just_waited:
            self._has_just_waited = False
        else:
            await asyncio.sleep(0)
        while True:
            item = self._inbox.get_nowait()
            if item is None:
                try:
                    item = await self._inbox.next(None if deadline is None else deadline - monotonic())
                except KernelStateError:
                    raise self._gate.error("receive", *OPEN) from None
            if item is None:
                assert timeout is not None
                self._has_just_waited = True
                raise QueueTimeoutError(self.kernel_id, timeout, "receive")
            if item[2] is None or not self._mail.bury_if_overdue(item):
                return item

    async def _send_output(self, message: Any) -> None:
        await self._gate.wait_active()
        try:
            await self._mail.outputs.put(message, message.priority)
        except asyncio.CancelledError:
            detail = "the kernel ended while its output mailbox was full"
            self._mail.bury(message, detail, DeadLetterReason.KERNEL_ENDED, FROM_KERNEL)
            raise
        self._replies.wanted.notify()
