"""The context of an actor: how it receives and sends. What it has in hand is told in `hands`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from time import perf_counter_ns
from types import ModuleType
from typing import Any, TypeVar, cast

from pydotcompute.device.lease import HOST, Device, DeviceLease
from pydotcompute.exceptions import InvalidConfigurationError, KernelNotFoundError, KernelStateError
from pydotcompute.messages.header import Header, check_header
from pydotcompute.messages.message import door
from pydotcompute.messages.raw import opened
from pydotcompute.ring_kernels.actor.asking import Asker
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.actor.device_arrays import make_ready
from pydotcompute.ring_kernels.actor.forwarding import Receiver
from pydotcompute.ring_kernels.actor.hands import ActorHands
from pydotcompute.ring_kernels.limits import DEFAULT_LIMITS, RuntimeLimits
from pydotcompute.ring_kernels.mail.dead_letters import FROM_KERNEL, DeadLetterReason
from pydotcompute.ring_kernels.mail.gate import OPEN
from pydotcompute.ring_kernels.mail.mail import Mail

__all__ = ["KernelContext"]

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")

logger = logging.getLogger(__name__)


class KernelContext(ActorHands[TIn, TOut]):
    """The context that an actor gets from its kernel.

    Every message passes `receive` and `send`. For speed, the parts of the mail that these two use are attributes.
    """

    __slots__ = ("_check", "_find", "_has_warned", "_replies", "lease", "output_type", "sends_to", "task")

    def __init__(
        self,
        mail: Mail[TIn, TOut],
        output_type: type[TOut] | None,
        *,
        find: Callable[[str], Receiver] | None = None,
        sends_to: DeviceLease | None = None,
        limits: RuntimeLimits = DEFAULT_LIMITS,
    ) -> None:
        """Make the context of a kernel's actor.

        Args:
            mail: the kernel's mail.
            output_type: the message class that the kernel sends, if it was declared with one.
            find: returns the kernel of a given id in the same runtime, so that the actor can send to it.
            sends_to: the receiver of the actor's messages; see the attribute.
            limits: the limits of the runtime.
        """
        super().__init__(mail, limits)
        self.output_type = output_type
        """The message class that the kernel sends; None if the kernel was declared without one."""
        self.lease: DeviceLease = HOST
        """The kernel's share of its device: arrays, stream and memory. It is set when the kernel is launched."""
        self.sends_to = sends_to
        """The lease of the receiver of the messages. None is anyone in this process, where arrays may stay on a GPU."""
        self.task: asyncio.Task[Any] | None = None
        """The task in which the actor runs; None while it does not run, or if it runs in a thread."""
        self._replies = mail.replies
        self._check = door(output_type)  # It refuses an echo, which is of the input type.
        self._find = find
        self._has_warned = False  # The log says that an output was perhaps to be a reply.

    @property
    def is_active(self) -> bool:
        """True while messages are handed out."""
        return self._gate.is_active

    @property
    def should_terminate(self) -> bool:
        """True once the kernel was asked to end. The actor must then finish the messages in its hands and return."""
        return self._gate.should_terminate

    @property
    def xp(self) -> ModuleType:
        """The module of the kernel's arrays: CuPy on a GPU, else NumPy."""
        return self.lease.xp

    @property
    def device(self) -> Device:
        """The device that the kernel computes on."""
        return self.lease.device

    @property
    def stream(self) -> Any:
        """The kernel's own CUDA stream, which is current whenever the actor runs; None on the CPU."""
        return self.lease.stream

    def to_device(self, array: Any) -> Any:
        """Return an array of `xp` with the elements of `array`.

        There is no need to wait for the copy: whatever the kernel does with the array runs after it.
        """
        return self.lease.to_device(array)

    async def to_host(self, array: Any) -> Any:
        """Wait until an array of `xp` is computed, and return its elements as a NumPy array."""
        (fetched,) = self.lease.fetch([array])
        if self.lease.on_gpu:
            await self.lease.synchronize()
        return fetched

    async def synchronize(self) -> None:
        """Wait until the device has finished all the work of this kernel. Other kernels go on meanwhile."""
        await self.lease.synchronize()

    @property
    def principal(self) -> str | None:
        """Who has sent the message in hand, by name; "local" for a sender in the process of the kernel's runtime.

        None if there is no single message in hand, or nobody knows who has sent it; see `principal_of`.
        """
        return None if self._in_hand is None else self.principal_of(self._in_hand[0])

    def principal_of(self, message: Any) -> str | None:
        """Return who has sent this message, by name; "local" for a sender in the process of the kernel's runtime.

        The message must be in hand, also as one of a batch, and not be answered yet. Otherwise this returns None. So it
        does for a message that was a dead letter and was put back, because nobody knows who has sent that.
        """
        key: int = message.message_id.int
        return self._replies.principal_of(key) if self._item_in_hand(key) is not None else None

    async def wait_active(self) -> None:
        """Wait until the kernel is active, or was asked to end."""
        await self._gate.wait_active()

    async def receive(self, timeout: float | None = None) -> TIn:
        """Return the next message, by priority. This call completes the messages that are still in hand.

        Args:
            timeout: the most seconds to wait; None waits without end.

        Raises:
            QueueTimeoutError: no message came within `timeout` seconds.
            KernelStateError: the kernel was asked to end. An actor that lets this error pass has ended in order.
        """
        if self._in_hand is not None or self._batch:
            self.complete_all()
        item = self._inbox.get_nowait() if self._handed_in_a_row < self._in_a_row else None
        if item is None or (item[2] is not None and self._mail.bury_if_overdue(item)):
            item = await self._next_item(timeout)
        self._handed_in_a_row += 1
        self._in_hand = item
        return item[0]

    async def send(self, message: TOut) -> None:
        """Send a reply or an output.

        The message is a reply if its `correlation_id` is the `message_id` of a request, or if it is a request itself.
        Any other message is an output. An output waits until the kernel is active and the output mailbox has room.

        Raises:
            KernelStateError: the kernel has ended.
            MessageTypeError, MessageSerializationError: the message is not of the kernel's output type.
        """
        if self.lease.on_gpu:
            await make_ready(self.lease, message, self.sends_to)
        if self._gate.has_ended:
            raise self._gate.state_error("send", *OPEN)
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
        if answered is None and perf_counter_ns() >= self.room.look_ns:
            await self._wait_for_room()

    async def batches(self, *, max_size: int = 256, max_delay: float = 0.002) -> AsyncIterator[Batch[TIn]]:
        """Yield batches of messages until the kernel is asked to end. Each new batch completes the one before.

        A batch is handed out when there are `max_size` messages, or when the first of them has waited for `max_delay`
        seconds since it arrived. So an actor that was busy for longer gets the waiting messages at once.

        Args:
            max_size: the most messages in a batch.
            max_delay: the most seconds that a message waits for others.

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
        """Return the next batch; see `batches`. Raises KernelStateError if the kernel was asked to end."""
        if max_size < 1:
            raise InvalidConfigurationError("max_size", max_size, "a batch has at least one message")
        if not max_delay >= 0:
            raise InvalidConfigurationError("max_delay", max_delay, "must be a number of seconds, not negative")
        return Batch(self, [item[0] for item in await self._next_items(max_size, max_delay)])

    async def forward(self, kernel_id: str, message: Any) -> None:
        """Hand a request on to another kernel of the same runtime. Its reply goes to the caller of the request.

        `message` is the request itself, or another message whose `correlation_id` is the `message_id` of the request.
        The other kernel gets the message with the id and the deadline of the request. A message of default priority
        also gets the priority of the request. This call waits for room in the other kernel's mailbox, and completes the
        request.

        Arrays in a field for CuPy arrays stay on the GPU if the other kernel computes on the same GPU. They are
        computed before the other kernel gets them. All other arrays on a GPU are copied to the host.

        Args:
            kernel_id: the id of the other kernel.
            message: the request, or a message that names it.

        Raises:
            KernelNotFoundError, KernelStateError, KernelFailedError, QueueFullError: the other kernel is missing, does
                not take messages, has failed, or is full.
            MessageTypeError, MessageSerializationError: the other kernel does not take such a message; or nobody waits
                for a reply to the request; or the other kernel already has the request, which would go in a circle.
            CircularAskError: the other kernel waits in `ctx.ask` for the reply to this very request.
        """
        receiver = self.receiver(kernel_id)
        if self.lease.on_gpu:
            await make_ready(self.lease, message, receiver.lease)
        await self.forward_to(receiver, message)

    async def ask(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Any:
        """Send a request to another kernel of the same runtime, and return its reply.

        The actor asks for the message of its own that it has in hand; or, if the `correlation_id` of `message` is the
        `message_id` of a request that it was sent, for that one. It must name the request if it asks in a task of its
        own, or has a batch in hand; else it asks for none. The other kernel sees the principal of whoever has sent the
        request, and gets `message` with the priority of the request, if its own is the default. This call waits no
        longer than the sender of the request does, and what it has sent is withdrawn with the request.

        Args:
            kernel_id: the id of the other kernel.
            message: what to send.
            timeout: the most seconds to wait; None waits as long as the sender of the request.

        Raises:
            CircularAskError: the reply would have to wait for this actor.
            RequestWithdrawnError: the sender of the request waits no more.
            QueueTimeoutError: there was no reply in time; the error says why.
            KernelNotFoundError, KernelStateError, KernelFailedError, QueueFullError: the other kernel is missing, does
                not take messages, has failed, or is full; or this kernel has ended.
            MessageTypeError, MessageSerializationError: the other kernel does not take such a message.
        """
        receiver = self.receiver(kernel_id)
        if self.lease.on_gpu:
            await make_ready(self.lease, message, receiver.lease)
        return await self.ask_of(receiver, message, timeout, is_own=asyncio.current_task() is self.task)

    async def ask_of(self, receiver: Receiver, message: Any, timeout: float | None, *, is_own: bool) -> Any:
        """Ask as `ask` does, for a message whose arrays are already prepared for the receiver.

        `is_own` is True if the actor itself waits for the reply, and not a task or a thread that it has started.
        """
        named = message.correlation_id
        about = None if named is None or not self._replies.is_awaited(named.int) else cast(int, named.int)
        if about is None and is_own and self._in_hand is not None:
            about = cast(Header, self._in_hand[0]).message_id.int
        item = None if about is None else self._item_in_hand(about)
        holds = is_own and not self._inbox.is_awaited
        return opened(await receiver.answer(Asker(self._mail, self, holds, about, item), message, timeout))

    def receiver(self, kernel_id: str) -> Receiver:
        """Return the kernel of this id, so that the actor can send to it. Raises KernelNotFoundError."""
        if self._find is None:
            raise KernelNotFoundError(kernel_id, [self.kernel_id])
        return self._find(kernel_id)

    async def forward_to(self, receiver: Receiver, message: Any) -> None:
        """Forward as `forward` does, for a message whose arrays are already prepared for the receiver."""
        key = self._request_of(message)
        await receiver.take_forwarded(self._mail, message, key, self._item_in_hand(key))
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

    async def _send_output(self, message: Any) -> None:
        if not self._has_warned and message.correlation_id is None:
            self._warn_if_forgotten()
        await self._gate.wait_active()
        if not self._mail.outputs.offer(message, message.priority):
            await self._wait_to_put(message)
        self._replies.wanted.notify()

    async def _wait_to_put(self, message: Any) -> None:
        """Put an output into the output mailbox, which is full."""
        if not self._stuck:
            self._stuck_ns = perf_counter_ns()
        self._stuck += 1
        try:
            await self._mail.outputs.put(message, message.priority)
        except asyncio.CancelledError:
            detail = "the kernel ended while its output mailbox was full"
            self._mail.bury(message, detail, DeadLetterReason.KERNEL_ENDED, FROM_KERNEL)
            raise
        finally:
            self._stuck -= 1

    def _warn_if_forgotten(self) -> None:
        """Warn once that an output was perhaps to be the reply to the request in hand.

        That is so if the caller of the request certainly waits for a reply: it has asked, or has set a deadline. Of a
        caller that has only sent, nobody knows if it waits for a reply or for outputs.
        """
        item = self._in_hand or next(iter(self._batch.values()), None)
        if item is None:
            return
        key, terms = cast(Header, item[0]).message_id.int, item[2]
        has_deadline = terms is not None and terms.deadline is not None
        if self._replies.is_asked(key) or (has_deadline and self._replies.is_awaited(key)):
            self._has_warned = True
            logger.warning(
                "the actor has sent an output while the request in its hands waits for a reply; if it was to be the "
                "reply, it lacks correlation_id=request.message_id (this is said once)",
                extra={"kernel_id": self.kernel_id},
            )
