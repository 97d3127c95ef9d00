"""Runs an actor in this process: in the kernel's task, or in a thread."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

from pydotcompute.device.lease import DeviceLease
from pydotcompute.device.open_lease import open_lease
from pydotcompute.exceptions import InvalidConfigurationError
from pydotcompute.ring_kernels.actor.blocking import run_in_thread
from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.actor.room import Room
from pydotcompute.ring_kernels.actor.runner import Decide
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.mail.telemetry import WorkerTelemetry
from pydotcompute.ring_kernels.places import Places

__all__ = ["RunsHere"]


class RunsHere:
    """Runs a coroutine function in the task of `run`, and a plain function in a thread of its own.

    Args:
        func: the user's function.
        context: the context that the function gets.
        device: the device that the function computes on, as `KernelType.device` names it.
        memory_limit: the most bytes of the device that it may hold; None means no limit.
        threads: the places for threads, of which a plain function takes one.
    """

    def __init__(
        self,
        func: Callable[[Any], Any],
        context: KernelContext[Any, Any],
        device: str,
        memory_limit: int | None,
        threads: Places,
    ) -> None:
        self._func = func
        self._context = context
        self._device, self._memory_limit = device, memory_limit
        self._threads = threads
        self._in_thread = not inspect.iscoroutinefunction(func)
        self._has_place = False  # It has taken a place for a thread that was not started yet.

    @property
    def lease(self) -> DeviceLease:
        """See `Runner`."""
        return self._context.lease

    @property
    def room(self) -> Room:
        """See `Runner`."""
        return self._context.room

    @room.setter
    def room(self, room: Room) -> None:
        self._context.room = room

    @property
    def idle(self) -> Signal:
        """See `Runner`."""
        return self._context.idle

    @property
    def is_idle(self) -> bool:
        """See `Runner`."""
        return self._context.is_idle

    def workers(self) -> tuple[WorkerTelemetry, ...]:
        """See `Runner`."""
        return ()

    @property
    def seconds_in_send(self) -> float | None:
        """See `Runner`."""
        return self._context.seconds_in_send

    async def open(self) -> None:
        """See `Runner`."""
        lease = await open_lease(self._device, self._context.kernel_id, self._memory_limit)
        if self._in_thread:
            try:
                self._threads.take()
            except BaseException:
                await lease.close()
                raise
            self._has_place = True
        self._context.lease = lease

    def run(self, on_first_wait: Callable[[], None]) -> Awaitable[None]:
        """See `Runner`. This is no coroutine of its own, because each turn of the actor would go through it."""
        if self._in_thread:
            self._has_place = False
            return run_in_thread(self._func, self._context, on_first_wait, self._threads.leave)
        self._context.task = asyncio.current_task()
        on_first_wait()  # A launch gives the loop one turn, in which the actor runs until it first waits.
        return self._context.lease.drive(self._func(self._context))

    def resume(self) -> None:
        """See `Runner`. The actor asks the mailbox itself."""

    async def pause(self) -> None:
        """See `Runner`. The actor asks the mailbox itself."""

    def end(self) -> None:
        """See `Runner`. The actor asks the kernel's state itself."""

    @property
    def instances(self) -> int:
        """See `Runner`."""
        return 0

    async def scale(self, instances: int) -> None:
        """See `Runner`."""
        problem = 'only worker processes can share a mailbox; declare the kernel with isolation="process"'
        raise InvalidConfigurationError("instances", instances, problem)

    async def try_out(self, kernel_type: Any) -> Decide:
        """See `Runner`."""
        raise InvalidConfigurationError("isolation", "none", "only the actor of a worker process can be replaced")

    async def restart(self, timeout: float) -> None:
        """See `Runner`."""
        problem = (
            'only a worker process is restarted, unless the kernel has failed; declare it with isolation="process"'
        )
        raise InvalidConfigurationError("isolation", "none", problem)

    def complete_all(self) -> None:
        """See `Runner`."""
        self._context.complete_all()

    def take_what_is_left(self) -> list[Item[Any]]:
        """See `Runner`."""
        return self._context.take_what_is_left()

    async def close(self) -> None:
        """See `Runner`."""
        if self._has_place:
            self._has_place = False
            self._threads.leave()
        if self.lease.on_gpu:
            await self.lease.close()
