"""Tasks of one event loop that wait for something to change."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

__all__ = ["Signal", "expire", "wait_any"]


def expire(waiter: asyncio.Future[Any]) -> None:
    """Wake who waits for this with False, unless it is woken already."""
    if not waiter.done():
        waiter.set_result(False)


class Signal:
    """Wakes the tasks that wait, the longest waiting first.

    To be woken is a hint and not a gift: who waits looks again at what it waits for, and takes it in the same step. So
    a message is at no moment on its way between a mailbox and a task, and neither a cancellation nor a pause can lose
    it.
    """

    __slots__ = ("waiters",)

    def __init__(self) -> None:
        self.waiters: dict[asyncio.Future[bool], None] = {}
        """An ordered set; who notifies often looks first whether there is anyone."""

    def __len__(self) -> int:
        return len(self.waiters)

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait for `notify`; False if `timeout` seconds pass first. Always lets other tasks run, even if there is no
        time.
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


async def wait_any(signals: Sequence[Signal], timeout: float | None = None) -> bool:
    """Wait until one of the signals is notified; False if `timeout` seconds pass first."""
    if timeout is not None and timeout <= 0:
        await asyncio.sleep(0)
        return False
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
                signal.notify()  # This task may have been woken, and cannot look any more: the next one must.
        raise
    finally:
        for signal in signals:
            signal.waiters.pop(waiter, None)
        if timer is not None:
            timer.cancel()
