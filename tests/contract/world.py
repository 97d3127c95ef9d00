"""What the tests of the contract see: a runtime, which may be here or at a daemon."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Literal

from pydotcompute import KernelRuntime
from pydotcompute.exceptions import PyDotComputeError, QueueTimeoutError
from pydotcompute.ring_kernels.config import RingKernelConfig
from pydotcompute.ring_kernels.declaration import Isolation, KernelFunction
from pydotcompute.ring_kernels.mail.gate import KernelState
from pydotcompute.ring_kernels.mail.telemetry import RingKernelTelemetry
from pydotcompute_client import RemoteRuntime

PATIENCE = 30.0
"""Seconds that anything may take that ought to happen soon, on a machine that is busy with other things."""

_numbers = itertools.count()


@dataclass(frozen=True)
class World:
    """One of the worlds in which the contract holds."""

    name: Literal["local", "remote"]
    runtime: KernelRuntime
    connect_another: Callable[[], Awaitable[KernelRuntime]]
    """Another client of the same kernels: locally, where clients are tasks, the same runtime; else a new connection."""
    isolation: Isolation = "none"
    """Whether the actors run in worker processes."""

    async def launch(self, kernel_func: KernelFunction, *, activate: bool = True, **settings: Any) -> str:
        """Launch a kernel of this type under an id that is nobody else's; `settings` are those of RingKernelConfig."""
        kernel_id = new_kernel_id(kernel_func)
        config = RingKernelConfig(kernel_id, **settings) if settings else None
        await self.runtime.launch(kernel_id, kernel_func, config=config)
        if activate:
            await self.runtime.activate(kernel_id)
        return kernel_id

    def telemetry(self, kernel_id: str) -> RingKernelTelemetry:
        """What the kernel has done."""
        telemetry = self.runtime.get_telemetry(kernel_id)
        assert telemetry is not None
        return telemetry

    async def queued(self, kernel_id: str, count: int) -> None:
        """Wait until so many messages are in the mailbox: over the wire, `send` returns before they are."""
        await eventually(lambda: self.telemetry(kernel_id).queue_depth == count)

    async def processed(self, kernel_id: str, count: int) -> None:
        """Wait until so many messages are done with."""
        await eventually(lambda: self.telemetry(kernel_id).messages_processed == count)

    async def failed(self, kernel_id: str, timeout: float = PATIENCE) -> None:
        """Wait until the kernel has failed."""
        await eventually(lambda: self.runtime.get_kernel_state(kernel_id) is KernelState.FAILED, timeout)

    async def heard_of_the_end(self, kernel_id: str) -> None:
        """Wait until `send` knows that the kernel takes no more messages: over the wire, the news take a moment."""
        if isinstance(self.runtime, RemoteRuntime):
            await self.runtime._sessions[kernel_id].wait_closed(PATIENCE)

    async def refusal(self, kernel_id: str, message: Any) -> PyDotComputeError:
        """The error that a sender gets of a kernel that has ended: from `send`, or, if over the wire the message and
        the news of the end have crossed, from the `receive` after it.
        """
        try:
            await self.runtime.send(kernel_id, message, timeout=PATIENCE)
            assert self.name == "remote"
            await self.runtime.receive(kernel_id, timeout=PATIENCE)
        except PyDotComputeError as error:
            return error
        raise AssertionError("it was sent, and received")

    async def heard(self, runtime: KernelRuntime, kernel_id: str, message: Any) -> None:
        """Wait until the kernel has all that this client has asked for, a `receive` as well: this message, which it
        answers, goes the same way.
        """
        await asyncio.sleep(0)  # Who was to ask has.
        await runtime.send_and_receive(kernel_id, message, timeout=PATIENCE)

    async def nothing_to_receive(self, kernel_id: str, timeout: float = 0.05) -> bool:
        """Whether `receive` finds nothing."""
        try:
            await self.runtime.receive(kernel_id, timeout=timeout)
        except QueueTimeoutError:
            return True
        return False


@dataclass(frozen=True)
class Clogged:
    """A paused kernel whose mailbox of four is full."""

    world: World
    kernel_id: str


def new_kernel_id(kernel_func: KernelFunction) -> str:
    """An id that no other test uses."""
    return f"{getattr(kernel_func, '__name__', 'kernel')}-{next(_numbers)}"


async def eventually(predicate: Callable[[], bool], timeout: float = PATIENCE) -> None:
    """Wait until the predicate holds, for what can be asked and not awaited."""
    async with asyncio.timeout(timeout):
        while not predicate():  # noqa: ASYNC110  # There is no event: what is asked may be another process.
            await asyncio.sleep(0.002)


async def turns(count: int) -> None:
    """Let the other tasks of this loop run so many times, for a moment as good as any: what must have happened is
    waited for.
    """
    for _ in range(count):
        await asyncio.sleep(0)
