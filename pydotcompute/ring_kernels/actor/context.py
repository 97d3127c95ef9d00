"""What an actor sees of its kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydotcompute.device.lease import Device
from pydotcompute.exceptions import InvalidConfigurationError, KernelStateError
from pydotcompute.messages.header import check_header
from pydotcompute.ring_kernels.actor.batches import Batch
from pydotcompute.ring_kernels.actor.device_arrays import make_ready
from pydotcompute.ring_kernels.actor.forwarding import find_receiver, forward
from pydotcompute.ring_kernels.mail.gate import OPEN

if TYPE_CHECKING:
    from pydotcompute.ring_kernels.lifecycle import RingKernel

__all__ = ["KernelContext"]

CHECKPOINT_EVERY = 256
"""How many messages an actor is handed in a row before the other tasks have their turn."""

TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class KernelContext(Generic[TIn, TOut]):
    """What an actor sees of its kernel.

    `receive` and `send` are passed by every message, and therefore reach into the kernel instead of asking it.
    """

    __slots__ = ("_kernel", "is_active", "kernel_id", "should_terminate")

    def __init__(self, kernel: RingKernel[TIn, TOut]) -> None:
        self._kernel = kernel
        self.kernel_id = kernel.kernel_id
        self.is_active = False
        """Whether messages are handed out."""
        self.should_terminate = False
        """Whether the kernel was asked to end: finish what is in hand and return."""

    @property
    def output_type(self) -> type[TOut] | None:
        """The message class that the kernel sends, if it was declared with one."""
        return self._kernel._output_type

    @property
    def xp(self) -> ModuleType:
        """The module of the kernel's arrays: CuPy on a GPU, else NumPy."""
        return self._kernel.session.xp

    @property
    def device(self) -> Device:
        """What the kernel computes on."""
        return self._kernel.session.device

    @property
    def stream(self) -> Any:
        """The kernel's own CUDA stream, which is current whenever the actor runs; None on the CPU."""
        return self._kernel.session.stream

    def to_device(self, array: Any) -> Any:
        """An array of `xp` with the elements of this one. What the kernel does with it comes after the copy: there is
        nothing to wait for.
        """
        return self._kernel.session.to_device(array)

    async def to_host(self, array: Any) -> Any:
        """An array of NumPy's with the elements of this one of `xp`, once they are computed."""
        session = self._kernel.session
        (fetched,) = session.fetch([array])
        if session.on_gpu:
            await session.synchronize()
        return fetched

    async def synchronize(self) -> None:
        """Wait until the device has done all that the kernel has asked of it. Other kernels go on."""
        await self._kernel.session.synchronize()

    async def wait_active(self) -> None:
        """Wait until the kernel is active, or was asked to end."""
        await self._kernel._wait_active()

    async def receive(self, timeout: float | None = None) -> TIn:
        """The next message, by priority. Asking for it says that the one before is done with.

        Raises:
            QueueTimeoutError: none came within `timeout` seconds.
            KernelStateError: the kernel was asked to end. An actor may let it pass: that is an orderly end.
        """
        kernel = self._kernel
        if kernel._in_hand is not None or kernel._batch:
            kernel._complete()
        item = kernel.inbox.get_nowait() if kernel._handed_in_a_row < CHECKPOINT_EVERY else None
        if item is None or (item[2] is not None and kernel._bury_if_overdue(item)):
            item = await kernel._next_item(timeout)
        kernel._handed_in_a_row += 1
        kernel._in_hand = item
        return item[0]

    async def send(self, message: TOut) -> None:
        """Send a reply, if `message.correlation_id` is a request's `message_id` or `message` is a request itself; else
        an output, which waits for room in the output mailbox, and until the kernel is active.

        Raises:
            MessageTypeError, MessageSerializationError: the message is not of the kernel's output type.
        """
        kernel = self._kernel
        if kernel.session.on_gpu:
            await make_ready(kernel.session, message, kernel.sends_to)
        if kernel._has_ended:
            raise kernel._state_error("send", *OPEN)
        (kernel._check_output if message.__class__ is kernel._output_type else kernel.check_output)(message)
        header: Any = message
        if header.priority.__class__ is not int or not 0 <= header.priority <= 255:
            check_header(message)
        in_hand = kernel._in_hand
        if in_hand is None:
            answered = None
            if kernel._batch:
                kernel.complete(kernel.request_of(message))
        else:
            request: Any = in_hand[0]
            answered = request.message_id.int
            named = header.correlation_id
            if named is None or message is request:
                named = header.message_id
            if named.int == answered:
                kernel._in_hand = None
                kernel._counters.complete(in_hand[1])
            else:
                answered = None
        if not kernel.replies.deliver(header, answered):
            await kernel._send_output(message)

    async def batches(self, *, max_size: int = 256, max_delay: float = 0.002) -> AsyncIterator[Batch[TIn]]:
        """Messages by the batch, until the kernel is asked to end. Asking for the next says that this one is done with.

        A batch is handed out when there are `max_size` messages, or when the first of them has waited for `max_delay`
        seconds since it arrived: so an actor that was busy for longer gets what there is at once.

        Raises:
            InvalidConfigurationError: `max_size` is less than 1, or `max_delay` negative.
        """
        while not self.should_terminate:
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
        return Batch(self, [item[0] for item in await self._kernel._next_batch(max_size, max_delay)])

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
        receiver = find_receiver(self._kernel, kernel_id)
        if self._kernel.session.on_gpu:
            await make_ready(self._kernel.session, message, receiver.session)
        await forward(self._kernel, receiver, message)

    def __aiter__(self) -> AsyncIterator[TIn]:
        return self._messages()

    async def _messages(self) -> AsyncIterator[TIn]:
        while not self.should_terminate:
            try:
                message = await self.receive()
            except KernelStateError:
                return
            yield message
