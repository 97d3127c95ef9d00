"""Actors that run in a thread of their own, so that their computing does not hold up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator, Sequence
from types import ModuleType
from typing import Any, Generic, TypeVar

from pydotcompute.device.lease import Device, DeviceLease
from pydotcompute.exceptions import KernelStateError
from pydotcompute.ring_kernels.actor.batches import Batch, Messages
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.actor.device_arrays import fetch_columns, prepare

__all__ = ["BlockingBatch", "BlockingContext", "run_in_thread"]

T = TypeVar("T")
TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class BlockingContext(Generic[TIn, TOut]):
    """The context of an actor that is a plain function and runs in a thread.

    It has the methods of `KernelContext`, but they block the thread instead of being awaited.
    """

    def __init__(
        self, context: KernelContext[TIn, TOut], loop: asyncio.AbstractEventLoop, on_first_call: Callable[[], None]
    ) -> None:
        self._context = context
        self._lease = context.lease
        self._loop = loop
        self._on_first_call: Callable[[], None] | None = on_first_call
        self._thread = threading.get_ident()
        self.kernel_id = context.kernel_id

    @property
    def is_active(self) -> bool:
        """True while messages are handed to the actor."""
        return self._context.is_active

    @property
    def should_terminate(self) -> bool:
        """True once the kernel was asked to end. The actor must then finish the messages in its hands and return."""
        return self._context.should_terminate

    @property
    def principal(self) -> str | None:
        """See `KernelContext.principal`."""
        return self._context.principal

    def principal_of(self, message: Any) -> str | None:
        """See `KernelContext.principal_of`."""
        return self._context.principal_of(message)

    @property
    def deliveries(self) -> int:
        """See `KernelContext.deliveries`."""
        return self._context.deliveries

    @property
    def redelivered(self) -> bool:
        """See `KernelContext.redelivered`."""
        return self._context.redelivered

    @property
    def output_type(self) -> type[TOut] | None:
        """The message class that the kernel sends; None if the kernel was declared without one."""
        return self._context.output_type

    @property
    def xp(self) -> ModuleType:
        """See `KernelContext.xp`."""
        return self._lease.xp

    @property
    def device(self) -> Device:
        """See `KernelContext.device`."""
        return self._lease.device

    @property
    def stream(self) -> Any:
        """See `KernelContext.stream`."""
        return self._lease.stream

    def to_device(self, array: Any) -> Any:
        """See `KernelContext.to_device`."""
        return self._lease.to_device(array)

    def to_host(self, array: Any) -> Any:
        """See `KernelContext.to_host`."""
        (fetched,) = self._lease.fetch([array])
        self._lease.wait()
        return fetched

    def synchronize(self) -> None:
        """See `KernelContext.synchronize`."""
        self._lease.wait()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the kernel's event loop, and wait for its end.

        Returns:
            The result of the coroutine.

        Raises:
            RuntimeError: the event loop is closed.
            BaseException: whatever the coroutine raises.
        """
        if self._on_first_call is not None:
            self._loop.call_soon_threadsafe(self._on_first_call)
            self._on_first_call = None
        try:
            future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:  # The event loop is gone, and with it the kernel.
            coroutine.close()
            raise
        try:
            return future.result()
        finally:
            # An exception refers to this frame, and this frame to the future, which refers to the exception. Such a
            # circle would keep the actor's variables, such as arrays on the device, until the garbage collector runs.
            # (Since Python 3.12 the actor's frame is part of the circle.)
            del future

    def wait_active(self) -> None:
        """See `KernelContext.wait_active`."""
        self.call(self._context.wait_active())

    def receive(self, timeout: float | None = None) -> TIn:
        """See `KernelContext.receive`."""
        return self.call(self._context.receive(timeout))

    def send(self, message: TOut) -> None:
        """See `KernelContext.send`."""
        self._make_ready(message, self._context.sends_to)
        self.call(self._context.send(message))

    def forward(self, kernel_id: str, message: Any) -> None:
        """See `KernelContext.forward`."""
        receiver = self._context.receiver(kernel_id)
        self._make_ready(message, receiver.lease)
        self.call(self._context.forward_to(receiver, message))

    def ask(self, kernel_id: str, message: Any, *, timeout: float | None = None) -> Any:
        """See `KernelContext.ask`. A thread that the actor has started must name the request, as a task must."""
        receiver = self._context.receiver(kernel_id)
        self._make_ready(message, receiver.lease)
        is_own = threading.get_ident() == self._thread
        return self.call(self._context.ask_of(receiver, message, timeout, is_own=is_own))

    def _make_ready(self, message: Any, receiver: DeviceLease | None) -> None:
        """Prepare a message for its receiver; wait for the device in this thread, not on the event loop."""
        if self._lease.on_gpu and prepare(self._lease, message, receiver):
            self._lease.wait()

    def batches(self, *, max_size: int = 256, max_delay: float = 0.002) -> Iterator[BlockingBatch[TIn]]:
        """See `KernelContext.batches`."""
        while not self.should_terminate:
            try:
                batch = self.call(self._context.next_batch(max_size, max_delay))
            except KernelStateError:
                return
            yield BlockingBatch(self._context, batch, self.call)

    def __iter__(self) -> Iterator[TIn]:
        while not self.should_terminate:
            try:
                message = self.receive()
            except KernelStateError:
                return
            yield message


class BlockingBatch(Messages[TIn]):
    """A batch of messages for an actor in a thread."""

    def __init__(
        self, context: KernelContext[TIn, Any], batch: Batch[TIn], call: Callable[[Coroutine[Any, Any, None]], None]
    ) -> None:
        super().__init__(context, batch)
        self._call = call

    def reply(self, **columns: Any) -> None:
        """See `Batch.reply`."""
        lease = self._context.lease
        if lease.on_gpu:
            columns, any_on_device = fetch_columns(lease, columns)
            if any_on_device:
                lease.wait()
        self._call(self._send(list(self._replies(columns))))

    async def _send(self, replies: Sequence[Any]) -> None:
        for reply in replies:
            await self._context.send(reply)


async def run_in_thread(
    actor: Callable[[BlockingContext[Any, Any]], None],
    context: KernelContext[Any, Any],
    on_first_call: Callable[[], None],
    on_end: Callable[[], None],
) -> None:
    """Run a plain function as an actor in a new thread, and wait until it returns.

    A thread cannot be cancelled. If this coroutine is cancelled, the function goes on until it next uses its context.
    The context then raises KernelStateError.

    Args:
        actor: the plain function.
        context: the kernel's context, which the function gets as a `BlockingContext`.
        on_first_call: called, on the event loop, when the function first waits for something.
        on_end: called, on the event loop, when the thread has ended, also after a cancellation.

    Raises:
        BaseException: whatever the function raises.
    """
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        on_end()
        if end.done():
            return
        if error is None:
            end.set_result(None)
        else:
            end.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            with context.lease.current():
                actor(BlockingContext(context, loop, on_first_call))
        except StopIteration as stopped:  # A future cannot hold StopIteration.
            error = RuntimeError(f"the actor raised {stopped!r}")
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # The event loop is gone, and nobody waits for the end.
            loop.call_soon_threadsafe(tell, error)

    name = f"ring kernel {context.kernel_id}"
    thread = threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # The system allows no more threads.
        on_end()
        raise
    await end
