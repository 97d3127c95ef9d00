"""What a kernel asks of whatever runs its actor: a task or a thread of this process, or something elsewhere."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Protocol, TypeAlias

from pydotcompute.device.lease import DeviceLease
from pydotcompute.ring_kernels.actor.room import Room
from pydotcompute.ring_kernels.mail.inbox import Item
from pydotcompute.ring_kernels.mail.signals import Signal
from pydotcompute.ring_kernels.mail.telemetry import WorkerTelemetry

__all__ = ["ActorError", "Decide", "Runner", "WorkerLostError"]


Decide: TypeAlias = Callable[[bool], Awaitable[None]]
"""Lets the workers that are tried out take over, or ends them. It must be called once."""


class ActorError(Exception):
    """An actor that runs elsewhere has failed. The text is that of its exception.

    Args:
        cause_type: the name of the exception's class, or of the signal that ended the actor.
        text: the text of the exception.
    """

    def __init__(self, cause_type: str, text: str) -> None:
        super().__init__(text)
        self.cause_type = cause_type


class WorkerLostError(ActorError):
    """A worker has died, or has broken the rules of its link."""


class Runner(Protocol):
    """Runs the actor of one kernel, and knows what the actor has in its hands.

    The kernel calls `open`, then `run`, and at the end `close`. If the kernel is never launched, it calls none of them.
    """

    room: Room
    """The room for what the actor sends. The kernel sets it before `run`."""

    @property
    def lease(self) -> DeviceLease:
        """The kernel's share of its device, once `open` has returned."""

    @property
    def idle(self) -> Signal:
        """Notified when the actor has nothing in hand and asks for the next message."""

    @property
    def is_idle(self) -> bool:
        """True if the actor has nothing in hand."""

    @property
    def seconds_in_send(self) -> float | None:
        """The seconds that the actor has waited in `send` for room in the output mailbox; None if it does not wait."""

    def workers(self) -> tuple[WorkerTelemetry, ...]:
        """Return the figures of the worker processes; none if the actor runs in this process."""

    async def open(self) -> None:
        """Take what the actor needs, such as its share of a device.

        Raises:
            BackendUnavailableError: the kernel's device is not available.
            LimitExceededError: there are as many threads of actors as are allowed.
        """

    def run(self, on_first_wait: Callable[[], None]) -> Awaitable[None]:
        """Run the actor until it returns. The kernel awaits this once, in a task; to cancel it is to cancel the actor.

        Args:
            on_first_wait: to be called once, when the actor is as far as a launch waits for.

        Raises:
            BaseException: whatever the actor raises.
        """

    def resume(self) -> None:
        """Hand messages to the actor from now on. The kernel has resumed its mailbox, and is ACTIVE next."""

    async def pause(self) -> None:
        """Wait until the actor is certain to be handed no message. The kernel has paused its mailbox already."""

    def end(self) -> None:
        """Ask the actor to end. The kernel is TERMINATING."""

    @property
    def instances(self) -> int:
        """The number of workers that serve the kernel, without those that were told to end; 0 if there are none."""

    async def scale(self, instances: int) -> None:
        """See `RingKernel.scale`."""

    async def try_out(self, kernel_type: Any) -> Decide:
        """Start workers with another text of the kernel type, beside those that there are. See `RingKernel.try_out`."""

    async def restart(self, timeout: float) -> None:
        """See `RingKernel.restart`."""

    def complete_all(self) -> None:
        """Complete every message in hand."""

    def take_what_is_left(self) -> list[Item[Any]]:
        """Remove and return the items in hand. Called when the actor has ended."""

    async def close(self) -> None:
        """Give back what `open` took."""
