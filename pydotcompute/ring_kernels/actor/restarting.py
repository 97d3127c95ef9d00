"""Runs an actor in this process, and starts it again after it has ended."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pydotcompute.ring_kernels.actor.context import KernelContext
from pydotcompute.ring_kernels.actor.failures import forget_variables
from pydotcompute.ring_kernels.actor.here import RunsHere
from pydotcompute.ring_kernels.actor.supervisor import Supervisor
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.mail import Mail
from pydotcompute.ring_kernels.places import Places

__all__ = ["RestartsHere"]


class RestartsHere(RunsHere):
    """Runs an actor as `RunsHere` does, again and again. It is `Supervised`.

    Args:
        supervisor: decides whether the actor is started again.
        mail: the kernel's mail.
        func, context, device, memory_limit, threads: see `RunsHere`.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        mail: Mail[Any, Any],
        func: Callable[[Any], Any],
        context: KernelContext[Any, Any],
        device: str,
        memory_limit: int | None,
        threads: Places,
    ) -> None:
        super().__init__(func, context, device, memory_limit, threads)
        self._supervisor, self._mail = supervisor, mail
        self._has_waited = False  # The actor was once as far as a launch waits for.
        self._on_first_wait: Callable[[], None]

    is_only = True
    """See `Supervised`."""

    is_leaving = False
    """See `Supervised`. Only the end of the kernel ends an actor here."""

    @property
    def completed(self) -> int:
        """See `Supervised`."""
        return self._mail.counters.processed

    def run(self, on_first_wait: Callable[[], None]) -> Awaitable[None]:
        """See `Runner`."""
        self._on_first_wait = on_first_wait
        return self._supervisor.run(self)

    async def run_once(self) -> None:
        """See `Supervised`."""
        if self._in_thread and not self._has_place:
            self._threads.take()
            self._has_place = True
        self._mail.gate.set_actor(True)
        try:
            await super().run(self._waits)
        except BaseException as error:
            if self.lease.on_gpu:
                forget_variables(error)
            raise

    def _waits(self) -> None:
        """Note that the actor is as far as a launch waits for, after its first step."""
        if not self._has_waited:
            asyncio.get_running_loop().call_soon(self._note_wait)
            self._on_first_wait()

    def _note_wait(self) -> None:
        self._has_waited = True

    def can_restart(self, error: BaseException) -> bool:
        """See `Supervised`. A failure before the actor has first waited is one of the launch."""
        return self._has_waited

    def take_in_hand(self) -> Sequence[Item[Any]]:
        """See `Supervised`."""
        return self.take_what_is_left()

    async def stop(self) -> None:
        """See `Supervised`."""
        self._mail.gate.set_actor(False)
