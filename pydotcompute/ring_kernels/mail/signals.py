"""Signals, with which tasks of one event loop wait for a change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

__all__ = ["Signal", "expire", "wait_any"]


def expire(waiter: asyncio.Future[Any]) -> None:
    """Wake the task that waits for this future with the result False, unless the future is already done."""
    if not waiter.done():
        waiter.set_result(False)


class Signal:
    """Wakes the tasks that wait, the longest waiting first.

    A signal only says that something may have changed. A woken task must look again, and take what it waits for before
    it awaits anything else. So a message is always either in a mailbox or with a task, and neither a cancellation nor a
    pause can lose it.
    """

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: dict[asyncio.Future[bool], None] = {}
        """The waiting tasks, as an ordered set. Code that notifies often checks first that the set is not empty."""

    def __len__(self) -> int:
        return len(self.waiters)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for `notify`. Return False if `timeout` seconds pass first.

        Other tasks always run meanwhile, even if the time-out is 0.
        """
        return await wait_any((self,), timeout)

    def notify(self, count: int = 1) -> None:
        """Wake up to `count` tasks."""
        waiters = self.waiters
        while count > 0 and waiters:
            waiter = next(iter(waiters))
            del waiters[waiter]
            if not waiter.done():
                waiter.set_result(True)
                count -= 1

    def notify_all(self) -> None:
        """Wake every task that waits now."""
        self.notify(len(self.waiters))


async def wait_any(
    signals: Sequence[Signal], timeout: float | None = None, loop: asyncio.AbstractEventLoop | None = None
) -> bool:
    """Wait until one of the signals is notified. Return False if `timeout` seconds pass first.

    Args:
        signals: the signals.
        timeout: the seconds to wait; None waits without end.
        loop: the running event loop, if the caller knows it.
    """
    if timeout is not None and timeout <= 0:
        await asyncio.sleep(0)
        return False
    if loop is None:
        loop = asyncio.get_running_loop()
    waiter: asyncio.Future[bool] = loop.create_future()
    for signal in signals:
        signal.waiters[waiter] = None
    timer = None if timeout is None else loop.call_later(timeout, expire, waiter)
    try:
        return await waiter
    except asyncio.CancelledError:
        if waiter.done() and not waiter.cancelled():
            for signal in signals:
                signal.notify()  # This task was woken but cannot look any more: wake another in its place.
        raise
    finally:
        for signal in signals:
            signal.waiters.pop(waiter, None)
        if timer is not None:
            timer.cancel()
