"""The state of a kernel, and the calls that the state allows."""

from __future__ import annotations

import enum
from collections.abc import Callable
from time import perf_counter_ns

from pydotcompute.exceptions import KernelFailedError, KernelStateError, PyDotComputeError
from pydotcompute.ring_kernels.mail.signals import Signal

__all__ = ["ENDED", "OPEN", "Gate", "KernelState"]


class KernelState(enum.Enum):
    """The state of a kernel."""

    CREATED = "CREATED"
    """The kernel is made; nothing is set up."""
    LAUNCHED = "LAUNCHED"
    """The kernel is set up; it takes no messages yet."""
    ACTIVE = "ACTIVE"
    """The kernel takes and handles messages."""
    DEACTIVATED = "DEACTIVATED"
    """The kernel is paused: it takes messages and handles none."""
    TERMINATING = "TERMINATING"
    """The kernel was asked to end: it finishes the messages in its hands and takes no others."""
    TERMINATED = "TERMINATED"
    """The kernel has ended, as asked or by itself."""
    FAILED = "FAILED"
    """The kernel was ended by an exception."""


OPEN = (KernelState.ACTIVE, KernelState.DEACTIVATED)
"""The states in which a kernel takes messages."""
ENDED = (KernelState.TERMINATED, KernelState.FAILED)
"""The states in which a kernel sends nothing more."""


class Gate:
    """The state of a kernel. The kernel changes it with `enter`; its mail and its actor's context read it.

    The hot paths read the attributes. Only `enter` changes those that follow from the state.
    """

    __slots__ = (
        "changed",
        "closing",
        "ending",
        "entered_ns",
        "failure",
        "has_actor",
        "has_ended",
        "is_active",
        "is_open",
        "kernel_id",
        "on_actor",
        "on_state",
        "refusal",
        "returned_after",
        "should_terminate",
        "state",
    )

    def __init__(self, kernel_id: str) -> None:
        self.kernel_id = kernel_id
        self.state = KernelState.CREATED
        self.failure: KernelFailedError | None = None
        """The error of a FAILED kernel; else None. It is set before the kernel enters FAILED."""
        self.returned_after: int | None = None
        """The messages that the actor had handled when it returned by itself; None if it has not."""
        self.ending: PyDotComputeError | None = None
        """The error for callers in place of KernelStateError, when the kernel ends with its runtime; else None."""
        self.entered_ns = perf_counter_ns()
        """When the state last changed, in nanoseconds of `time.perf_counter_ns()`."""
        self.has_actor = True
        """False while the actor is being started again, and messages wait for it. `set_actor` changes it."""
        self.is_active = False
        """True while messages are handed to the actor."""
        self.is_open = False
        """True while the kernel takes messages."""
        self.should_terminate = False
        """True once the kernel was asked to end, or has ended. So an abandoned actor also ends."""
        self.has_ended = False
        """True once the kernel sends nothing more."""
        self.refusal: PyDotComputeError | None = self.error("send", *OPEN)
        """The error for senders while the kernel takes no messages; else None. Raise `refusal.again()`, a copy."""
        self.changed = Signal()
        """Notified at each change of state."""
        self.closing = Signal()
        """Notified at each change to a state in which the kernel takes no messages."""
        self.on_state: Callable[[], None] | None = None
        """Called after each change of state."""
        self.on_actor: Callable[[], None] | None = None
        """Called after each change of `has_actor`."""

    def enter(self, state: KernelState) -> None:
        """Change the state, and wake every task that waits for a change."""
        if state is self.state:
            return
        self.state = state
        self.entered_ns = perf_counter_ns()
        self.is_active = state is KernelState.ACTIVE
        self.is_open = state in OPEN
        self.has_ended = state in ENDED
        self.should_terminate = state is KernelState.TERMINATING or self.has_ended
        self.refusal = self.failure or (None if self.is_open else self.error("send", *OPEN))
        self.changed.notify_all()
        if not self.is_open:
            self.closing.notify_all()
        if self.on_state is not None:
            self.on_state()

    def set_actor(self, has_actor: bool) -> None:
        """Note whether there is an actor for the kernel's messages."""
        if has_actor is not self.has_actor:
            self.has_actor = has_actor
            if self.on_actor is not None:
                self.on_actor()

    def require(self, operation: str, *allowed: KernelState) -> None:
        """Raise the error of `error` unless the kernel is in one of these states."""
        if self.state not in allowed:
            raise self.error(operation, *allowed)

    def error(self, operation: str, *allowed: KernelState) -> PyDotComputeError:
        """Return the error for callers of an operation that the present state does not allow."""
        if self.ending is not None:
            return self.ending.again()
        return self.state_error(operation, *allowed)

    def state_error(self, operation: str, *allowed: KernelState) -> KernelStateError:
        """Return the error for the actor, which is always a KernelStateError: by that it knows that it is to end."""
        names = [state.name for state in allowed]
        return KernelStateError(self.kernel_id, self.state.name, operation, names, self.returned_after)

    def require_open(self) -> None:
        """Raise `refusal` if the kernel takes no messages."""
        if self.refusal is not None:
            raise self.refusal.again()

    async def wait_active(self) -> None:
        """Wait until the kernel is active, or was asked to end."""
        while self.state in (KernelState.LAUNCHED, KernelState.DEACTIVATED):
            await self.changed.wait()
