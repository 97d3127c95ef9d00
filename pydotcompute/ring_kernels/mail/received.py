"""What callers receive: the replies to them, and the outputs of the kernel. For the rules of tasks see `callers`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Generic, TypeVar

from pydotcompute.exceptions import PyDotComputeError, QueueTimeoutError
from pydotcompute.messages.header import Header
from pydotcompute.ring_kernels.mail.callers import Caller, TaskCallers, Unanswered
from pydotcompute.ring_kernels.mail.delays import UNKNOWN, Delay
from pydotcompute.ring_kernels.mail.loops import require_loop
from pydotcompute.ring_kernels.mail.mailbox import Mailbox
from pydotcompute.ring_kernels.mail.signals import Signal, wait_any

__all__ = ["FORESIGHT", "Received"]

FORESIGHT = 1.0
"""The most seconds before its deadline that somebody finds out why a caller will have to give up.

It is a fifth of the time that the caller waits, if that is less. So the error comes in time, and says why, also
where the daemon or the machine is so busy that the answer takes a while.
"""
T = TypeVar("T", bound=Header)


def _nobody_knows(caller: Caller[T] | None) -> Delay:
    return UNKNOWN


def _may_take_unclaimed(caller: Caller[T] | None) -> bool:
    return caller is None or not (caller.unanswered or caller.private)


class Received(Generic[T]):
    """The replies and outputs of one kernel that have come, until they are received.

    Args:
        kernel_id: the id of the kernel, for errors.
        outputs: the kernel's output mailbox.
        why_nothing_came: says why a `receive` of this caller has found nothing.
    """

    def __init__(
        self,
        kernel_id: str,
        outputs: Mailbox[T],
        why_nothing_came: Callable[[Caller[T] | None], Delay] = _nobody_knows,
    ) -> None:
        self.kernel_id = kernel_id
        self._why_nothing_came = why_nothing_came
        self.foresee: Callable[[int | None], None] | None = None
        """Called shortly before a caller gives up, if it takes time to find out why; None if it takes none.

        The argument is the `message_id.int` of a request; None for a `receive`.
        """
        self.outputs = outputs
        self.wanted = Signal()
        """Notified when there is an output."""
        self._free = Signal()  # Tasks in `receive` that have no unanswered request of their own.
        self.receiving = 0
        """The number of tasks that wait in `receive`. It is counted only if `on_receiving` is set."""
        self.on_receiving: Callable[[], None] | None = None
        """Called when `receiving` has changed; None if nobody wants to know."""
        self.callers: TaskCallers[T] = TaskCallers(self._task_ended)
        """The tasks that send and receive."""
        self._unclaimed: dict[Caller[T], None] = {}  # Callers that have replies and never received.
        self.ended: PyDotComputeError | None = None
        """The error after which the kernel sends nothing more; None while it may send."""

    def explain(
        self, why_nothing_came: Callable[[Caller[T] | None], Delay], foresee: Callable[[int | None], None]
    ) -> None:
        """Replace the functions that find out why callers give up."""
        self._why_nothing_came, self.foresee = why_nothing_came, foresee

    def _task_ended(self, caller: Caller[T]) -> None:
        """Turn the replies that the ended task has not received into outputs."""
        self._unclaimed.pop(caller, None)
        while (item := caller.take()) is not None:
            if not isinstance(item, Unanswered):
                self.outputs.put_anyway(item, item.priority)
                self.wanted.notify()

    def _offer_unclaimed(self, caller: Caller[T]) -> None:
        """Let tasks without an unanswered request take the replies of this caller, which has never received."""
        self._unclaimed[caller] = None
        if self._free.waiters:
            self._free.notify()

    def _hand(self, caller: Caller[T], item: T | Unanswered, priority: int) -> None:
        caller.ready.push(item, priority)
        if caller.arrived.waiters:
            caller.arrived.notify()
        elif not caller.claims:
            self._offer_unclaimed(caller)

    def has_some(self) -> bool:
        """Return True if `receive` would return at once in the current task."""
        caller = self.callers.receiving()
        return bool((caller is not None and caller.ready) or self.outputs or self._unclaimed)

    @property
    def any_left(self) -> bool:
        """True if there is a reply or an output that a task can receive."""
        return bool(self.outputs or self.callers.any_ready)

    async def receive(self, caller: Caller[T] | None, timeout: float | None = None) -> T:
        """Return the next reply to this caller, or the next output, by the rules in `callers`.

        Args:
            caller: the caller; None is a task that has sent nothing.
            timeout: the most seconds to wait; None waits without end.

        Raises:
            QueueTimeoutError: nothing came within `timeout` seconds.
            PyDotComputeError: a request of the caller will have no reply, or the kernel has ended and everything has
                been received.
        """
        if caller is None:
            item = self._next(None)
        else:
            if not caller.claims:
                caller.claims = True
                self._unclaimed.pop(caller, None)
            item = caller.take() if caller.ready.size else self._next(caller)
        if item is None:
            item = await self._wait_for_next(caller, timeout)
        if item.__class__ is Unanswered:
            raise item.error.again()
        return item  # type: ignore[return-value]

    def _next(self, caller: Caller[T] | None) -> T | Unanswered | None:
        if caller is not None and caller.ready.size:
            return caller.take()
        if self.outputs.items.size and (output := self.outputs.get_nowait()) is not None:
            return output
        if self._unclaimed and (caller is None or _may_take_unclaimed(caller)):
            for other in self._unclaimed:
                item = other.take()
                if not other.ready.size:
                    del self._unclaimed[other]
                return item
        return None

    async def _wait_for_next(self, caller: Caller[T] | None, timeout: float | None) -> T | Unanswered:
        signals = [self.wanted]
        if caller is not None:
            signals.append(caller.arrived)
        if _may_take_unclaimed(caller):
            signals.append(self._free)
        deadline = None if timeout is None else monotonic() + timeout
        ahead = 0.0 if self.foresee is None or timeout is None else min(FORESIGHT, timeout / 5)
        while self.ended is None:
            woken = await self._wait(signals, None if deadline is None else deadline - ahead - monotonic())
            if (item := self._next(caller)) is not None:
                # The task may have been woken for one message and have taken another. Wake a task for the other.
                if self.outputs:
                    self.wanted.notify()
                if self._unclaimed:
                    self._free.notify()
                return item
            if not woken and self.ended is None:
                if ahead and self.foresee is not None:
                    ahead = 0.0
                    self.foresee(None)
                    continue
                assert timeout is not None
                raise QueueTimeoutError(self.kernel_id, timeout, "receive", *self._why_nothing_came(caller))
        raise self.ended.again()

    async def _wait(self, signals: list[Signal], timeout: float | None) -> bool:
        """Wait as `wait_any` does, and count this task in `receiving` meanwhile."""
        loop = asyncio.get_running_loop()
        if loop is not self.callers.loop:
            require_loop(self.callers.loop)
        if self.on_receiving is None:
            return await wait_any(signals, timeout, loop)
        self.receiving += 1
        self.on_receiving()
        try:
            return await wait_any(signals, timeout, loop)
        finally:
            self.receiving -= 1
            self.on_receiving()
