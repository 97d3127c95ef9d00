"""Actors that run in a thread of their own, so that what they compute does not hold up the event loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pydotcompute.device.sessions import Device, Session
from pydotcompute.exceptions import KernelStateError
from pydotcompute.ring_kernels.batches import BlockingBatch
from pydotcompute.ring_kernels.device_arrays import prepare
from pydotcompute.ring_kernels.forwarding import find_receiver, forward

if TYPE_CHECKING:
    from pydotcompute.ring_kernels.context import KernelContext

__all__ = ["BlockingContext", "run_in_thread"]

T = TypeVar("T")
TIn = TypeVar("TIn")
TOut = TypeVar("TOut")


class BlockingContext(Generic[TIn, TOut]):
    """What an actor that is a plain function sees of its kernel: `KernelContext`, whose waiting is that of a thread."""

    def __init__(
        self, context: KernelContext[TIn, TOut], loop: asyncio.AbstractEventLoop, on_first_call: Callable[[], None]
    ) -> None:
        self._context = context
        self._session: Session = context._kernel.session
        self._loop = loop
        self._on_first_call: Callable[[], None] | None = on_first_call
        self.kernel_id = context.kernel_id

    @property
    def is_active(self) -> bool:
        """Whether messages are handed out."""
        return self._context.is_active

    @property
    def should_terminate(self) -> bool:
        """Whether the kernel was asked to end: finish what is in hand and return."""
        return self._context.should_terminate

    @property
    def output_type(self) -> type[TOut] | None:
        """The message class that the kernel sends, if it was declared with one."""
        return self._context.output_type

    @property
    def xp(self) -> ModuleType:
        """See `KernelContext.xp`."""
        return self._session.xp

    @property
    def device(self) -> Device:
        """See `KernelContext.device`."""
        return self._session.device

    @property
    def stream(self) -> Any:
        """See `KernelContext.stream`."""
        return self._session.stream

    def to_device(self, array: Any) -> Any:
        """See `KernelContext.to_device`."""
        return self._session.to_device(array)

    def to_host(self, array: Any) -> Any:
        """See `KernelContext.to_host`."""
        (fetched,) = self._session.fetch([array])
        self._session.wait()
        return fetched

    def synchronize(self) -> None:
        """See `KernelContext.synchronize`."""
        self._session.wait()

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run this on the kernel's event loop, and wait for what it returns or raises."""
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
            # What it raises leads to this frame: with the future in it that is a circle, which keeps all that the actor
            # has, such as arrays on the device, until the collector comes. (Since Python 3.12 the actor is part of it.)
            del future

    def wait_active(self) -> None:
        """See `KernelContext.wait_active`."""
        self.call(self._context.wait_active())

    def receive(self, timeout: float | None = None) -> TIn:
        """See `KernelContext.receive`."""
        return self.call(self._context.receive(timeout))

    def send(self, message: TOut) -> None:
        """See `KernelContext.send`."""
        self._make_ready(message, self._context._kernel.sends_to)
        self.call(self._context.send(message))

    def forward(self, kernel_id: str, message: Any) -> None:
        """See `KernelContext.forward`."""
        kernel = self._context._kernel
        receiver = find_receiver(kernel, kernel_id)
        self._make_ready(message, receiver.session)
        self.call(forward(kernel, receiver, message))

    def _make_ready(self, message: Any, receiver: Session | None) -> None:
        """Wait for what is on the device here, and not on the event loop."""
        if self._session.on_gpu and prepare(self._session, message, receiver):
            self._session.wait()

    def batches(self, *, max_size: int = 256, max_delay: float = 0.002) -> Iterator[BlockingBatch[TIn]]:
        """See `KernelContext.batches`."""
        while not self.should_terminate:
            try:
                batch = self.call(self._context.next_batch(max_size, max_delay))
            except KernelStateError:
                return
            yield BlockingBatch(batch, self.call, self._session)

    def __iter__(self) -> Iterator[TIn]:
        while not self.should_terminate:
            try:
                message = self.receive()
            except KernelStateError:
                return
            yield message


async def run_in_thread(
    actor: Callable[[BlockingContext[Any, Any]], None],
    context: KernelContext[Any, Any],
    on_first_call: Callable[[], None],
) -> None:
    """Run a plain function as an actor, to its end. Raises what it raises.

    A thread cannot be cancelled: if this is, the function goes on until it next asks something of its context, which
    then raises KernelStateError.

    Args:
        on_first_call: called, on the event loop, when the function first waits for something.
    """
    loop = asyncio.get_running_loop()
    end: asyncio.Future[None] = loop.create_future()

    def tell(error: BaseException | None) -> None:
        if end.done():
            return
        if error is None:
            end.set_result(None)
        else:
            end.set_exception(error)

    def run() -> None:
        error: BaseException | None = None
        try:
            with context._kernel.session.current():
                actor(BlockingContext(context, loop, on_first_call))
        except StopIteration as stopped:  # No future takes it.
            error = RuntimeError(f"the actor raised {stopped!r}")
        except BaseException as raised:
            error = raised
        with contextlib.suppress(RuntimeError):  # The event loop is gone, and nobody is left to hear of the end.
            loop.call_soon_threadsafe(tell, error)

    name = f"ring kernel {context.kernel_id}"
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
    await end
